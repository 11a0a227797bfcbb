"""`fake`: random data of any shape."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from demiglace.data import TensorSplit
from demiglace.passes import Config, Contract, DataSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Count = Annotated[int, Field(ge=0)]


class FakeConfig(Config):
    """Random inputs and labels, for trying a recipe without data."""

    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """Shape of one input without the batch, such as `[3, 224, 224]`."""
    classes: Annotated[int, Field(ge=1)] = 10
    """Labels are drawn from 0 to `classes` - 1."""
    train: Annotated[int, Field(ge=1)] = 256
    """Training examples."""
    validation: Count = 64
    """Validation examples; 0: no such split."""
    test: Count = 64
    """Test examples; 0: no such split."""
    dtype: Literal["float32", "float64", "uint8", "int64"] = "float32"
    """Type of the inputs; uint8 ones are images and reach the model as float32 in [0, 1]."""
    distribution: Literal["uniform", "normal"] = "uniform"
    """Floats are uniform in [0, 1) or normal around 0; integers are always uniform."""
    std: Annotated[float, Field(gt=0.0)] = 1.0
    """The standard deviation of normal inputs."""
    high: Annotated[int, Field(ge=1)] = 256
    """Integer inputs are below this: the size of a vocabulary, say. For uint8 at most 256."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same data, whatever the seed of the recipe."""

    def words(self) -> str:
        return f"random {self.dtype} of shape {self.shape}, {self.train} training examples"

    @model_validator(mode="after")
    def _fits_its_type(self) -> FakeConfig:
        if self.dtype == "uint8" and self.high > 256:
            raise ValueError(f"high = {self.high} does not fit uint8, whose numbers end at 255")
        return self

    def contract(self) -> Contract:
        optional = (f"data.{name}" for name in ("validation", "test") if getattr(self, name))
        return Contract.of(gives=("data.train", "data.calibration", "labels", *optional))


class FakeSource(DataSource[FakeConfig]):
    """Inputs `[n, *shape]` and labels int64 `[n]`, each split drawn on its own."""

    def splits(self) -> Mapping[str, TensorSplit]:
        counts = {name: getattr(self.config, name) for name in ("train", "validation", "test")}
        return {name: self._drawn(name, count) for name, count in counts.items() if count}

    def fingerprint(self) -> str:
        return f"fake:{self.config.model_dump_json()}"

    def _drawn(self, name: str, count: int) -> TensorSplit:
        import torch

        rng = torch.Generator().manual_seed(zlib.crc32(f"{self.config.seed}:{name}".encode()))
        labels = torch.randint(self.config.classes, (count,), generator=rng)
        return TensorSplit(self._inputs(count, rng), labels)

    def _inputs(self, count: int, rng: torch.Generator) -> Tensor:
        import torch

        size = (count, *self.config.shape)
        dtype: torch.dtype = getattr(torch, self.config.dtype)
        if not dtype.is_floating_point:
            return torch.randint(self.config.high, size, generator=rng, dtype=dtype)
        if self.config.distribution == "uniform":
            return torch.rand(size, generator=rng, dtype=dtype)
        return self.config.std * torch.randn(size, generator=rng, dtype=dtype)
