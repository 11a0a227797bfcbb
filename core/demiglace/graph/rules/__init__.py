"""Rules by operator, one family a file."""

from demiglace.graph.rules import (
    contraction,
    convolution,
    creation,
    einsum,
    elementwise,
    extension,
    indexing,
    movement,
    normalization,
    pieces,
    recurrent,
    reduction,
    similarity,
    spectral,
    windows,
)
from demiglace.graph.rules.registry import RESIZES, RULES, resize, rule

__all__ = [
    "RESIZES",
    "RULES",
    "contraction",
    "convolution",
    "creation",
    "einsum",
    "elementwise",
    "extension",
    "indexing",
    "movement",
    "normalization",
    "pieces",
    "recurrent",
    "reduction",
    "resize",
    "rule",
    "similarity",
    "spectral",
    "windows",
]
