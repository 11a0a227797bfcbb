"""Data movement: views, pieces, joins, and channels that change places."""

from __future__ import annotations

import torch
from graph_toy import Net, Toy, conv, every, itself, run, shifted
from torch import nn
from torch.nn import functional as F


class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 4)

    def forward(self, x):
        y = self.a(x)
        b, c, h, w = y.shape
        return self.b(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w).relu())


def _filled_in_parts(self, x):
    y = x.new_zeros(x.shape[0], 9, 6, 6)
    y[:, :5] = self.a(x)
    y[:, 5:] = self.b(x)
    return self.c(y.sigmoid())


TOYS: dict[str, Toy] = {
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
    "data-dependent index": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sort(1)[0]), a=conv(3, 6), b=conv(6, 4)),
        declined={("a.weight", 0): "mixes all of it"},
    ),
    "channel shuffle as one operator": Toy(
        lambda: Net(lambda s, x: s.b(F.channel_shuffle(s.a(x), 3).relu()), a=conv(3, 12), b=conv(12, 4)),
        units=4,
        slices={("a.weight", 0): every(4, 3), ("b.weight", 1): run(0, 3)},
        form="module",
    ),
    "roll backwards": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).roll(-1, 1)), a=conv(3, 6), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): lambda u: [(u - 1) % 6]},
    ),
    "crop of channels": Toy(
        lambda: Net(
            lambda s, x: s.b(F.pad(s.a(x), (0, 0, 0, 0, -2, -1))) + s.c(s.a(x)),
            a=conv(3, 9),
            b=conv(6, 4),
            c=conv(9, 4),
        ),
        units=6,
        slices={("a.weight", 0): shifted(2), ("b.weight", 1): itself, ("c.weight", 1): shifted(2)},
        form="graph",
    ),
    "gated linear unit": Toy(
        lambda: Net(lambda s, x: s.b(F.glu(s.a(x), 1)), a=conv(3, 10), b=conv(5, 4)),
        units=5,
        slices={("a.weight", 0): every(5, 2), ("b.weight", 1): itself},
        form="module",
    ),
    "stacked side by side": Toy(
        lambda: Net(
            lambda s, x: s.c(torch.hstack([s.a(x), s.b(x)])),
            a=nn.Linear(5, 4),
            b=nn.Linear(5, 3),
            c=nn.Linear(7, 3),
        ),
        (3, 5),
        3,
        {("b.weight", 0): itself, ("c.weight", 1): shifted(4)},
        form="module",
    ),
    "windows as columns": Toy(
        lambda: Net(lambda s, x: s.b(F.unfold(s.a(x), 2).transpose(1, 2)), a=conv(3, 5), b=nn.Linear(20, 3)),
        units=5,
        slices={("a.weight", 0): itself, ("b.weight", 1): run(0, 4)},
        form="module",
    ),
    "columns as an image": Toy(
        lambda: Net(
            lambda s, x: s.b(F.fold(s.a(x).transpose(1, 2), (3, 3), 2)), a=nn.Linear(6, 20), b=conv(5, 3)
        ),
        (3, 4, 6),
        5,
        {("a.weight", 0): run(0, 4), ("b.weight", 1): itself},
        form="module",
    ),
    "a tensor filled in parts": Toy(
        lambda: Net(_filled_in_parts, a=conv(3, 5), b=conv(3, 4), c=conv(9, 2)),
        units=4,
        slices={("b.weight", 0): itself, ("c.weight", 1): shifted(5)},
        form="graph",
    ),
    "parts of complex numbers": Toy(
        lambda: Net(
            lambda s, x: s.b(torch.view_as_complex(s.a(x).view(-1, 6, 2)).abs()),
            a=nn.Linear(5, 12),
            b=nn.Linear(6, 3),
        ),
        (3, 5),
        6,
        {("a.weight", 0): run(0, 2), ("b.weight", 1): itself},
        form="graph",
    ),
}
