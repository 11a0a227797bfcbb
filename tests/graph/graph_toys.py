"""Networks of one pattern each, with the indices that belong to each unit worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Indices = Callable[[int], Iterable[int]]


class Net(nn.Module):
    """Layers by name and a forward given as a function."""

    def __init__(self, run, **members):
        super().__init__()
        self.run = run
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, *inputs):
        return self.run(self, *inputs)


@dataclass
class Toy:
    net: Callable[[], nn.Module]
    shape: tuple[int, ...] | None = (3, 3, 6, 6)
    #: Of the group that holds the unit: how many there are, and each tensor's indices for unit `u`.
    units: int = 0
    slices: Mapping[tuple[str, int], Indices] = field(default_factory=dict)
    #: For a tensor's dimension that must be left alone: a part of the reason.
    declined: Mapping[tuple[str, int], str] = field(default_factory=dict)
    form: str | None = None
    inputs: Callable[[], tuple] | None = None

    def example(self):
        return self.inputs() if self.inputs else (torch.randn(self.shape),)


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def itself(u):
    return [u]


def shifted(by):
    return lambda u: [u + by]


def run(start, width):
    """`width` neighbours for each unit, from `start`."""
    return lambda u: range(start + u * width, start + (u + 1) * width)


def every(step, count, start=0):
    """One index in each of `count` blocks of `step`."""
    return lambda u: [start + u + step * k for k in range(count)]


class Attention(nn.Module):
    """Fused qkv, 4 heads of 6."""

    def __init__(self, how, heads=4, kv_heads=4, size=6, width=10):
        super().__init__()
        self.heads, self.kv_heads, self.size, self.how = heads, kv_heads, size, how
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * size)
        self.out = nn.Linear(heads * size, width)

    def forward(self, x):
        b, n, _ = x.shape
        return self.out(self.how(self, self.qkv(x)).reshape(b, n, -1)) + x


def _fused(self, qkv):
    b, n, _ = qkv.shape
    q, k, v = qkv.view(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
    return q, k, v


def by_sdpa(self, qkv):
    q, k, v = _fused(self, qkv)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def by_matmul(self, qkv):
    q, k, v = _fused(self, qkv)
    return ((q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1) @ v).transpose(1, 2)


def by_einsum(self, qkv):
    q, k, v = (one.transpose(1, 2) for one in _fused(self, qkv))
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def by_bmm(self, qkv):
    b, n, _ = qkv.shape
    q, k, v = (one.reshape(b * self.heads, n, self.size) for one in _fused(self, qkv))
    out = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
    return out.view(b, self.heads, n, self.size).transpose(1, 2)


def by_minus_one(self, qkv):
    b, n, _ = qkv.shape
    q, k, v = qkv.chunk(3, -1)
    q, k, v = (one.view(b, n, self.heads, -1).transpose(1, 2) for one in (q, k, v))
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)


def by_shared_heads(self, qkv):
    b, n, _ = qkv.shape
    q, k, v = qkv.split([self.heads * 6, self.kv_heads * 6, self.kv_heads * 6], -1)
    q = q.view(b, n, self.heads, 6).transpose(1, 2)
    k, v = (one.view(b, n, self.kv_heads, 6).transpose(1, 2) for one in (k, v))
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2)


def by_repeated_heads(self, qkv):
    b, n, _ = qkv.shape
    q, k, v = qkv.split([self.heads * 6, self.kv_heads * 6, self.kv_heads * 6], -1)
    q = q.view(b, n, self.heads, 6).transpose(1, 2)
    k, v = (one.view(b, n, self.kv_heads, 6).transpose(1, 2) for one in (k, v))
    k, v = (
        one[:, :, None]
        .expand(b, self.kv_heads, self.heads // self.kv_heads, n, 6)
        .reshape(b, self.heads, n, 6)
        for one in (k, v)
    )
    return ((q @ k.transpose(-2, -1) / 6**0.5).softmax(-1) @ v).transpose(1, 2)


def over_channels(self, qkv):
    """Cross-covariance attention: the softmax runs over the head's own channels."""
    q, k, v = (one.transpose(-2, -1) for one in _fused(self, qkv))
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).permute(0, 3, 1, 2)


