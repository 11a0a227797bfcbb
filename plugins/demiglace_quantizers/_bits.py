"""Bits for each layer, so that all together stay within a mean and the outputs change least.

What a layer does to the outputs is seen, not derived: all are rounded by the method at hand to a middle
number of bits, and the model runs with each of them alone. At other bits it is taken to follow the squared
error of rounding to the nearest. Of all ways to spend the bits, the one of least damage is then taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from demiglace.calibration import CalibrationBatches, calibration_batches, undisturbed
from demiglace.data import leaves
from demiglace.errors import GraphError
from demiglace.graph import apply
from demiglace.quantization import MAX_BITS, MIN_BITS, Layer, Scheme, round_weight
from demiglace_quantizers._control import together
from demiglace_quantizers._nearest import Rounded, alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demiglace.graph import Edit, ModelGraph
    from demiglace.passes import Context

_MIDDLE = 4  # bits at which every layer is seen at work
_EXAMPLES = 64  # on which
_ROWS = 512  # of a weight that are rounded to learn its error
_UNITS = 1 << 15  # into which the bits to spend are divided


class Options(Protocol):
    """What it takes from a pass's options."""

    @property
    def budget(self) -> float | None: ...
    @property
    def symmetric(self) -> bool: ...
    @property
    def group_size(self) -> int | None: ...
    @property
    def clip(self) -> bool: ...
    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


@dataclass(frozen=True)
class _Choice:
    """Some weights at some bits."""

    bits: int
    #: Of all of them, scales and zero points included.
    stored: float
    damage: float


def schemes_within(
    model: ModelGraph,
    layers: list[Layer],
    options: Options,
    context: Context,
    rounded: Callable[[Mapping[int, Scheme]], Rounded],
) -> dict[int, Scheme]:
    """The integers of each weight, by its identity; layers that share a weight have the same bits.

    Args:
        model: the model.
        layers: whose weights are rounded.
        options: of the pass.
        context: of the step.
        rounded: rounds all weights to given integers.

    Raises:
        GraphError: when the fewest bits are more than the budget.
    """

    def scheme(bits: int) -> Scheme:
        return Scheme(bits, options.symmetric, options.group_size)

    middle = rounded(alike(layers, scheme(_MIDDLE)))
    groups = together(layers)
    batches = calibration_batches(context, min(options.samples, _EXAMPLES), options.batch_size)
    damages = _damages(model, [list(map(middle.swap, group)) for group in groups], batches, context)
    weights = [list(_weights(group)) for group in groups]
    choices = [
        _choices(own, scheme, damage, clip=options.clip) for own, damage in zip(weights, damages, strict=True)
    ]
    count = sum(weight.numel() for own in weights for weight in own)
    bits = _allotted(choices, count, options.budget or MAX_BITS)
    return {id(weight): scheme(taken) for own, taken in zip(weights, bits, strict=True) for weight in own}


def _weights(layers: Sequence[Layer]) -> Iterable[Tensor]:
    """The weights of some layers, each once."""
    return {id(one): one for layer in layers for one in layer.weights.values()}.values()


def _damages(
    model: ModelGraph, edits: Sequence[Sequence[Edit]], batches: CalibrationBatches, context: Context
) -> Iterator[float]:
    """What each of some edits alone does to the model's outputs: the mean square of their change."""
    before = _outputs(model, batches, context)
    for some in context.track(edits, "looking at layers one by one"):
        transaction = apply(model, some)
        try:
            after = _outputs(model, batches, context)
        finally:
            transaction.rollback()
        yield float((after - before).square().mean())


def _outputs(model: ModelGraph, batches: CalibrationBatches, context: Context) -> Tensor:
    """All floating-point outputs in a row."""
    with undisturbed(model.module, context.device):
        found = [leaf for batch in batches for leaf in leaves(batch.run(model.module))]
    floats = [one for one in found if isinstance(one, Tensor) and one.is_floating_point()]
    if not floats:
        raise GraphError(
            "the model has no floating-point output to see what rounding does", hint="use `bits`"
        )
    return torch.cat([one.float().flatten() for one in floats])


