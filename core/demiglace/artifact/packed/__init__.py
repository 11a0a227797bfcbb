"""A model as one small file, `.dgz`: each tensor in the smallest of several encodings, all lossless."""

from demiglace.artifact.packed.container import SUFFIX
from demiglace.artifact.packed.reading import Unpacked, unpack
from demiglace.artifact.packed.writing import Packed, coded_bytes, pack

__all__ = ["SUFFIX", "Packed", "Unpacked", "coded_bytes", "pack", "unpack"]
