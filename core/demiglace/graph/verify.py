"""Proof that a cut model computes what the original does with the removed structures set to zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demiglace.data import leaves
from demiglace.errors import VerificationError
from demiglace.graph.balance import Balanced
from demiglace.graph.compared import (
    check_telling,
    converted,
    cut_tensor,
    difference,
    disturbed,
    mask,
    prepared,
    shaken,
)
from demiglace.graph.eval_mode import eval_mode, own_tensors
from demiglace.graph.export import batch_size, plain_attention, resized
from demiglace.graph.model_graph import Example
from demiglace.graph.neutral import neutral_norms
from demiglace.graph.threads import GroupsOnOneThread
from demiglace.graph.train_mode import trained

if TYPE_CHECKING:
    from demiglace.graph.edits import Cut

DOUBLE_UP_TO = 100_000_000
"""Parameters up to which a model is compared in float64."""
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
"""The largest difference allowed, as a share of the largest output.

Measured in float64 on 473 networks of one pattern each, of which one cut at a time was put out of line by
one index, by all, or by an exchange of two axes: right cuts differ by 2e-14 at most; of 1,859 wrong cuts
that were refused, 1,099 by their outputs, these differ by 1.5e-3 at least, in the median by 0.9. The other
32 do not change what the network computes, such as the bias of a key under a softmax. In float32, in which
networks of more parameters are compared, right cuts of the 17 in docs/reference/coverage.md differ by 7e-4 at
most (wide_resnet101_2), which is between; most of that is rounding of the run that balances the layers, and a
cut that differs more is compared with a run of its own before it is refused.
"""
_LOOSE = 5e-3
"""The largest difference where statistics of a small batch, or literals in single precision, add rounding."""
_SIZES = 2
"""Batch sizes that are compared, where the model allows it."""


@dataclass(frozen=True)
class Verification:
    """What was compared, and how well it agreed."""

    #: `exact`; or `wiring`: equal with norms over cut axes made neutral in both models.
    equality: str
    #: `module`, the model's own forward; or `graph`, its plain-data graph.
    form: str
    #: Why the model is in graph form; empty for a module.
    reason: str
    dtype: str
    #: The largest difference over all outputs, as a share of the largest output.
    error: float
    tolerance: float
    batch_sizes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As in `run.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """The original's outputs with the removed structures at zero, and what produced them."""

    #: Every parameter and buffer by name: zero where cut, disturbed and balanced so that no index hides.
    tensors: Mapping[str, Tensor]
    cuts: Mapping[tuple[str, int], Cut]
    examples: Sequence[Example]
    outputs: Sequence[list[Tensor]]
    neutral: bool
    dtype: torch.dtype
    #: Whether training must be seen to run too, because it reads parameters that inference does not.
    training: bool = False
    #: The outputs in train mode, where nothing in them is drawn at random.
    trained: Sequence[Tensor] | None = None
    #: Whether the outputs on the smaller batch are those of its items in the larger one.
    inferred: bool = False

    @classmethod
    def of(
        cls,
        module: nn.Module,
        example: Example,
        cuts: Mapping[tuple[str, int], Cut],
        *,
        neutral: bool,
        unread: bool = False,
        items: int = 0,
    ) -> Reference:
        """Run the original, before it is cut.

        The outputs on the larger batch are those of the run that balances the layers. Where a tensor is
        read before the layer that balances it, they are not those of `tensors`. The outputs on the smaller
        batch are taken from these, where its items are among them. `expecting` runs the original again.

        Args:
            module: as it is before the cut.
            example: inputs that fit it.
            cuts: by tensor and dimension.
            neutral: whether norms take no mean and variance.
            unread: whether inference leaves parameters unread, so that training is compared too.
            items: of the larger batch, where that is more than three.

        Raises:
            VerificationError: when its outputs are not finite, or tell nothing.
        """
        count = sum(parameter.numel() for parameter in module.parameters())
        dtypes = [torch.float64, torch.float32] if count <= DOUBLE_UP_TO else [torch.float32]
        for dtype in dtypes:
            tensors = disturbed(module, dtype)
            mask(tensors, cuts)
            try:
                seen = _observed(module, tensors, cuts, example, (dtype, neutral, items))
            except RuntimeError as error:
                # A module may hold constants of its own in single precision.
                if dtype is dtypes[-1]:
                    name = str(dtype).removeprefix("torch.")
                    raise VerificationError(
                        f"the model does not run in {name}, in which a cut is verified: {error}"
                    ) from error
                continue
            check_telling(seen.outputs)
            break
        reference = cls(tensors, cuts, seen.examples, seen.outputs, neutral, dtype, inferred=seen.inferred)
        return reference._with_training(module) if unread else reference

    def expecting(self, module: nn.Module) -> Reference:
        """The same with the outputs of another module on these tensors, as far as it holds them."""
        outputs = self._outputs(module, self._held_by(module, {}))
        check_telling(outputs)
        return replace(self, outputs=outputs, inferred=False)

    def seen_whole(self, module: nn.Module) -> Reference:
        """The same with the original's own outputs on the smaller batch, where they were inferred."""
        if not self.inferred:
            return self
        own = _run(module, self._held_by(module, {}), self.examples[0], self.neutral)
        return replace(self, outputs=[own, *self.outputs[1:]], inferred=False)

    def verification(self, form: str, reason: str, error: float) -> Verification:
        """The record of a comparison; the arguments are its fields."""
        return Verification(
            equality="wiring" if self.neutral else "exact",
            form=form,
            reason=reason,
            dtype=str(self.dtype).removeprefix("torch."),
            error=error,
            tolerance=TOLERANCE[self.dtype],
            batch_sizes=tuple(batch_size(example) for example in self.examples),
        )

    def compare(self, module: nn.Module) -> float:
        """The largest difference of the cut module's outputs, as a share of the largest output.

        Raises:
            VerificationError: when it is over the tolerance, or outputs have other shapes.
        """
        tensors = self._held_by(module, self.cuts)
        worst = difference(self.outputs, self._outputs(module, tensors))
        if not worst <= TOLERANCE[self.dtype]:
            raise VerificationError(
                f"the cut model differs from the original with the removed structures at zero by {worst:.1e} "
                f"of the largest output, over the tolerance of {TOLERANCE[self.dtype]:.0e}"
            )
        self._check_sensitive(module, tensors)
        if self.training:
            self._compare_training(module, tensors)
        return worst

    def _compare_training(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        found = trained(module, tensors, self.examples[-1], 0)
        if found is None:
            raise VerificationError("the cut model's forward fails in training")
        # Statistics of a small batch multiply rounding.
        gap = 0.0 if self.trained is None else difference([self.trained], [found])
        if not gap <= _LOOSE:
            raise VerificationError(f"the cut model differs by {gap:.1e} of the largest output in training")

    def _with_training(self, module: nn.Module) -> Reference:
        """The same with what training gives; where two draws of random numbers differ, only that it runs."""
        first, second = (trained(module, self.tensors, self.examples[-1], seed) for seed in (0, 1))
        if first is None or second is None:
            return self
        same = difference([first], [second]) == 0.0
        return replace(self, training=True, trained=first if same else None)

    def _check_sensitive(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Refuse outputs that do not depend on what was cut, such as those of a saturated softmax.

        Raises:
            VerificationError: when other values of what is left change less than the tolerance.
        """
        touched = {name for name, _ in self.cuts} & tensors.keys()
        if not touched:
            return
        found = _run(module, shaken(tensors, touched), self.examples[0], self.neutral)
        if not difference(self.outputs[:1], [found]) > TOLERANCE[self.dtype]:
            raise VerificationError(
                "the model's outputs hardly depend on what is cut, so that a cut cannot be verified",
                hint="let the model return what comes before a saturated softmax, a rounding or a sign",
            )

    def by(self, twin: nn.Module, module: nn.Module) -> Reference:
        """The same reference with the outputs of an uncut module that stands for the original, `module`.

        Raises:
            VerificationError: when it does not compute what the original does, to single precision.
        """
        found = self.expecting(twin)
        gap = difference(self.outputs, found.outputs)
        if twin is not module and not gap <= _LOOSE:
            gap = difference(self.expecting(module).outputs, found.outputs)
        if not gap <= _LOOSE:
            raise VerificationError(f"the model's graph differs from it by {gap:.1e} of the largest output")
        return found

    def _held_by(self, module: nn.Module, cuts: Mapping[tuple[str, int], Cut]) -> dict[str, Tensor]:
        """The values for a module's parameters and buffers, cut."""
        found = {}
        for name, held in [*module.named_parameters(), *module.named_buffers()]:
            # A graph also holds constants, which no module has by name.
            own = self.tensors[name] if name in self.tensors else converted(held.data, self.dtype)
            found[name] = cut_tensor(name, own, cuts)
            if found[name].shape != held.shape:
                raise VerificationError(f"{name!r} has shape {list(held.shape)} after the cut")
        return found

    def _outputs(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> list[list[Tensor]]:
        return [_run(module, tensors, example, self.neutral) for example in self.examples]


def first_line(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@dataclass
class _Seen:
    """Examples that a model runs on, the smaller first, and what it gives for them."""

    examples: list[Example] = field(default_factory=list)
    outputs: list[list[Tensor]] = field(default_factory=list)
    inferred: bool = False

    def add(self, example: Example, outputs: list[Tensor]) -> None:
        self.examples.insert(0, example)
        self.outputs.insert(0, outputs)

    def infer(self, example: Example) -> bool:
        """Add a part of the example seen, with its part of the outputs; whether each output has that part."""
        size, whole = batch_size(example), batch_size(self.examples[0])
        if any(one.dim() == 0 or len(one) != whole for one in self.outputs[0]):
            return False
        self.add(example, [one[:size] for one in self.outputs[0]])
        self.inferred = True
        return True


def _observed(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    cuts: Mapping[tuple[str, int], Cut],
    example: Example,
    how: tuple[torch.dtype, bool, int],
) -> _Seen:
    """What runs, and what it gives once every layer tells inputs apart.

    Changes tensors in place, on the first example alone: another batch size may take other operators, and
    change what is balanced already. The larger batch is the first: its layers are balanced on every item, and
    its outputs are those of that run. A model is known to run on a batch of the example's own size.
    """
    dtype, neutral, items = how
    balance, own = Balanced(tensors.values()), batch_size(example)
    seen = _Seen()
    for one in _examples(example, dtype, items):
        if seen.examples and batch_size(one) == own and seen.infer(one):
            break
        try:
            with nullcontext() if seen.examples else _balancing(balance):
                outputs = _run(module, tensors, one, neutral)
        except Exception:
            if batch_size(one) == own:
                raise
            continue
        if not seen.examples:
            mask(tensors, cuts)
        seen.add(one, outputs)
        if len(seen.examples) == _SIZES:
            break
    return seen


@contextmanager
def _balancing(balance: Balanced) -> Iterator[None]:
    with plain_attention(), balance:
        yield


def _examples(example: Example, dtype: torch.dtype, items: int) -> Iterator[Example]:
    """The example at two small batch sizes, the smaller a part of the larger; at last as it is."""
    given = batch_size(example)
    least = min(given, 2)
    most = max(least + 1, items)
    larger = prepared(resized(example, most), dtype, own=given)
    if given:
        yield larger
        yield resized(larger, least)
    if given == 0 or given not in {least, most}:
        yield prepared(example, dtype, own=given)


def _run(module: nn.Module, tensors: Mapping[str, Tensor], example: Example, neutral: bool) -> list[Tensor]:
    norms = neutral_norms() if neutral else nullcontext()
    with eval_mode(module), own_tensors(module), torch.no_grad(), GroupsOnOneThread(), norms:
        result = functional_call(module, dict(tensors), example.args, dict(example.kwargs))
    return [leaf for leaf in leaves(result) if isinstance(leaf, Tensor)]
