"""Layers that make and read channels, and norms and reductions over them."""

from __future__ import annotations

import torch
from graph_toy import Net, Toy, conv, every, itself, run
from torch import nn
from torch.nn import functional as F


def standardised(self, x):
    weight = self.b.weight
    flat = F.batch_norm(weight.reshape(1, 5, -1), None, None, training=True)
    return self.c(F.relu(F.conv2d(self.a(x).relu(), flat.view_as(weight), self.b.bias)))


def _grid(x):
    halves = 0.5 * torch.eye(2, 3, dtype=x.dtype)
    return F.affine_grid(halves.expand(x.shape[0], -1, -1), x.shape, align_corners=False)


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
    "weight-standardised convolution": Toy(
        lambda: Net(standardised, a=conv(3, 6), b=conv(6, 5), c=conv(5, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
    ),
    "blur by a repeated buffer": Toy(
        lambda: Net(
            lambda s, x: s.b(F.conv2d(s.a(x), s.blur.repeat(6, 1, 1, 1), groups=6)),
            a=conv(3, 6),
            blur=torch.rand(1, 1, 3, 3),
            b=conv(6, 4),
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="graph",
    ),
    "group norm without parameters": Toy(
        lambda: Net(
            lambda s, x: s.b(s.n(s.a(x))), a=conv(3, 8), n=nn.GroupNorm(4, 8, affine=False), b=conv(8, 4)
        ),
        units=4,
        slices={("a.weight", 0): run(0, 2), ("b.weight", 1): run(0, 2)},
        form="module",
    ),
    "filter in the frequencies": Toy(
        lambda: Net(
            lambda s, x: s.b(torch.fft.irfft2(torch.fft.rfft2(s.a(x)) * s.filter, s=(6, 6))),
            a=conv(3, 5),
            filter=nn.Parameter(torch.randn(5, 6, 4, dtype=torch.complex64)),
            b=conv(5, 4),
        ),
        units=5,
        slices={("a.weight", 0): itself, ("filter", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "Fourier transform over channels": Toy(
        lambda: Net(lambda s, x: s.b(torch.fft.fft(s.a(x), dim=1).real), a=conv(3, 6), b=conv(6, 4)),
        declined={("a.weight", 0): "mixes all of it"},
    ),
    "sampled at the places of a grid": Toy(
        lambda: Net(
            lambda s, x: s.b(F.grid_sample(s.a(x), _grid(x), align_corners=False)), a=conv(3, 5), b=conv(5, 4)
        ),
        units=5,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "unpooled": Toy(
        lambda: Net(
            lambda s, x: s.b(F.max_unpool2d(*F.max_pool2d(s.a(x), 2, return_indices=True), 2)),
            a=conv(3, 5),
            b=conv(5, 4),
        ),
        units=5,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "sorted tokens": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).topk(3, 1)[0]), a=nn.Linear(5, 6), b=nn.Linear(6, 3)),
        (2, 7, 5),
        6,
        {("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "bilinear layer": Toy(
        lambda: Net(
            lambda s, x: s.b(s.m(s.a(x), s.c(x)).relu()),
            a=nn.Linear(5, 4),
            c=nn.Linear(5, 6),
            m=nn.Bilinear(4, 6, 7),
            b=nn.Linear(7, 3),
        ),
        (3, 5),
        6,
        {("c.weight", 0): itself, ("m.weight", 2): itself},
        form="module",
    ),
    "tensordot": Toy(
        lambda: Net(
            lambda s, x: torch.tensordot(s.a(x), s.w, dims=([1], [1])),
            a=nn.Linear(5, 6),
            w=nn.Parameter(torch.randn(2, 6, 3)),
        ),
        (4, 5),
        6,
        {("a.weight", 0): itself, ("w", 1): itself},
        form="module",
    ),
    "distances to prototypes": Toy(
        lambda: Net(
            lambda s, x: torch.cdist(s.a(x), s.w), a=nn.Linear(5, 6), w=nn.Parameter(torch.randn(3, 6))
        ),
        (2, 7, 5),
        6,
        {("a.weight", 0): itself, ("w", 1): itself},
        form="module",
    ),
    "cosine of two towers": Toy(
        lambda: Net(
            lambda s, x: F.cosine_similarity(s.a(x), s.b(x), dim=1), a=nn.Linear(5, 6), b=nn.Linear(5, 6)
        ),
        (3, 5),
        6,
        {("a.weight", 0): itself, ("b.weight", 0): itself},
        form="module",
    ),
    "cosine of what is not zero": Toy(
        lambda: Net(
            lambda s, x: F.cosine_similarity(s.a(x).sigmoid(), s.b(x).sigmoid(), dim=1),
            a=nn.Linear(5, 6),
            b=nn.Linear(5, 6),
        ),
        (3, 5),
        declined={("a.weight", 0): "compares along it"},
    ),
    "bag of embeddings": Toy(
        lambda: Net(lambda s, x: s.b(s.e(x)), e=nn.EmbeddingBag(11, 6), b=nn.Linear(6, 3)),
        None,
        6,
        {("e.weight", 1): itself, ("b.weight", 1): itself},
        form="module",
        inputs=lambda: (torch.randint(0, 11, (3, 5)),),
    ),
}
