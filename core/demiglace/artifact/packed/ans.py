"""Symbols as a stack of 32-bit words: range asymmetric numeral systems (Duda 2013) by constriction.

A model of `k` symbols is a list of `k` levels, quarter octaves of how often each comes. From levels come
integer frequencies that sum to 2**24, by integer arithmetic alone: every machine decodes with the same
model. A symbol that never comes has level 0 and still the frequency 1.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import constriction
import numpy as np
from numpy.typing import NDArray

from demiglace.artifact.packed.stream import Cursor, Damaged, varint

Symbols = NDArray[np.uint8]
"""Integers from 0 to 255, in order."""

Shares: TypeAlias = NDArray[np.float64]
"""Frequencies less 1: integers that sum, with the number of symbols, to 2**24."""

_TOTAL = 1 << 24  # what frequencies sum to: constriction's default precision
_QUARTERS = (16384, 19484, 23170, 27554)  # 2**14 times the powers 0, 1/4, 1/2, 3/4 of 2
_MOST = 127  # a level is at most this
STRIDE = 8
"""Symbols from one level to the next in a smooth model."""
_coder = constriction.stream.stack.AnsCoder
_categoricals = constriction.stream.model.Categorical(perfect=False)
_categorical = constriction.stream.model.Categorical
_bernoulli = constriction.stream.model.Bernoulli(perfect=False)


def levels_of(counts: NDArray[Any]) -> list[int]:
    """The level of each symbol that came so many times."""
    return [0 if count < 0.5 else 1 + round(4 * math.log2(max(count, 1))) for count in counts.tolist()]


def knots_of(counts: NDArray[np.int64]) -> list[int]:
    """The level at every eighth symbol and at the last, from the mean of nine counts around it."""
    means = np.convolve(counts, np.ones(STRIDE + 1) / (STRIDE + 1), "same")
    return [max(1, level) for level in levels_of(means[_knots(len(counts), STRIDE)])]


def _knots(kinds: int, stride: int) -> list[int]:
    return [*range(0, kinds - 1, stride), kinds - 1]


def _between(knots: list[int], kinds: int, stride: int) -> list[int]:
    """The levels of all symbols, on straight lines from knot to knot."""
    levels = [knots[0]]
    places = _knots(kinds, stride)
    for start, stop, low, high in zip(places, places[1:], knots, knots[1:], strict=False):
        width = stop - start
        levels += [(low * (width - step) + high * step) // width for step in range(1, width + 1)]
    return levels


def frequencies(levels: list[int]) -> list[int]:
    """Frequencies from 1 that sum to 2**24; what rounding leaves goes to the first most frequent symbol."""
    weights = [0 if level == 0 else _QUARTERS[(level - 1) % 4] << (level - 1) // 4 for level in levels]
    total, room = sum(weights), _TOTAL - len(levels)
    if total == 0:
        raise Damaged("a model has no symbol")
    shares = [weight * room // total for weight in weights]
    shares[weights.index(max(weights))] += room - sum(shares)
    return [share + 1 for share in shares]


def shares_of(weights: NDArray[np.int64]) -> Shares:
    """Shares of weights up to 2**38, not all 0; what rounding leaves goes to the first of the largest."""
    room = _TOTAL - len(weights)
    shares = weights * room // weights.sum()
    shares[weights.argmax()] += room - shares.sum()
    return shares.astype(np.float64)


def _model(levels: list[int]) -> Any:
    # constriction adds 1 to each probability that it scales to integers; these need no scaling.
    shares = np.array(frequencies(levels), dtype=np.float64) - 1
    return _categorical(shares, perfect=False, lazy=False)


_STEP_LEVELS = [max(1, 64 - 4 * step) for step in range(256)]
_STEPS = _model(_STEP_LEVELS)
"""Levels are coded as steps from one to the next, small steps more cheaply."""


class Stack:
    """Symbols, last in, first out: pushed in the reverse of the order in which they are popped."""

    def __init__(self, words: NDArray[np.uint32] | None = None) -> None:
        self._coder = _coder() if words is None else _coder(words)

    @classmethod
    def read(cls, cursor: Cursor) -> Stack:
        """The stack whose `bytes` come next."""
        words = np.frombuffer(cursor.take(4 * cursor.varint()), dtype="<u4").astype(np.uint32)
        if len(words) and words[-1] == 0:
            raise Damaged("a stack ends with a zero word")
        return cls(words)

    def bytes(self) -> bytes:
        """How many words, then the words, little-endian, the top one last."""
        words = self._coder.get_compressed()
        return varint(len(words)) + words.astype("<u4").tobytes()

    def push(self, symbols: Symbols, levels: list[int], *, kinds: int | None = None, stride: int = 1) -> None:
        """Push symbols below `kinds`, and on top of them the model.

        Args:
            symbols: what to push.
            levels: of every symbol, or of every `stride`-th and the last.
            kinds: how many symbols the model has, by default as many as levels.
            stride: from one given level to the next.
        """
        kinds = len(levels) if kinds is None else kinds
        if kinds > 1:
            self._coder.encode_reverse(symbols.astype(np.int32), _model(_between(levels, kinds, stride)))
        self._coder.encode_reverse(np.array(_steps(levels), dtype=np.int32), _STEPS)

    def pop(self, count: int, kinds: int, *, stride: int = 1) -> Symbols:
        """Pop a model of so many symbols, and `count` symbols by it; see `push`."""
        knots = _levels(self._coder.decode(_STEPS, len(_knots(kinds, stride))).tolist())
        levels = _between(knots, kinds, stride)
        if kinds == 1:
            return np.zeros(count, dtype=np.uint8)
        return self._coder.decode(_model(levels), count).astype(np.uint8)

    def push_bits(self, bits: NDArray[Any], probabilities: NDArray[Any]) -> None:
        """Push bits by the probability that each is 1, of 2**16 and strictly between 0 and that."""
        self._coder.encode_reverse(bits.astype(np.int32), _bernoulli, probabilities / 65536)

    def pop_bits(self, probabilities: NDArray[Any]) -> NDArray[np.int32]:
        """Pop as many bits as there are probabilities; see `push_bits`."""
        return self._coder.decode(_bernoulli, probabilities / 65536)

    def push_shares(self, symbols: Symbols, shares: Shares) -> None:
        """Push symbols `[n]`, each by its own shares `[n, kinds]`."""
        self._coder.encode_reverse(symbols.astype(np.int32), _categoricals, shares)

    def pop_shares(self, shares: Shares) -> NDArray[np.int32]:
        """Pop as many symbols as there are rows of shares; see `push_shares`."""
        return self._coder.decode(_categoricals, shares)

    def finish(self) -> None:
        """Assure that nothing is left.

        Raises:
            Damaged: when something is.
        """
        if not self._coder.is_empty():
            raise Damaged("a stack holds more than was pushed")


def _steps(levels: list[int]) -> list[int]:
    """0, 1, -1, 2, -2, ... as 0, 1, 2, 3, 4."""
    steps = [level - before for before, level in zip([0, *levels], levels, strict=False)]
    return [2 * step - 1 if step > 0 else -2 * step for step in steps]


def _levels(steps: list[int]) -> list[int]:
    levels, level = [], 0
    for step in steps:
        level += (step + 1) // 2 if step % 2 else -(step // 2)
        if not 0 <= level <= _MOST:
            raise Damaged(f"a symbol has level {level}")
        levels.append(level)
    return levels


def cost(counts: NDArray[np.int64]) -> float:
    """Bits that symbols with these counts take, by their order-0 entropy, without their model."""
    present = counts[counts > 0].astype(np.float64)
    return (
        float(present.sum() * np.log2(present.sum()) - (present * np.log2(present)).sum())
        if len(present)
        else 0.0
    )
