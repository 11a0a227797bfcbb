"""Packing and unpacking in one."""

import pytest
import torch
from packed_models import Holder

from demiglace.artifact import GraphOrigin
from demiglace.artifact.packed import pack, unpack
from demiglace.graph import ModelGraph


@pytest.fixture
def packed(tmp_path):
    """Packs tensors by name, or a module; gives the result and what the file decodes to."""

    def pack_and_unpack(module=None, *, context=False, masks=None, **tensors):
        graph = ModelGraph(module or Holder(**tensors), masks=masks or {})
        path = tmp_path / "model.dgz"
        return pack(graph, path, origin=GraphOrigin(), context=context), unpack(path)

    return pack_and_unpack


@pytest.fixture
def gaussian():
    """Draws normal tensors."""
    torch.manual_seed(0)
    return torch.randn