def _heads(u):
    return [k * 24 + u * 6 + d for k in range(3) for d in range(6)]


HEADS = {("qkv.weight", 0): _heads, ("qkv.bias", 0): _heads, ("out.weight", 1): run(0, 6)}
SHARED_HEADS = {
    ("qkv.weight", 0): lambda u: [
        *range(12 * u, 12 * u + 12),
        *range(24 + 6 * u, 30 + 6 * u),
        *range(36 + 6 * u, 42 + 6 * u),
    ],
    ("out.weight", 1): run(0, 12),
}


def standardised(self, x):
    weight = self.b.weight
    flat = F.batch_norm(weight.reshape(1, 5, -1), None, None, training=True)
    return self.c(F.relu(F.conv2d(self.a(x).relu(), flat.view_as(weight), self.b.bias)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 6)
        self.back = nn.Linear(6, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.back(self.inner(self.embed(x)).relu()))


class Auxiliary(nn.Module):
    """A head that only training runs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 4)
        self.aux = conv(8, 2)

    def forward(self, x):
        y = self.a(x).relu()
        return (self.b(y), self.aux(y)) if self.training else self.b(y)


class Sizes(nn.Module):
    """Python attributes that hold sizes."""

    def __init__(self):
        super().__init__()
        self.channels = 9
        self.a = conv(3, 9)
        self.fc = nn.Linear(9, 4)

    def forward(self, x):
        y = self.a(x).relu().mean((2, 3))
        return self.fc(y.view(x.shape[0], self.channels))


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 4)

    def forward(self, x):
        y = self.a(x)
        b, c, h, w = y.shape
        return self.b(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w).relu())


TOYS: dict[str, Toy] = {
    "chain": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sigmoid()), a=conv(3, 8), b=conv(8, 4)),
        units=8,
        slices={("a.weight", 0): itself, ("a.bias", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "batch norm": Toy(
        lambda: Net(lambda s, x: s.b(s.n(s.a(x)).relu()), a=conv(3, 8), n=nn.BatchNorm2d(8), b=conv(8, 4)),
        units=8,
        slices={
            ("a.weight", 0): itself,
            ("n.weight", 0): itself,
            ("n.running_var", 0): itself,
            ("b.weight", 1): itself,
        },
        form="module",
    ),
    "flatten": Toy(
        lambda: Net(lambda s, x: s.fc(s.a(x).flatten(1)), a=conv(3, 5), fc=nn.Linear(180, 4)),
        units=5,
        slices={("a.weight", 0): itself, ("fc.weight", 1): run(0, 36)},
        form="module",
    ),
    "flatten after NHWC": Toy(
        lambda: Net(
            lambda s, x: s.fc(s.a(x).permute(0, 2, 3, 1).flatten(1)), a=conv(3, 5), fc=nn.Linear(180, 4)
        ),
        units=5,
        slices={("a.weight", 0): itself, ("fc.weight", 1): every(5, 36)},
        form="module",
    ),
    "linear viewed as an image": Toy(
        lambda: Net(lambda s, x: s.b(s.fc(x).view(-1, 6, 4, 4).relu()), fc=nn.Linear(7, 96), b=conv(6, 3)),
        shape=(3, 7),
        units=6,
        slices={("fc.weight", 0): run(0, 16), ("fc.bias", 0): run(0, 16), ("b.weight", 1): itself},
        form="graph",
    ),
    "channels last linear": Toy(
        lambda: Net(
            lambda s, x: s.q(s.p(s.a(x).permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2),
            a=conv(3, 8),
            p=nn.Linear(8, 6),
            q=nn.Linear(6, 4),
        ),
        units=6,
        slices={("p.weight", 0): itself, ("q.weight", 1): itself},
        form="module",
    ),
    "channel shuffle": Toy(
        Shuffle, units=4, slices={("a.weight", 0): every(4, 2), ("b.weight", 1): run(0, 2)}, form="module"
    ),
    "sdpa": Toy(lambda: Attention(by_sdpa), (2, 7, 10), 4, HEADS, form="module"),
    "matmul attention": Toy(lambda: Attention(by_matmul), (2, 7, 10), 4, HEADS, form="module"),
    "einsum attention": Toy(lambda: Attention(by_einsum), (2, 7, 10), 4, HEADS, form="module"),
    "bmm attention": Toy(lambda: Attention(by_bmm), (2, 7, 10), 4, HEADS, form="module"),
    "attention views with -1": Toy(lambda: Attention(by_minus_one), (2, 7, 10), 4, HEADS),
    "grouped-query attention": Toy(
        lambda: Attention(by_shared_heads, kv_heads=2), (2, 7, 10), 2, SHARED_HEADS
    ),
    "key-value heads repeated by expand": Toy(
        lambda: Attention(by_repeated_heads, kv_heads=2), (2, 7, 10), 2, SHARED_HEADS
    ),
    "cross-covariance attention": Toy(lambda: Attention(over_channels), (2, 7, 10), 4, HEADS),
    "nn.MultiheadAttention": Toy(
        lambda: Net(
            lambda s, x: s.b(s.m(s.a(x), s.a(x), s.a(x), need_weights=False)[0]),
            a=nn.Linear(5, 12),
            m=nn.MultiheadAttention(12, 4, batch_first=True),
            b=nn.Linear(12, 3),
        ),
        (2, 7, 5),
        4,
        {
            ("m.in_proj_weight", 0): lambda u: [k * 12 + u * 3 + d for k in range(3) for d in range(3)],
            ("m.out_proj.weight", 1): run(0, 3),
        },
    ),
    "uneven split": Toy(
        lambda: Net(
            lambda s, x: (lambda p, q: s.b(p.relu()) + s.c(q.tanh()))(*s.a(x).split([5, 3], 1)),
            a=conv(3, 8),
            b=conv(5, 4),
            c=conv(3, 4),
        ),
        units=3,
        slices={("a.weight", 0): shifted(5), ("c.weight", 1): itself},
        form="graph",
    ),
    "chunk": Toy(
        lambda: Net(
            lambda s, x: (lambda p, q: s.b(p * q.sigmoid()))(*s.a(x).chunk(2, 1)), a=conv(3, 8), b=conv(4, 4)
        ),
        units=4,
        slices={("a.weight", 0): every(4, 2), ("b.weight", 1): itself},
        form="module",
    ),
    "strided slice": Toy(
        lambda: Net(
            lambda s, x: s.b(s.a(x)[:, ::2]) + s.c(s.a(x)[:, 1::2]), a=conv(3, 8), b=conv(4, 4), c=conv(4, 4)
        ),
        units=4,
        slices={("a.weight", 0): run(0, 2), ("b.weight", 1): itself, ("c.weight", 1): itself},
        form="module",
    ),
    "select": Toy(
        lambda: Net(
            lambda s, x: s.b(s.a(x)) + s.a(x)[:, 2:3] + s.a(x).select(1, 0)[:, None],
            a=conv(3, 8),
            b=conv(8, 4),
        ),
        units=6,
        slices={
            ("a.weight", 0): lambda u: [[1, 3, 4, 5, 6, 7][u]],
            ("b.weight", 1): lambda u: [[1, 3, 4, 5, 6, 7][u]],
        },
        declined={("a.weight", 0): "takes one index"},
    ),
    "narrow": Toy(
        lambda: Net(
            lambda s, x: s.b(s.a(x)) + s.c(s.a(x).narrow(1, 2, 4)), a=conv(3, 8), b=conv(8, 4), c=conv(4, 4)
        ),
        units=4,
        slices={("a.weight", 0): shifted(2), ("b.weight", 1): shifted(2), ("c.weight", 1): itself},
    ),
    "cat with the raw input": Toy(
        lambda: Net(lambda s, x: s.b(torch.cat([x, s.a(x)], -3)), a=conv(3, 6), b=conv(9, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): shifted(3)},
        form="module",
    ),
    "cat with a buffer": Toy(
        lambda: Net(
            lambda s, x: s.b(torch.cat([s.a(x), s.extra.expand(x.shape[0], -1, -1, -1)], 1)),
            a=conv(3, 6),
            extra=torch.randn(1, 2, 6, 6),
            b=conv(8, 4),
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "cat of a tensor with itself": Toy(
        lambda: Net(
            lambda s, x: (lambda y: s.b(torch.cat([y, y.relu()], 1)))(s.a(x)), a=conv(3, 6), b=conv(12, 4)
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): every(6, 2)},
        form="module",
    ),
    "stack": Toy(
        lambda: Net(
            lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], 1).sum(1)),
            a=conv(3, 6),
            b=conv(3, 6),
            c=conv(6, 4),
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 0): itself, ("c.weight", 1): itself},
        form="module",
    ),
    "stack merged into channels": Toy(
        lambda: Net(
            lambda s, x: s.c(torch.stack([s.a(x), s.b(x)], 2).flatten(1, 2)),
            a=conv(3, 6),
            b=conv(3, 6),
            c=conv(12, 4),
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 0): itself, ("c.weight", 1): run(0, 2)},
        form="module",
    ),
    "flip": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).flip(1)), a=conv(3, 6), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): lambda u: [5 - u]},
        form="module",
    ),
    "roll": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).roll(2, 1)), a=conv(3, 6), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): lambda u: [(u + 2) % 6]},
    ),
    "index by a buffer": Toy(
        lambda: Net(
            lambda s, x: s.b(s.a(x)[:, s.order]),
            a=conv(3, 6),
            order=torch.tensor([5, 0, 3, 1, 4, 2]),
            b=conv(6, 4),
        ),
        declined={("a.weight", 0): "looked up"},
    ),
    "pad on channels": Toy(
        lambda: Net(lambda s, x: s.b(F.pad(s.a(x), (0, 0, 0, 0, 2, 1))), a=conv(3, 6), b=conv(9, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): shifted(2)},
        form="module",
    ),
    "pixel shuffle": Toy(
        lambda: Net(lambda s, x: s.b(F.pixel_shuffle(s.a(x), 2)), a=conv(3, 24), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): run(0, 4), ("b.weight", 1): itself},
        form="module",
    ),
    "pixel unshuffle": Toy(
        lambda: Net(lambda s, x: s.b(F.pixel_unshuffle(s.a(x), 2)), a=conv(3, 5), b=conv(20, 4)),
        units=5,
        slices={("a.weight", 0): itself, ("b.weight", 1): run(0, 4)},
        form="module",
    ),
    "depthwise": Toy(
        lambda: Net(lambda s, x: s.c(s.b(s.a(x)).relu()), a=conv(3, 6), b=conv(6, 6, groups=6), c=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 0): itself, ("c.weight", 1): itself},
        form="module",
    ),
    "depthwise with a multiplier": Toy(
        lambda: Net(
            lambda s, x: s.c(s.b(s.a(x)).relu()), a=conv(3, 6), b=conv(6, 12, groups=6), c=conv(12, 4)
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 0): run(0, 2), ("c.weight", 1): run(0, 2)},
        form="module",
    ),
    "grouped convolution": Toy(
        lambda: Net(
            lambda s, x: s.c(s.b(s.a(x)).relu()), a=conv(3, 8), b=conv(8, 12, groups=2), c=conv(12, 4)
        ),
        units=4,
        slices={("a.weight", 0): every(4, 2), ("b.weight", 1): itself},
        form="module",
    ),
    "grouped transposed convolution": Toy(
        lambda: Net(
            lambda s, x: s.c(s.b(s.a(x)).relu()),
            a=conv(3, 8),
            b=nn.ConvTranspose2d(8, 12, 2, groups=2),
            c=conv(12, 4),
        ),
        units=6,
        slices={("b.weight", 1): itself, ("b.bias", 0): every(6, 2), ("c.weight", 1): every(6, 2)},
        form="module",
    ),
    "transposed convolution": Toy(
        lambda: Net(lambda s, x: s.c(s.b(s.a(x))), a=conv(3, 8), b=nn.ConvTranspose2d(8, 5, 2), c=conv(5, 4)),
        units=8,
        slices={("a.weight", 0): itself, ("b.weight", 0): itself},
        form="module",
    ),
    "residual": Toy(
        lambda: Net(
            lambda s, x: (lambda y: s.c(y + s.b(y)))(s.a(x)), a=conv(3, 6), b=conv(6, 6), c=conv(6, 4)
        ),
        units=6,
        slices={
            ("a.weight", 0): itself,
            ("b.weight", 0): itself,
            ("b.weight", 1): itself,
            ("c.weight", 1): itself,
        },
        form="module",
    ),
    "residual with the input": Toy(
        lambda: Net(lambda s, x: s.b(x + s.a(x)), a=conv(3, 3), b=conv(3, 4)),
        declined={("a.weight", 0): "fixed size"},
    ),
    "layer scale": Toy(
        lambda: Net(
            lambda s, x: s.b(s.scale * s.a(x)),
            a=conv(3, 6),
            scale=nn.Parameter(torch.randn(6, 1, 1)),
            b=conv(6, 4),
        ),
        units=6,
        slices={("a.weight", 0): itself, ("scale", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "class and position tokens": Toy(
        lambda: Net(
            lambda s, x: s.b(torch.cat([s.cls.expand(x.shape[0], -1, -1), s.a(x)], 1) + s.pos)[:, 0],
            a=nn.Linear(5, 8),
            cls=nn.Parameter(torch.randn(1, 1, 8)),
            pos=nn.Parameter(torch.randn(1, 8, 8)),
            b=nn.Linear(8, 3),
        ),
        (2, 7, 5),
        8,
        {("a.weight", 0): itself, ("cls", 2): itself, ("pos", 2): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "weight-standardised convolution": Toy(
        lambda: Net(standardised, a=conv(3, 6), b=conv(6, 5), c=conv(5, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
    ),
    "linear over tokens": Toy(
        lambda: Net(
            lambda s, x: s.b(s.t(s.a(x).transpose(1, 2)).transpose(1, 2)),
            a=nn.Linear(5, 8),
            t=nn.Linear(7, 7),
            b=nn.Linear(8, 3),
        ),
        (2, 7, 5),
        8,
        {("a.weight", 0): itself, ("b.weight", 1): itself},
        declined={("t.weight", 0): "output"},
        form="module",
    ),
    "convolution over channels": Toy(
        lambda: Net(
            lambda s, x: (
                lambda y: s.b(y * s.e(y.mean((2, 3))[:, None]).sigmoid().transpose(1, 2)[..., None])
            )(s.a(x)),
            a=conv(3, 6),
            e=nn.Conv1d(1, 1, 3, padding=1, bias=False),
            b=conv(6, 4),
        ),
        declined={("a.weight", 0): "slides over it"},
    ),
    "layer norm over channels": Toy(
        lambda: Net(lambda s, x: s.b(s.n(s.a(x))), a=nn.Linear(5, 8), n=nn.LayerNorm(8), b=nn.Linear(8, 3)),
        (2, 7, 5),
        8,
        {("a.weight", 0): itself, ("n.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "RMS norm over channels": Toy(
        lambda: Net(lambda s, x: s.b(s.n(s.a(x))), a=nn.Linear(5, 8), n=nn.RMSNorm(8), b=nn.Linear(8, 3)),
        (2, 7, 5),
        8,
        {("a.weight", 0): itself, ("n.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "group norm": Toy(
        lambda: Net(lambda s, x: s.b(s.n(s.a(x))), a=conv(3, 8), n=nn.GroupNorm(4, 8), b=conv(8, 4)),
        units=4,
        slices={("a.weight", 0): run(0, 2), ("n.bias", 0): run(0, 2), ("b.weight", 1): run(0, 2)},
        form="module",
    ),
    "softmax over channels": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).softmax(1)), a=conv(3, 6), b=conv(6, 4)),
        declined={("a.weight", 0): "mixes all of it"},
    ),
    "mean over channels": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).mean(1, keepdim=True)), a=conv(3, 6), b=conv(1, 4)),
        declined={("a.weight", 0): "reduces over it"},
    ),
    "sum of what is not zero": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sigmoid().sum(1, keepdim=True)), a=conv(3, 6), b=conv(1, 4)),
        declined={("a.weight", 0): "reduces over it"},
    ),
    "shared module": Toy(
        lambda: Net(lambda s, x: s.b(s.m(s.m(s.a(x)).relu())), a=conv(3, 6), m=conv(6, 6), b=conv(6, 4)),
        units=6,
        slices={
            ("a.weight", 0): itself,
            ("m.weight", 0): itself,
            ("m.weight", 1): itself,
            ("b.weight", 1): itself,
        },
        form="module",
    ),
    "tied weights": Toy(
        Tied,
        None,
        8,
        {("embed.weight", 1): itself, ("inner.weight", 1): itself, ("back.weight", 0): itself},
        declined={("embed.weight", 0): ""},
        form="module",
        inputs=lambda: (torch.randint(0, 11, (3, 5)),),
    ),
    "LSTM": Toy(
        lambda: Net(
            lambda s, x: s.b(s.r(s.a(x))[0]),
            a=nn.Linear(5, 6),
            r=nn.LSTM(6, 4, batch_first=True),
            b=nn.Linear(4, 3),
        ),
        (2, 7, 5),
        declined={("a.weight", 0): "no rule"},
    ),
    "GRU": Toy(
        lambda: Net(
            lambda s, x: s.b(s.r(s.a(x))[0]),
            a=nn.Linear(5, 6),
            r=nn.GRU(6, 4, batch_first=True),
            b=nn.Linear(4, 3),
        ),
        (2, 7, 5),
        declined={("a.weight", 0): "no rule"},
    ),
    "a branch that only training runs": Toy(
        Auxiliary,
        units=8,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself, ("aux.weight", 1): itself},
        form="module",
    ),
    "sizes in Python attributes": Toy(
        Sizes, units=9, slices={("a.weight", 0): itself, ("fc.weight", 1): itself}, form="module"
    ),
    "frozen parameters": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x)), a=conv(3, 6).requires_grad_(False), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "squeeze and excitation": Toy(
        lambda: Net(
            lambda s, x: (lambda y: s.b(y * s.up(s.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()))(
                s.a(x)
            ),
            a=conv(3, 6),
            down=conv(6, 4, 1),
            up=conv(4, 6, 1),
            b=conv(6, 4),
        ),
        units=6,
        slices={
            ("a.weight", 0): itself,
            ("down.weight", 1): itself,
            ("up.weight", 0): itself,
            ("b.weight", 1): itself,
        },
        form="module",
    ),
    "in-place activation": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sigmoid_()), a=conv(3, 6), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "data-dependent index": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sort(1)[0]), a=conv(3, 6), b=conv(6, 4)),
        declined={("a.weight", 0): "no rule"},
    ),
}
