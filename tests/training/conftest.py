"""Small parts that the training tests share; the digits are real."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from demiglace.data import Data, TensorSplit
from demiglace.graph import ModelGraph
from demiglace.passes import Context
from demiglace_sources.mnist5k import Mnist5kConfig, Mnist5kSource


@pytest.fixture(scope="session")
def digits() -> Data:
    return Data(Mnist5kSource(Mnist5kConfig(validation=0.1)).splits(), batch_size=64)


@pytest.fixture
def blobs() -> Data:
    """Four classes of points in 8 dimensions, learnt within a few steps."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 4
    centres = 3 * torch.randn(4, 8, generator=rng)
    split = TensorSplit(centres[labels] + torch.randn(200, 8, generator=rng), labels)
    return Data({"train": split, "validation": split, "test": split}, batch_size=20)


@pytest.fixture
def net() -> ModelGraph:
    torch.manual_seed(3)
    return ModelGraph(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))


@pytest.fixture
def context(blobs: Data) -> Context:
    return Context(seed=7, device=torch.device("cpu"), data=blobs)
