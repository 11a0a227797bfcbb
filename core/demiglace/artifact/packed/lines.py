"""Small signed integers of a matrix, asked for line after line, each in the context of the lines before.

Weights that are near each other in a row or a column are alike: where one is zero or large, so are its
neighbours. What the decoder knows of the lines that it has says how likely each answer is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from demiglace.artifact.packed.mixture import Integers, Mixture

if TYPE_CHECKING:
    from numpy.typing import NDArray

Answer: TypeAlias = Callable[[Integers, Integers | None], Integers]
"""From probabilities and the bits, if they are known, to the bits."""

_ZERO, _SIGN, _CLASS, _DIGIT = 0, 1, 2, 9
_QUESTIONS = _DIGIT + 8 * 128
_MIXES = 12
_OF_PLACES = 3  # questions that are counted for each place of a line
_MEANS = (
    *(64, 104, 169, 275, 446, 724, 1176, 1911, 3104, 5043, 8192, 13308, 21619, 35120, 57052),
    *(92682, 150562, 244589, 397336),
)
_SUMS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96)
_LEVELS = len(_MEANS) + 1
_NEAR, _SIGNED = 72, 9 * (len(_SUMS) + 1)


class Lines:
    """The integers of `lines` lines of `width` places, in the order in which they are coded.

    An integer is asked for by questions: is it zero; is it negative; the class of its magnitude `m`, which
    is the logarithm of `m` to base 2, rounded down, in unary; and the digits of `m` below the first.

    Args:
        lines: how many.
        width: places of each.
        lag: a distance at which lines are alike besides that of 1, at least 1.
        classes: the largest class there is.
    """

    def __init__(self, lines: int, width: int, lag: int, classes: int) -> None:
        self._lag, self._classes = lag, classes
        # One line and a place at both ends more, all zero, for what is before the first and beyond the ends.
        self._sizes = np.zeros((lines + 1, width + 2), dtype=np.int64)
        self._signs = np.zeros((lines + 1, width), dtype=np.int64)
        self._total = np.zeros(width, dtype=np.int64)
        self._places = np.arange(width)
        sizes = [_QUESTIONS * each for each in (_NEAR, _LEVELS**2, _SIGNED, _LEVELS)]
        self._mixture = Mixture(_QUESTIONS, [*sizes, _OF_PLACES * width + _QUESTIONS], _MIXES)

    def line(self, number: int, answer: Answer, known: Integers | None = None) -> Integers:
        """The integers of the next line.

        Args:
            number: of the line, from 0.
            answer: gives the bits of probabilities.
            known: the integers, if `answer` is to be told them.
        """
        self._now = self._contexts(number)
        magnitudes = np.zeros(len(self._places), dtype=np.int64)
        found = self._ask(self._places, _ZERO, answer, None if known is None else known != 0)
        places = self._places[found == 1]
        own = None if known is None else known[places]
        negative = self._ask(places, _SIGN, answer, None if own is None else own < 0)
        sizes = None if own is None else np.abs(own)
        classes = self._ask_classes(places, answer, sizes)
        magnitudes[places] = self._ask_digits(places, classes, answer, sizes)
        self._sizes[number, places + 1] = classes + 1
        self._signs[number, places] = 1 + negative
        self._total += self._sizes[number, 1:-1]
        magnitudes[places] *= 1 - 2 * negative
        return magnitudes

    def _ask_classes(self, places: Integers, answer: Answer, sizes: Integers | None) -> Integers:
        """The class of each magnitude: one question after the other whether it is larger."""
        classes = np.zeros(len(places), dtype=np.int64)
        open_ = np.arange(len(places))
        for one in range(self._classes):
            bits = None if sizes is None else sizes[open_] >> one + 1 > 0
            open_ = open_[self._ask(places[open_], _CLASS + one, answer, bits) == 1]
            classes[open_] += 1
        return classes

    def _ask_digits(
        self, places: Integers, classes: Integers, answer: Answer, sizes: Integers | None
    ) -> Integers:
        """The magnitudes: their binary digits below the first, from high to low."""
        magnitudes = np.ones(len(places), dtype=np.int64)
        for one in range(self._classes):
            open_ = np.flatnonzero(classes > one)
            bits = None if sizes is None else sizes[open_] >> classes[open_] - one - 1 & 1
            questions = _DIGIT + 128 * classes[open_] + magnitudes[open_]
            magnitudes[open_] = 2 * magnitudes[open_] + self._ask(places[open_], questions, answer, bits)
        return magnitudes

    def _ask(
        self, places: Integers, question: Integers | int, answer: Answer, bits: NDArray[Any] | None
    ) -> Integers:
        """The answers at some places."""
        if not len(places):
            return places
        questions = np.broadcast_to(question, len(places))
        at = [questions * size + now[places] for size, now in self._now]
        own = questions * len(self._places) + places
        at.append(np.where(questions < _OF_PLACES, own, _OF_PLACES * len(self._places) + questions))
        predicted = self._mixture.predict(questions, at)
        given = answer(predicted, None if bits is None else bits.astype(np.int64))
        self._mixture.learn(given)
        return given

    def _contexts(self, number: int) -> list[tuple[int, Integers]]:
        """How many contexts of each kind there are, and which one each place has."""
        lag, inner = self._lag, slice(1, -1)
        last, second = self._before(number, 1), self._before(number, 2)[inner]
        at, twice = self._before(number, lag)[inner], self._before(number, 2 * lag)[inner]
        sides = self._before(number, lag + 1)[inner], self._before(number, lag - 1)[inner]
        first = last[inner]
        near = 3 * np.minimum(first, 2) + np.minimum(at, 2)
        for each in (second, *sides):
            near = 2 * near + np.minimum(each, 1)
        around = 4 * (first + at) + 2 * (sides[0] + sides[1] + second)
        mean = _level(_MEANS, (int(around.sum()) << 16) // (14 * len(around)))
        means = _level(_MEANS, ((2 * self._total + 1) << 15) // (number + 2))
        signs = 3 * self._signs[number - 1] + self._signs[max(number - lag, -1)]
        sums = _level(_SUMS, around + 2 * twice + last[:-2] + last[2:])
        return [
            (_NEAR, near),
            (_LEVELS**2, means * _LEVELS + mean),
            (_SIGNED, 9 * sums + signs),
            (_LEVELS, np.full_like(means, mean)),
        ]

    def _before(self, number: int, distance: int) -> Integers:
        """The sizes of the line so many before, zeros before the first."""
        return self._sizes[max(number - distance, -1)]


def _level(thresholds: tuple[int, ...], values: Integers | int) -> Integers:
    """How many thresholds are at most each value."""
    return np.searchsorted(thresholds, values, side="right")
