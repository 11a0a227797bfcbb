"""How modules are put together: residuals, sharing, ties, parameters of their own, Python."""

from __future__ import annotations

import torch
from graph_toy import Net, Toy, conv, itself, run
from torch import nn
from torch.nn import functional as F


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


def _written_through_a_view(self, x):
    """The sum runs over what is not zero, though nothing says so of `y` itself."""
    y = self.a(x)
    y.view(x.shape[0], -1).sigmoid_()
    return self.b(y.sum(1, keepdim=True))


TOYS: dict[str, Toy] = {
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
    "in-place activation": Toy(
        lambda: Net(lambda s, x: s.b(s.a(x).sigmoid_()), a=conv(3, 6), b=conv(6, 4)),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "a write through a view": Toy(
        lambda: Net(_written_through_a_view, a=conv(3, 6), b=conv(1, 4)),
        declined={("a.weight", 0): "reduces over it"},
    ),
    "a mask of ones": Toy(
        lambda: Net(
            lambda s, x: s.b(s.a(x).sigmoid() * torch.full((6, 1, 1), 0.5)), a=conv(3, 6), b=conv(6, 4)
        ),
        units=6,
        slices={("a.weight", 0): itself, ("b.weight", 1): itself},
        form="graph",
    ),
    "a number of groups in Python beside a layer norm": Toy(
        lambda: Net(
            lambda s, x: s.b(s.n(F.group_norm(s.a(x), 4).movedim(1, -1))),
            a=conv(3, 8),
            n=nn.LayerNorm(8),
            b=nn.Linear(8, 4),
        ),
        units=4,
        slices={("a.weight", 0): run(0, 2), ("n.weight", 0): run(0, 2), ("b.weight", 1): run(0, 2)},
        form="graph",
    ),
}
