"""A `torchvision.transforms.v2` transform from plain data: its name and its options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from demiglace.errors import RecipeError
from demiglace.recipe import did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

_NOT_IMAGE_TO_IMAGE = frozenset(
    {
        *("Transform", "Compose", "Lambda", "LinearTransformation", "CutMix", "MixUp", "FiveCrop", "TenCrop"),
        *("ToPILImage", "PILToTensor", "ToTensor", "ToImage", "ToPureTensor", "UniformTemporalSubsample"),
        *("ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat", "RandomIoUCrop"),
        *("SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode"),
    }
)
"""Those that take code, labels or boxes, or do not give one tensor image for one."""

_DRAWS_INSIDE = frozenset({"AugMix", "AutoAugment", "GaussianNoise", "RandAugment", "TrivialAugmentWide"})
"""Random ones that v2's `make_params` does not show."""


def v2_transform(table: Mapping[str, Any]) -> nn.Module:
    """The transform of a table `{ name = ..., options }`; dtypes and enumerations are given by name.

    Raises:
        RecipeError: for an unknown name (with the nearest ones), an unknown, missing or refused option.
    """
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise RecipeError(f"{table!r} names no transform", hint='write { name = "Resize", size = 224 }')
    name = table["name"]
    options = {key: value for key, value in table.items() if key != "name"}
    kind = _kind(name)
    signature = inspect.signature(kind)
    for key in options:
        if key not in signature.parameters:
            hint = did_you_mean(key, signature.parameters)
            raise RecipeError(f"transform {name} has no option {key!r}", hint=hint)
    try:
        signature.bind(**options)
        values = {key: _value(key, value, signature.parameters[key]) for key, value in options.items()}
        transform: nn.Module = kind(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"transform {name}: {error}", hint="correct its options in [data] transform"
        ) from error
    return transform


def is_random(transform: nn.Module) -> bool:
    """Whether a v2 transform draws random numbers."""
    from torchvision.transforms import v2

    name = type(transform).__name__
    draws = getattr(type(transform), "make_params", None) is not v2.Transform.make_params
    return draws or name.startswith("Random") or name in _DRAWS_INSIDE


def _kind(name: str) -> type[nn.Module]:
    from torchvision.transforms import v2

    if name in _NOT_IMAGE_TO_IMAGE:
        raise RecipeError(
            f"transform {name!r} does not turn one image into one image by plain options",
            hint='images are tensors; { name = "ToDtype", dtype = "float32", scale = true } scales them',
        )
    known: dict[str, Any] = {
        own: kind
        for own, kind in vars(v2).items()
        if inspect.isclass(kind) and issubclass(kind, v2.Transform) and own not in _NOT_IMAGE_TO_IMAGE
    }
    if name not in known:
        raise RecipeError(f"no transform named {name!r}", hint=did_you_mean(name, known))
    kind: type[nn.Module] = known[name]
    return kind


def _value(key: str, value: Any, parameter: inspect.Parameter) -> Any:
    """An option's plain data as what v2 takes."""
    if key == "dtype":
        return _dtype(value)
    if key == "transforms":
        return [v2_transform(table) for table in value]
    if isinstance(parameter.default, Enum):
        return type(parameter.default)(value)
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{key} = {number} is not finite")
    return value


def _dtype(name: Any) -> torch.dtype:
    import torch

    known = {own: kind for own, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
    if name not in known:
        raise RecipeError(f"no dtype named {name!r}", hint=did_you_mean(str(name), known))
    return known[name]
