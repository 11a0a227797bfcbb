"""Rules by operator, one family a file."""

from demiglace.graph.rules import (
    contraction,
    convolution,
    creation,
    elementwise,
    extension,
    indexing,
    movement,
    normalization,
    pieces,
    reduction,
)
from demiglace.graph.rules.registry import RESIZES, RULES, resize, rule

__all__ = [
    "RESIZES",
    "RULES",
    "contraction",
    "convolution",
    "creation",
    "elementwise",
    "extension",
    "indexing",
    "movement",
    "normalization",
    "pieces",
    "reduction",
    "resize",
    "rule",
]
