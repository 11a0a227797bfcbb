"""`torchvision` as a source of models: any builder of `torchvision.models` by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.errors import SourceError
from demiglace.passes import Config, ModelSource
from demiglace.recipe import did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

_SIDE = 224

_AS_TRAINED: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": False, "init_weights": False},
}
"""Options that torchvision changes when it loads published weights, and that shapes do not show."""


class TorchvisionModelConfig(Config):
    """A model of torchvision by its builder's name, with random or published weights."""

    name: Annotated[str, Field(min_length=1)]
    """Builder, as `torchvision.models.list_models()` lists them: `resnet18`, `vit_b_16`, ..."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Published weights, downloaded on first use: `DEFAULT`, `IMAGENET1K_V1`, ...; none: random ones."""
    num_classes: Annotated[int, Field(ge=1)] | None = None
    """Classes of the output; without it, those of the weights or the builder's default."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the builder, such as `{ dropout = 0.1 }`."""

    def words(self) -> str:
        return f"{self.name}, {f'weights {self.weights}' if self.weights else 'random weights'}"


class TorchvisionModelSource(ModelSource[TorchvisionModelConfig]):
    """Calls the builder without weights, then loads the published ones if the recipe asks for them."""

    def build(self) -> nn.Module:
        import inspect

        from torchvision import models

        builder = models.get_model_builder(self._name())
        options = self._options()
        if "weights_backbone" in inspect.signature(builder).parameters:
            options["weights_backbone"] = None  # its default would be downloaded
        try:
            module: nn.Module = builder(weights=None, progress=False, **options)
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            raise SourceError(
                f"torchvision's {self._name()} refuses its options: {error}", hint="correct [model] options"
            ) from error
        return module

    def initialise(self, module: nn.Module) -> None:
        weights = self._weights()
        if weights is None:
            return
        incompatible = _loaded_into(module, _downloaded(weights), f"{self._name()} and {weights.name}")
        # Heads that only help in training are published, but left out of the structure.
        unknown = [key for key in incompatible.unexpected_keys if not key.lower().startswith("aux")]
        if incompatible.missing_keys or unknown:
            raise SourceError(
                f"the weights {weights.name} do not fit {self._name()}: "
                f"missing {incompatible.missing_keys[:3]}, unknown {unknown[:3]}",
                hint="leave out [model] options that change the structure",
            )

    def example_shape(self) -> tuple[int, ...] | None:
        from torchvision import models
        from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

        weights = self._weights() or models.get_model_weights(self._name()).DEFAULT
        preset = weights.transforms()
        if not isinstance(preset, ImageClassification | SemanticSegmentation):
            return None
        size = getattr(preset, "crop_size", preset.resize_size) or [_SIDE]
        return (3, size[0], size[-1])

    def _name(self) -> str:
        from torchvision import models

        known = models.list_models()
        if self.config.name not in known:
            raise SourceError(
                f"torchvision has no model {self.config.name!r}", hint=did_you_mean(self.config.name, known)
            )
        return self.config.name

    def _options(self) -> dict[str, Any]:
        """What the builder is called with besides `weights`."""
        reserved = [
            key for key in self.config.options if key.startswith(("weights", "pretrained", "progress"))
        ]
        if reserved:
            raise SourceError(
                f"[model] options has {reserved[0]!r}",
                hint='say weights = "DEFAULT" in [model] to download weights',
            )
        options = dict(self.config.options)
        weights = self._weights()
        if weights is not None:
            options = {**_trained_options(self._name(), weights), **options}
        if self.config.num_classes is not None:
            options["num_classes"] = self.config.num_classes
        return options

    def _weights(self) -> WeightsEnum | None:
        """The published weights that the recipe names."""
        from torchvision import models

        if self.config.weights is None:
            return None
        known: Any = models.get_model_weights(self._name())
        if self.config.weights not in known.__members__:
            raise SourceError(
                f"{self._name()} has no weights {self.config.weights!r}",
                hint=did_you_mean(self.config.weights, known.__members__),
            )
        weights: WeightsEnum = known[self.config.weights]
        published = len(weights.meta.get("categories", ())) or self.config.num_classes
        if self.config.num_classes not in (None, published):
            raise SourceError(
                f"the weights {weights.name} of {self._name()} have {published} classes, "
                f"not num_classes = {self.config.num_classes}",
                hint="leave out num_classes or weights",
            )
        return weights


def _trained_options(name: str, weights: WeightsEnum) -> dict[str, Any]:
    """The builder's options under which the published weights were trained."""
    options = dict(_AS_TRAINED.get(name, {}))
    if "categories" in weights.meta:
        options["num_classes"] = len(weights.meta["categories"])
    if name.startswith("vit_"):
        options["image_size"] = weights.meta["min_size"][0]
    return options


def _downloaded(weights: WeightsEnum) -> Mapping[str, Any]:
    """The state dict, from torch's cache or from the network."""
    from pathlib import Path

    from torch.hub import get_dir

    cached = Path(get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        state: Mapping[str, Any] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise SourceError(
            f"the weights {weights.name} cannot be had from {weights.url}: {error}",
            hint=f"without a network, put that file at {cached}",
        ) from error
    return state


def _loaded_into(module: nn.Module, state: Mapping[str, Any], what: str) -> Any:
    try:
        return module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SourceError(
            f"{what} do not fit: {error}", hint="leave out [model] options that change the structure"
        ) from error
