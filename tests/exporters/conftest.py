"""Data of tests of exported files, and what these need."""

import pytest
import torch
from exported_nets import TABLES

from demiglace.data import Data, TensorSplit, build_transform


@pytest.fixture(scope="session")
def images():
    """Raw images of 8 bits with a transform before the network."""
    raw = torch.randint(
        0, 256, (48, 3, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    split = TensorSplit(raw, torch.arange(48) % 4).transformed(build_transform(TABLES))
    return Data({"calibration": split, "test": split}, transform=TABLES)


@pytest.fixture(autouse=True)
def runtimes(request):
    """Skip what needs the extras, where they are not installed."""
    if "needs_no_runtime" not in request.keywords:
        for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
            pytest.importorskip(name)
