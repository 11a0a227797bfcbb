"""Attention in its spellings: whole heads go, with their queries, keys, values and projections."""

from __future__ import annotations

import torch
from graph_toy import Net, Toy, itself, run
from torch import nn
from torch.nn import functional as F


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


def by_rotary(self, qkv):
    """Key-value heads that several query heads share, turned by their position."""
    b, n, _ = qkv.shape
    q, k, v = qkv.split([self.heads * 6, self.kv_heads * 6, self.kv_heads * 6], -1)
    q, k, v = (one.view(b, n, -1, 6).transpose(1, 2) for one in (q, k, v))
    angle = torch.arange(n).to(qkv.dtype)[:, None] / 3
    q, k = (one * angle.cos() + torch.cat([-one[..., 3:], one[..., :3]], -1) * angle.sin() for one in (q, k))
    k, v = (one.repeat_interleave(self.heads // self.kv_heads, 1) for one in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


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
PACKED_HEADS = {
    ("m.in_proj_weight", 0): lambda u: [k * 12 + u * 3 + d for k in range(3) for d in range(3)],
    ("m.out_proj.weight", 1): run(0, 3),
}


TOYS: dict[str, Toy] = {
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
        PACKED_HEADS,
    ),
    "attention before a norm that names its size": Toy(
        lambda: Net(
            lambda s, x: (
                lambda y: s.b(F.layer_norm(y + s.m(y, y, y, need_weights=False)[0], (12,), s.scale, s.shift))
            )(s.a(x)),
            a=nn.Linear(5, 12),
            m=nn.MultiheadAttention(12, 4, batch_first=True),
            scale=nn.Parameter(torch.rand(12)),
            shift=nn.Parameter(torch.rand(12)),
            b=nn.Linear(12, 3),
        ),
        (2, 7, 5),
        12,
        {
            ("a.weight", 0): itself,
            ("m.in_proj_weight", 1): itself,
            ("m.out_proj.weight", 0): itself,
            ("scale", 0): itself,
            ("b.weight", 1): itself,
        },
        form="graph",
    ),
    "rotary positions in the traced precision": Toy(
        lambda: Attention(by_rotary, kv_heads=2), (2, 7, 10), 2, SHARED_HEADS, form="graph"
    ),
    "einsum with an ellipsis": Toy(
        lambda: Net(
            lambda s, x: torch.einsum("...c,oc->...o", torch.einsum("...i,ic", x, s.v).relu(), s.w),
            v=nn.Parameter(torch.randn(10, 6)),
            w=nn.Parameter(torch.randn(4, 6)),
        ),
        (2, 7, 10),
        6,
        {("v", 1): itself, ("w", 1): itself},
        form="module",
    ),
    "attention whose mean weights nobody reads": Toy(
        lambda: Net(
            lambda s, x: (lambda y: s.b(s.m(y, y, y)[0]))(s.a(x)),
            a=nn.Linear(5, 12),
            m=nn.MultiheadAttention(12, 4, batch_first=True),
            b=nn.Linear(12, 3),
        ),
        (2, 7, 5),
        4,
        PACKED_HEADS,
    ),
}
