"""Probabilities of bits, mixed from what was seen in several contexts of each.

Logistic mixing as in context-mixing compressors (Mahoney 2005, "Adaptive Weighing of Context Models for
Lossless Data Compression"), a whole array of bits at a time. All arithmetic is of integers: every machine
decodes with the same probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

ONE = 1 << 16
"""The probability 1."""

_TOP = 2839  # logits are in 256ths, from -_TOP to _TOP
_KNOT = 32
_EDGE = 8  # probabilities stay this far from 0 and ONE
_PRIOR = 2  # observations that the general probability is worth in a context
_MOST = 1023  # observations after which a context's counts are halved
_RATE, _SOME = 262, 6  # of learning, in 2**-24; the logarithm of how many bits make a step no larger
_FIRST, _HEAVIEST = 19661, 8 * ONE  # weights, in 2**-16


@cache
def _probabilities() -> Integers:
    """The probability of each logit: on straight lines between its values at multiples of 32."""
    last = -(-(_TOP + 1) // _KNOT) * _KNOT
    values = [round(ONE / (1 + math.exp(-knot / 256))) for knot in range(-last, last + 1, _KNOT)]
    place, rest = np.divmod(np.arange(-_TOP, _TOP + 1) + last, _KNOT)
    knots = np.array(values, dtype=np.int64)
    between = (knots[place] * (_KNOT - rest) + knots[place + 1] * rest) // _KNOT
    return np.clip(between, _EDGE, ONE - _EDGE)


@cache
def _logits() -> Integers:
    """The smallest logit whose probability is at least the given one."""
    found = np.searchsorted(_probabilities(), np.arange(ONE + 1))
    return np.minimum(found, 2 * _TOP).astype(np.int64) - _TOP


class _Counts:
    """How often a bit was 0 and 1 in each context."""

    def __init__(self, contexts: int) -> None:
        self._seen = np.zeros((contexts, 2), dtype=np.int64)

    def probability(self, at: Integers, general: Integers | int, weight: int) -> Integers:
        """Of a 1 in these contexts, where `general` is what it is in any, worth `weight` observations."""
        seen = self._seen[at]
        return ((seen[:, 1] << 16) + weight * general) // (seen.sum(1) + weight)

    def add(self, at: Integers, bits: Integers) -> None:
        np.add.at(self._seen, (at, bits), 1)
        seen = self._seen[at]
        many = seen.sum(1) > _MOST
        self._seen[at[many]] = seen[many] >> 1


class Mixture:
    """Predicts arrays of bits and learns from each.

    The logit of a bit is the sum of that of its question, and of how far each context's is from that,
    with weights that are learned.

    Args:
        questions: how many a bit may answer; each has its own counts.
        contexts: how many there are of each kind.
        mixes: how many sets of weights there are; the last one serves all further questions.
    """

    def __init__(self, questions: int, contexts: Sequence[int], mixes: int) -> None:
        self._general = _Counts(questions)
        self._counts = [_Counts(count) for count in contexts]
        self._weights = np.full((mixes, len(contexts) + 1), _FIRST, dtype=np.int64)
        self._weights[:, -1] = ONE

    def predict(self, questions: Integers, contexts: Sequence[Integers]) -> Integers:
        """The probability that each bit is 1, of 2**16.

        Args:
            questions: which one each bit answers, `[n]`.
            contexts: of each kind, `[n]`.
        """
        self._questions, self._at = questions, contexts
        general = self._general.probability(questions, ONE // 2, 2)
        base = _logits()[general]
        own = [_logits()[counts.probability(at, general, _PRIOR)] - base for counts, at in self._pairs()]
        self._inputs = np.stack([*own, base], axis=1)
        self._mixes = np.minimum(questions, len(self._weights) - 1)
        logits = (self._weights[self._mixes] * self._inputs).sum(1) >> 16
        self._predicted = _probabilities()[np.clip(logits, -_TOP, _TOP) + _TOP]
        return self._predicted

    def learn(self, bits: Integers) -> None:
        """Take in what the predicted bits were."""
        errors = (bits << 16) - self._predicted
        gradient = np.zeros_like(self._weights)
        np.add.at(gradient, self._mixes, self._inputs * errors[:, None])
        step = (gradient * _RATE >> 24) // max(1, len(bits) >> _SOME)
        self._weights = np.clip(self._weights + step, -_HEAVIEST, _HEAVIEST)
        self._general.add(self._questions, bits)
        for counts, at in self._pairs():
            counts.add(at, bits)

    def _pairs(self) -> list[tuple[_Counts, Integers]]:
        return list(zip(self._counts, self._at, strict=True))
