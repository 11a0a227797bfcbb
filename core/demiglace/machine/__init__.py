"""What a machine has: the processor's instructions, a C++ compiler, packages. Imports no torch."""

from demiglace.machine.compiler import compiler, compiler_hint, compiler_wanted
from demiglace.machine.native import native_library
from demiglace.machine.packages import version
from demiglace.machine.processor import PERMUTATION, Processor, processor

__all__ = [
    "PERMUTATION",
    "Processor",
    "compiler",
    "compiler_hint",
    "compiler_wanted",
    "native_library",
    "processor",
    "version",
]
