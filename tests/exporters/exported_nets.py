"""Networks of tests of exported files."""

import torch
from torch import nn

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


class Kinds(nn.Module):
    """One layer of each kind, uneven padding among them; takes and gives tensors by name."""

    def __init__(self):
        super().__init__()
        self.line = nn.Conv1d(4, 8, 4, padding="same", dilation=2)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)
        self.volume = nn.Conv3d(1, 4, 3, padding=1)
        self.mirror = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect", groups=3)
        self.memory = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x, scale):
        line = self.line(x)
        image = self.mirror(self.up(line.unsqueeze(2)))
        volume = self.volume(image.unsqueeze(1)).mean((3, 4))
        return {"volume": volume * scale.view(-1, 1, 1), "last": self.memory(line.transpose(1, 2))[0]}


def made(kind, **options):
    torch.manual_seed(0)
    net = kind(**options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()
