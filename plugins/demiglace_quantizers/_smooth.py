"""The work of `quantize.smooth` (Xiao et al. 2023, "SmoothQuant")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demiglace.calibration import Ranges, calibrate, calibration_batches, undisturbed
from demiglace.errors import GraphError
from demiglace.graph import Edit, ModelGraph, Write, apply, holder
from demiglace.quantization import Migration, migrations

if TYPE_CHECKING:
    from demiglace.passes import Context
    from demiglace_quantizers.smooth import SmoothConfig

_TOLERANCE = 1e-4  # of the largest output
_EXPONENT = 24  # of a factor, at most


def smoothed(model: ModelGraph, config: SmoothConfig, context: Context) -> list[Edit]:
    """The new values of every parameter that a factor goes into; layers that need none are reported.

    Raises:
        GraphError: when there is none, the model cannot be traced, or it would compute something else.
    """
    usable = _usable(model, config, context)
    ranges = {holder(weight): Ranges() for one in usable for weight in one.readers}
    batches = calibration_batches(context, config.samples, config.batch_size)
    calibrate(model, batches, ranges, context)
    usable = _called(usable, ranges, context)
    values: dict[str, Tensor] = {}
    moved: list[str] = []

    def value(name: str) -> Tensor:
        return values.get(name, model.module.get_parameter(name).detach())

    for one in usable:
        inputs = {weight: ranges[holder(weight)].absmax for weight in one.readers}
        columns = {weight: value(weight).abs().amax(0) for weight in one.readers}
        factors, reason = _factors(one, inputs, columns, config.alpha)
        if reason:
            _leave_alone(one, reason, context)
            continue
        moved += map(holder, one.readers)
        for name in one.producers:
            values[name] = value(name) / factors.view(-1, *[1] * (value(name).dim() - 1))
        for weight, channel in one.readers.items():
            values[weight] = value(weight) * factors[channel]
    edits: list[Edit] = [Write(name, changed) for name, changed in values.items()]
    _refuse_difference(model, edits, context)
    context.figures["smoothed"] = moved
    return edits


def _factors(
    found: Migration, inputs: Mapping[str, Tensor], columns: Mapping[str, Tensor], alpha: float
) -> tuple[Tensor, str]:
    """Equation 4 for each channel, `max|x|^alpha / max|w|^(1 - alpha)`, to the nearest power of two.

    Where all of them are 1, also why, in words for the layers that read the channels.

    A power of two changes no digit of a product, so that the model computes what it did to the last bit. A
    channel that is always 0, that nothing weighs, or that something else reads keeps its scale.
    """
    reach, weight = (_by_channel(found, one) for one in (inputs, columns))
    exponent = alpha * reach.log2() - (1 - alpha) * weight.log2()
    still = found.taken.to(reach.device) | (reach == 0) | (weight == 0)
    exponent = exponent.round().clamp(-_EXPONENT, _EXPONENT).masked_fill(still, 0)
    reason = f"the ranges of its inputs' channels are those of alpha = {alpha:g} already, to a power of two"
    if still.all():
        reason = (
            "each channel of its inputs is always 0, has no weight but 0, or is read by something else too"
        )
    return exponent.exp2(), "" if exponent.any() else reason


def _leave_alone(one: Migration, reason: str, context: Context) -> None:
    for weight in one.readers:
        context.leave_alone(holder(weight), reason)


def _by_channel(found: Migration, values: Mapping[str, Tensor]) -> Tensor:
    """The largest value of each channel among all columns that read it, in float32."""
    largest = next(iter(values.values())).new_zeros(len(found.taken), dtype=torch.float32)
    for weight, channel in found.readers.items():
        one = values[weight].float()
        largest.scatter_reduce_(0, channel.to(one.device), one, "amax")
    return largest


def _usable(model: ModelGraph, config: SmoothConfig, context: Context) -> Sequence[Migration]:
    """The producers whose readers are all selected; every other selected layer is reported.

    Raises:
        GraphError: when there is none.
    """
    modules = dict(model.module.named_modules())
    chosen = [
        weight.name
        for weight in model.weights(config.targets, config.ignore)
        if isinstance(modules.get(weight.module, model.module), nn.Linear)
    ]
    found = migrations(model)
    reasons = dict.fromkeys(chosen, "nothing that a factor can go into makes its inputs")
    usable = []
    for one in found:
        other = next((weight for weight in one.readers if weight not in chosen), "")
        reason = f"{other!r}, which is not selected, reads its inputs too" if other else ""
        if one.taken.all():
            reason = f"{one.reason} reads its inputs too"
        if not reason:
            usable.append(one)
        reasons |= dict.fromkeys((weight for weight in one.readers if weight in reasons), reason)
    for weight, reason in reasons.items():
        if reason:
            context.leave_alone(holder(weight), reason)
    return _some(usable, context)


def _called(
    usable: Sequence[Migration], ranges: Mapping[str, Ranges], context: Context
) -> Sequence[Migration]:
    """Those of whose readers all inputs were seen; the layers of the others are reported.

    Attention reads the weight of its `out_proj`, and no data may come to a layer.

    Raises:
        GraphError: when there is none.
    """
    unseen = {name for name, one in ranges.items() if not one.calls}
    for name in unseen:
        context.leave_alone(name, "calibration does not call it, so that its inputs are not known")
    return _some([one for one in usable if not unseen & set(map(holder, one.readers))], context)


def _some(usable: Sequence[Migration], context: Context) -> Sequence[Migration]:
    """The same.

    Raises:
        GraphError: when there is none.
    """
    if not usable:
        few = "; ".join(f"{name}: {reason}" for name, reason in list(context.left_alone.items())[:3])
        raise GraphError(
            "there is no linear layer whose inputs can be smoothed" + (f" ({few})" if few else ""),
            hint="smoothing needs a norm or a linear layer that linear layers alone read; leave the pass out",
        )
    return usable


def _refuse_difference(model: ModelGraph, edits: Sequence[Edit], context: Context) -> None:
    """See on the example that the model computes what it did.

    Raises:
        GraphError: when it does not.
    """
    from demiglace.data import leaves

    example = model.example
    assert example is not None  # it was traced  # noqa: S101

    def outputs() -> list[Tensor]:
        with undisturbed(model.module, context.device):
            found = leaves(model.module(*example.args, **example.kwargs))
        return [one.double() for one in found if isinstance(one, Tensor)]

    before = outputs()
    transaction = apply(model, edits)
    try:
        after = outputs()
    finally:
        transaction.rollback()
    for old, new in zip(before, after, strict=True):
        difference, size = float((old - new).abs().amax()), float(old.abs().amax())
        if not difference <= _TOLERANCE * size:
            raise GraphError(
                f"smoothing would change the outputs by {difference:.2g} of {size:.2g}",
                hint="leave layers out by `ignore` until it does not, and report the model",
            )
