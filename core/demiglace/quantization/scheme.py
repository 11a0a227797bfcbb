"""How real numbers become small integers: bits, symmetry, and what shares a scale."""

from __future__ import annotations

from dataclasses import dataclass

MIN_BITS, MAX_BITS = 2, 8


@dataclass(frozen=True)
class Scheme:
    """An affine scheme: a real number is `(integer - zero_point) * scale`.

    Symmetric integers run from `-(2**(bits-1) - 1)` to `2**(bits-1) - 1` with zero point 0, so that two
    bits are ternary; asymmetric ones use all `2**bits` values. Zero is always represented exactly.
    """

    bits: int = 8
    symmetric: bool = True
    #: Weights of an output that share a scale; `None`: all of them.
    group: int | None = None
    #: One scale for the whole tensor.
    per_tensor: bool = False

    @property
    def low(self) -> int:
        """The smallest integer."""
        return -(1 << (self.bits - 1)) + (1 if self.symmetric else 0)

    @property
    def high(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - 1)) - 1

    def groups(self, columns: int) -> int:
        """How many groups a row of `columns` weights has."""
        return 1 if self.group is None else columns // self.group

    def fits(self, columns: int) -> bool:
        """Whether groups divide a row of `columns` weights."""
        return self.group is None or columns % self.group == 0


def fitting_groups(columns: int) -> list[int]:
    """The group sizes that divide a row of `columns` weights, ascending; those below 8 only of short rows."""
    sizes = [size for size in range(2, columns + 1) if columns % size == 0]
    return [size for size in sizes if size >= 8] or sizes
