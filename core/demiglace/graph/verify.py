"""Proof that a cut model computes what the original does with the removed structures set to zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from demiglace.errors import VerificationError
from demiglace.graph.balance import Balanced
from demiglace.graph.eval_mode import eval_mode, own_tensors
from demiglace.graph.export import batch_size, plain_attention, resized
from demiglace.graph.model_graph import Example
from demiglace.graph.neutral import neutral_norms

if TYPE_CHECKING:
    from demiglace.graph.edits import Cut

DOUBLE_UP_TO = 100_000_000
"""Parameters up to which a model is compared in float64."""
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-3}
"""The largest difference allowed, as a share of the largest output.

Attention multiplies rounding with depth: right cuts of deep transformers differ by up to a few thousand
times the precision. Wrong cuts were not measured over many models, so the float32 bound, which rests on one
(vit_l_32: a right cut differs by 4e-4), is the weaker of the two.
"""
_SEED = 20_201
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

    @classmethod
    def of(
        cls,
        module: nn.Module,
        example: Example,
        cuts: Mapping[tuple[str, int], Cut],
        *,
        neutral: bool,
        unread: bool = False,
    ) -> Reference:
        """Run the original, before it is cut.

        Raises:
            VerificationError: when its outputs are not finite, or tell nothing.
        """
        count = sum(parameter.numel() for parameter in module.parameters())
        dtypes = [torch.float64, torch.float32] if count <= DOUBLE_UP_TO else [torch.float32]
        for dtype in dtypes:
            tensors = _disturbed(module, dtype)
            _mask(tensors, cuts)
            try:
                examples, outputs = _observed(module, tensors, cuts, example, dtype, neutral)
            except RuntimeError as error:
                # A module may hold constants of its own in single precision.
                if dtype is dtypes[-1]:
                    raise VerificationError(
                        f"the model does not run in {_name(dtype)}, in which a cut is verified: {error}"
                    ) from error
                continue
            _check_telling(outputs)
            break
        training = unread and _trains(module, tensors, examples[-1])
        return cls(tensors, cuts, examples, outputs, neutral, dtype, training)

    def expecting(self, module: nn.Module) -> Reference:
        """The same with the outputs of another module on these tensors, as far as it holds them."""
        outputs = self._outputs(module, self._held_by(module, {}))
        _check_telling(outputs)
        return replace(self, outputs=outputs)

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
        worst = _difference(self.outputs, self._outputs(module, tensors))
        if not worst <= TOLERANCE[self.dtype]:
            raise VerificationError(
                f"the cut model differs from the original with the removed structures at zero by {worst:.1e} "
                f"of the largest output, over the tolerance of {TOLERANCE[self.dtype]:.0e}"
            )
        if self.training and not _trains(module, tensors, self.examples[-1]):
            raise VerificationError("the cut model's forward fails in training")
        return worst

    def by(self, twin: nn.Module) -> Reference:
        """The same reference with the outputs of an uncut module that stands for the original.

        Raises:
            VerificationError: when it does not compute what the original does, to single precision.
        """
        found = self.expecting(twin)
        gap = _difference(self.outputs, found.outputs)
        if not gap <= TOLERANCE[torch.float32]:
            raise VerificationError(f"the model's graph differs from it by {gap:.1e} of the largest output")
        return found

    def _held_by(self, module: nn.Module, cuts: Mapping[tuple[str, int], Cut]) -> dict[str, Tensor]:
        """The values for a module's parameters and buffers, cut."""
        found = {}
        for name, held in [*module.named_parameters(), *module.named_buffers()]:
            # A graph also holds constants, which no module has by name.
            own = self.tensors[name] if name in self.tensors else _converted(held.data, self.dtype)
            found[name] = _cut(name, own, cuts)
            if found[name].shape != held.shape:
                raise VerificationError(f"{name!r} has shape {list(held.shape)} after the cut")
        return found

    def _outputs(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> list[list[Tensor]]:
        return [_run(module, tensors, example, self.neutral) for example in self.examples]


def first_line(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _observed(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    cuts: Mapping[tuple[str, int], Cut],
    example: Example,
    dtype: torch.dtype,
    neutral: bool,
) -> tuple[list[Example], list[list[Tensor]]]:
    """The examples that run, the smaller first, and what they give once every layer tells inputs apart.

    Changes tensors in place, on the first example alone: another batch size may take other operators, and
    change what is balanced already. The larger batch is the first: its layers are balanced on every item.
    """
    balance, balanced = Balanced(tensors.values()), False
    examples, outputs = [], []
    for one in _examples(example, dtype):
        try:
            if not balanced:
                with plain_attention(), balance:
                    _run(module, tensors, one, neutral)
                _mask(tensors, cuts)
                balanced = True
            outputs.append(_run(module, tensors, one, neutral))
        except Exception:
            if batch_size(one) == batch_size(example):
                raise
            continue
        examples.append(one)
        if len(examples) == _SIZES:
            break
    return examples[::-1], outputs[::-1]


def _examples(example: Example, dtype: torch.dtype) -> Iterator[Example]:
    """The example at two small batch sizes, the smaller a part of the larger; at last as it is."""
    given = batch_size(example)
    least = min(given, 2)
    larger = _prepared(resized(example, least + 1), dtype)
    if given:
        yield larger
        yield resized(larger, least)
    if given == 0 or given > least + 1:
        yield _prepared(example, dtype)


def _run(module: nn.Module, tensors: Mapping[str, Tensor], example: Example, neutral: bool) -> list[Tensor]:
    norms = neutral_norms() if neutral else nullcontext()
    with eval_mode(module), own_tensors(module), torch.no_grad(), norms:
        result = functional_call(module, dict(tensors), example.args, dict(example.kwargs))
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _trains(module: nn.Module, tensors: Mapping[str, Tensor], example: Example) -> bool:
    """Whether the forward runs in train mode; what it writes to buffers is lost."""
    values = {name: tensor.clone() for name, tensor in tensors.items()}
    modes = {each: each.training for each in module.modules()}
    module.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), own_tensors(module):
            functional_call(module, values, example.args, dict(example.kwargs))
    except Exception:
        return False
    finally:
        for each, mode in modes.items():
            each.training = mode
    return True


def _prepared(example: Example, dtype: torch.dtype) -> Example:
    generator = torch.Generator().manual_seed(_SEED)

    def convert(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return _converted(value, dtype) if isinstance(value, Tensor) else value
        noise = torch.rand(value.shape, generator=generator, dtype=dtype).to(value.device)
        # Of one sign with the example and within its range; items that repeat it come to differ.
        return value.to(dtype) * (0.5 + noise / 2) + noise / 10

    return Example(tree_map(convert, example.args), tree_map(convert, dict(example.kwargs)))


def _disturbed(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(_SEED)
    parameters = {name: tensor.data for name, tensor in module.named_parameters()}
    tensors = {**parameters, **dict(module.named_buffers())}
    return {
        name: _disturb(tensor, dtype, generator, positive=name not in parameters)
        if tensor.is_floating_point()
        else _converted(tensor, dtype)
        for name, tensor in tensors.items()
    }


def _disturb(tensor: Tensor, dtype: torch.dtype, generator: torch.Generator, *, positive: bool) -> Tensor:
    """Values that no index shares with another: fresh norms are all ones, fresh biases all zeros."""
    if tensor.dim() > 1 and not bool((tensor == tensor.reshape(-1)[0]).all()):
        return tensor.to(dtype, copy=True)
    noise = torch.rand(tensor.shape, generator=generator, dtype=dtype).to(tensor.device)
    scaled = tensor.to(dtype) * (1 + noise / 5)
    # A variance stays positive: only what is not all above zero is shifted too, and layer scales near zero.
    small = tensor.numel() > 0 and float(tensor.abs().max()) < 0.1
    return scaled + (noise - 0.3) / 5 if small or not positive else scaled


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in this precision; whole numbers stay as they are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex(), copy=True)
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _removed(size: int, kept: Sequence[int]) -> Tensor:
    gone = torch.ones(size, dtype=torch.bool)
    gone[list(kept)] = False
    return gone.nonzero()[:, 0]


def _mask(tensors: Mapping[str, Tensor], cuts: Mapping[tuple[str, int], Cut]) -> None:
    for (name, dim), cut in cuts.items():
        tensor = tensors[name]
        if _is_real_or_complex(tensor):
            gone = _removed(tensor.shape[dim], cut.kept).to(tensor.device)
            tensor.index_fill_(dim, gone, 0.0)


def _cut(name: str, tensor: Tensor, cuts: Mapping[tuple[str, int], Cut]) -> Tensor:
    for dim in range(tensor.dim()):
        if (name, dim) in cuts:
            kept = torch.tensor(cuts[name, dim].kept, device=tensor.device)
            tensor = tensor.index_select(dim, kept)
    return tensor


def _is_real_or_complex(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _difference(expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]) -> float:
    """The largest difference, as a share of the largest value of its output, over several runs."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if [leaf.shape for leaf in one] != [leaf.shape for leaf in other]:
            raise VerificationError(
                f"the cut model's outputs have shapes {[list(leaf.shape) for leaf in other]}, "
                f"not {[list(leaf.shape) for leaf in one]}"
            )
        worst = max(worst, *map(_gap, one, other), 0.0)
    return worst


def _gap(expected: Tensor, found: Tensor) -> float:
    if expected.numel() == 0:
        return 0.0
    # Complex double precision holds every other number.
    one, other = expected.to(torch.complex128), found.to(torch.complex128)
    gap = float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)
    return gap if gap == gap else float("inf")


def _check_telling(outputs: Sequence[Sequence[Tensor]]) -> None:
    floats = [one for some in outputs for one in some if _is_real_or_complex(one)]
    if not floats:
        raise VerificationError(
            "the model gives no tensor of real or complex numbers, so that a cut cannot be verified",
            hint="let the model return what it computes its classes or indices from",
        )
    if not all(bool(one.isfinite().all()) for one in floats):
        raise VerificationError(
            "the model's outputs are not finite, so that a cut cannot be verified",
            hint="look for NaN or infinity in the weights or the example input",
        )
    if all(one.numel() == 0 or bool((one == 0).all()) for one in floats):
        raise VerificationError("the model's outputs are all zero, so that a cut cannot be verified")
