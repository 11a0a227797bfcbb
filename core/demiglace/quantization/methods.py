"""Methods of rounding a weight, by their names in recipes; plugins register further ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias

from demiglace.errors import DemiglaceError, PluginError
from demiglace.quantization.qtensor import QTensor
from demiglace.quantization.scheme import Scheme

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rounding:
    """One weight to round, and what is known of it."""

    #: `[outputs, ...]`, finite; the model's own, not to be changed.
    weight: Tensor
    #: The integers to round to; its groups divide the weight's rows.
    scheme: Scheme
    #: The mean of `x x^T` over the layer's inputs, `[groups, k, k]`, float32, where the method asks for
    #: inputs: the outputs fall into as many groups, and `k` weights make a row. About their mean, where a
    #: bias takes up its error; for an embedding, that of the gradients at what it gives.
    moments: Tensor | None = None
    #: The mean of `g g^T` over the gradients at the layer's outputs, `[outputs, outputs]`, float32, where the
    #: method asks for it: what errors there do to the model's outputs. Unknown for layers with groups of
    #: inputs, very wide ones, and models that cannot be differentiated.
    outputs: Tensor | None = None
    #: Whether to search ranges narrower than the values' own.
    clip: bool = True
    #: What to add to the diagonal of the moments, as a share of its mean.
    damping: float = 0.05
    #: Raises when the run was asked to stop; for methods that take more than a second.
    check_interrupt: Callable[[], None] = lambda: None


Method: TypeAlias = Callable[[Rounding], QTensor]


@dataclass(frozen=True)
class RoundingMethod:
    """A method by its name."""

    name: str
    round: Method
    #: Whether it looks at the layer's inputs. Weights whose layers have none are rounded to the nearest.
    inputs: bool
    #: Whether it looks at what the model's outputs make of the layer's.
    outputs: bool = False


METHODS: dict[str, RoundingMethod] = {}

_HINT = "choose another `method`, and tell the author of this one"


def rounding_method(name: str, *, inputs: bool = False, outputs: bool = False) -> Callable[[Method], Method]:
    """Register a method of rounding.

    Args:
        name: as recipes say it.
        inputs: whether it looks at the second moments of the layer's inputs, which needs calibration data.
        outputs: whether it looks at those of the gradients at the layer's outputs as well.

    Raises:
        ValueError: when another has the name, or it looks at outputs and not at inputs.
    """
    if outputs and not inputs:
        raise ValueError(f"the rounding method {name!r} looks at outputs: register it with inputs=True too")

    def register(method: Method) -> Method:
        known = METHODS.get(name)
        if known is not None and _origin(known.round) != _origin(method):  # a module may be loaded again
            other = known.round.__module__
            raise ValueError(f"{other} has registered a rounding method {name!r} already")
        METHODS[name] = RoundingMethod(name, _checked(name, method), inputs, outputs)
        return method

    return register


def _checked(name: str, method: Method) -> Method:
    """The method, what it raises told as its own fault, and what it gives held to what was asked."""

    @wraps(method)
    def checked(task: Rounding) -> QTensor:
        before = _changes(task.weight)
        try:
            found = method(task)
        except DemiglaceError:
            raise
        except Exception as error:
            message = f"{_named(name, method)} failed: {type(error).__name__}: {error}"
            raise PluginError(message, hint=_HINT) from error
        if _changes(task.weight) != before:
            raise PluginError(
                f"{_named(name, method)} changed the weight that it was to round",
                hint="let it work on a copy",
            )
        if not isinstance(found, QTensor):
            given = type(found).__name__
            raise PluginError(f"{_named(name, method)} gave a {given}, not a QTensor", hint=_HINT)
        if found.shape != task.weight.shape or found.scheme != task.scheme:
            asked, given = (tuple(task.weight.shape), task.scheme), (tuple(found.shape), found.scheme)
            message = f"{_named(name, method)} gave {given}, and was asked for {asked}"
            raise PluginError(message, hint=_HINT)
        return found

    return checked


def _origin(method: Method) -> tuple[str, str]:
    return method.__module__, method.__qualname__


def _named(name: str, method: Method) -> str:
    return f"the rounding method {name!r} of {method.__module__}"


def _changes(tensor: Tensor) -> int | None:
    """How often a tensor's values were changed in place; unknown for one made in inference mode."""
    return None if tensor.is_inference() else tensor._version


def inputs_of(task: Rounding) -> Tensor:
    """The moments of a weight's inputs, for a method that was registered with `inputs`.

    Raises:
        ValueError: when it was not.
    """
    if task.moments is None:
        raise ValueError("the method was not registered with inputs=True")
    return task.moments