def _choices(
    weights: list[Tensor], scheme: Callable[[int], Scheme], damage: float, *, clip: bool
) -> list[_Choice]:
    """What weights would take and damage at each number of bits that is worth it, the cheapest first.

    Args:
        weights: with the same bits.
        scheme: by bits.
        damage: at the middle number of bits.
        clip: as `Rounding` has it.
    """
    trials = {
        bits: [_trial(weight, scheme(bits), clip) for weight in weights]
        for bits in range(MIN_BITS, MAX_BITS + 1)
    }
    usual = sum(error for _, error in trials[_MIDDLE]) or 1.0
    found = [
        _Choice(bits, sum(stored for stored, _ in tried), damage * sum(error for _, error in tried) / usual)
        for bits, tried in trials.items()
    ]
    return _worth_their_bits(found)


def _trial(weight: Tensor, scheme: Scheme, clip: bool) -> tuple[float, float]:
    """The stored bits of a weight and its squared error, learned from some of its rows."""
    rows = weight.detach()[:: max(1, len(weight) // _ROWS)]
    rounded = round_weight(rows, scheme, clip=clip)
    error = float((rounded.dequantize() - rows).double().square().mean())
    return rounded.stored_bits() * weight.numel() / rows.numel(), error * weight.numel()


def _worth_their_bits(choices: list[_Choice]) -> list[_Choice]:
    """Those that no cheaper one equals, the cheapest first: packing can make more bits take less."""
    kept: list[_Choice] = []
    for one in sorted(choices, key=lambda choice: (choice.stored, choice.damage)):
        if not kept or one.damage < kept[-1].damage:
            kept.append(one)
    return kept


def _allotted(choices: list[list[_Choice]], count: int, budget: float) -> list[int]:
    """The bits of least damage whose storage is at most `budget` for each of `count` elements.

    A multiple-choice knapsack, solved by dynamic programming (Kellerer, Pferschy & Pisinger, Knapsack
    Problems, 2004, chapter 11) over what is stored beyond the fewest bits, in units of a small share of what
    may be. A walk that takes the step of the largest gain for a bit is far off where one weight is half of
    all: its next step may just not fit, and what is left buys little elsewhere.
    """
    left = budget * count - sum(options[0].stored for options in choices)
    if left < 0:
        least = budget - left / count
        raise GraphError(
            f"{MIN_BITS} bits for each weight take {least:.3g} with scales, over the budget of {budget:g}",
            hint="give a larger budget or larger groups",
        )
    # What is stored is rounded up to units: a few more than there are may fit.
    rooms = _UNITS + len(choices)
    costs = [[_units(one.stored - options[0].stored, left, rooms) for one in options] for options in choices]
    picks = _picks(choices, costs, rooms)
    for room in range(rooms, -1, -1):
        way = _way(picks, costs, room)
        taken = [options[at] for options, at in zip(choices, way, strict=True)]
        if sum(one.stored for one in taken) <= budget * count:
            break
    return [one.bits for one in taken]


def _picks(choices: list[list[_Choice]], costs: list[list[int]], rooms: int) -> list[NDArray[np.uint8]]:
    """For each group, which choice is the best by how many units it and the groups before it may take."""
    damage, picks = np.zeros(rooms + 1), []
    for options, own in zip(choices, costs, strict=True):
        pick = np.zeros(rooms + 1, dtype=np.uint8)
        found = damage + options[0].damage
        for at, (one, cost) in enumerate(zip(options, own, strict=True)):
            trial = damage[: max(0, rooms + 1 - cost)] + one.damage
            better = trial < found[cost:]
            found[cost:][better], pick[cost:][better] = trial[better], at
        damage = found
        picks.append(pick)
    return picks


def _way(picks: list[NDArray[np.uint8]], costs: list[list[int]], room: int) -> list[int]:
    """What each group takes where all together take at most `room` units."""
    way = []
    for own, pick in zip(costs[::-1], picks[::-1], strict=True):
        way.append(int(pick[room]))
        room -= own[way[-1]]
    return way[::-1]


def _units(stored: float, left: float, rooms: int) -> int:
    """What is stored, in units of what is left, rounded up; more than `rooms` where it does not fit."""
    if stored > left:
        return rooms + 1
    return math.ceil(stored / left * _UNITS) if stored else 0
