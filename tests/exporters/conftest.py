"""Networks and data of tests of exported files."""

import pytest
import torch
from torch import nn

from demiglace.data import Data, TensorSplit, build_transform

TABLES = (
    {"name": "Resize", "size": [16, 16]},
    {"name": "ToDtype", "dtype": "float32", "scale": True},
    {"name": "Normalize", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3]},
)
STATIC = [{"use": "quantize.static", "samples": 32}]
EDGES = [*STATIC, {"use": "quantize.edges", "samples": 32}]


class Block(nn.Module):
    """A residual block that works in place."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.second(self.relu(self.norm(self.first(x))))
        out += x
        return self.relu(out)


class Net(nn.Module):
    """Stem, pooling, residual blocks, a classifier."""

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU6())
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(Block(channels), Block(channels))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))

    def forward(self, x):
        return self.head(self.blocks(self.pool(self.stem(x))))


class Text(nn.Module):
    """Embedding, attention, feed-forward."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, ids):
        x = self.table(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.norm(x + self.down(nn.functional.gelu(self.up(x)))).mean(1)


def made(kind, **options):
    torch.manual_seed(0)
    net = kind(**options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


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
