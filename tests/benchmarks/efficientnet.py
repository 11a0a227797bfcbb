"""EfficientNet-Lite0, to run its published weights; strides pad at the far edge, as TensorFlow does."""

import torch
from torch import nn

_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Repeats, kernel, stride, expansion, channels out."""


def _conv(inputs, outputs, kernel, stride=1, groups=1):
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False
    )
    edge = (kernel - 2) // 2
    pad = nn.ZeroPad2d((edge, edge + 1, edge, edge + 1)) if stride == 2 else nn.Identity()
    return nn.Sequential(pad, conv, nn.BatchNorm2d(outputs, eps=1e-3))


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        inner = inputs * expansion
        self.expand = _conv(inputs, inner, 1) if expansion > 1 else None
        self.depthwise, self.project = _conv(inner, inner, kernel, stride, inner), _conv(inner, outputs, 1)
        self.act, self.residual = nn.ReLU6(), stride == 1 and inputs == outputs

    def forward(self, x):
        y = x if self.expand is None else self.act(self.expand(x))
        y = self.project(self.act(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Logits `[n, 1000]` of images `[n, 3, 224, 224]` from -1 to 1."""

    def __init__(self):
        super().__init__()
        self.stem, blocks, inputs = _conv(3, 32, 3, 2), [], 32
        for repeats, kernel, stride, expansion, outputs in _BLOCKS:
            for number in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self.blocks, self.head, self.act = nn.Sequential(*blocks), _conv(320, 1280, 1), nn.ReLU6()
        self.fc = nn.Linear(1280, 1000)

    def forward(self, x):
        return self.fc(self.act(self.head(self.blocks(self.act(self.stem(x))))).mean((2, 3)))


def load(path):
    """The network with the weights of a checkpoint; both list their tensors in one order."""
    model = EfficientNetLite0()
    values = list(torch.load(path, weights_only=True).values())
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, values, strict=True)))
    return model.eval()
