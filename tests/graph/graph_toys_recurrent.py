"""Recurrent layers: a hidden unit is a row of every gate in all layers and directions."""

from __future__ import annotations

import torch
from graph_toy import Net, Toy, every, itself
from torch import nn

TOKENS = (2, 7, 5)


def _network(layer, width=4):
    return Net(lambda s, x: s.b(s.r(s.a(x))[0]), a=nn.Linear(5, 6), r=layer, b=nn.Linear(width, 3))


def _given_states(self, x):
    states = (self.h(x[:, 0])[None], self.c(x[:, 1])[None])
    return self.b(self.r(x, states)[0])


INPUTS = {("a.weight", 0): itself, ("r.weight_ih_l0", 1): itself}
LSTM = {
    ("r.weight_ih_l0", 0): every(4, 4),
    ("r.weight_hh_l0", 0): every(4, 4),
    ("r.weight_hh_l0", 1): itself,
    ("r.bias_ih_l0", 0): every(4, 4),
    ("r.bias_hh_l0", 0): every(4, 4),
    ("b.weight", 1): itself,
}

TOYS: dict[str, Toy] = {
    "LSTM": Toy(lambda: _network(nn.LSTM(6, 4, batch_first=True)), TOKENS, 4, LSTM, form="module"),
    "inputs of an LSTM": Toy(
        lambda: _network(nn.LSTM(6, 4, batch_first=True)), TOKENS, 6, INPUTS, form="module"
    ),
    "GRU": Toy(
        lambda: _network(nn.GRU(6, 4, batch_first=True)),
        TOKENS,
        4,
        {("r.weight_ih_l0", 0): every(4, 3), ("r.weight_hh_l0", 1): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "RNN over time first": Toy(
        lambda: Net(
            lambda s, x: s.b(s.r(x.transpose(0, 1))[0]).transpose(0, 1),
            r=nn.RNN(5, 4, nonlinearity="relu"),
            b=nn.Linear(4, 3),
        ),
        TOKENS,
        4,
        {("r.weight_ih_l0", 0): itself, ("r.weight_hh_l0", 1): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "two layers in two directions": Toy(
        lambda: _network(nn.GRU(6, 4, 2, batch_first=True, bidirectional=True), 8),
        TOKENS,
        4,
        {
            ("r.weight_ih_l0", 0): every(4, 3),
            ("r.weight_ih_l0_reverse", 0): every(4, 3),
            ("r.weight_ih_l1", 1): every(4, 2),
            ("r.weight_hh_l1_reverse", 1): itself,
            ("b.weight", 1): every(4, 2),
        },
        form="module",
    ),
    "last states": Toy(
        lambda: Net(
            lambda s, x: s.b(torch.cat(tuple(s.r(x)[1]), -1)),
            r=nn.GRU(5, 4, batch_first=True, bidirectional=True),
            b=nn.Linear(8, 3),
        ),
        TOKENS,
        4,
        {("r.weight_ih_l0", 0): every(4, 3), ("b.weight", 1): every(4, 2)},
        form="module",
    ),
    "states of two layers": Toy(
        lambda: Net(
            _given_states,
            h=nn.Linear(5, 4),
            c=nn.Linear(5, 4),
            r=nn.LSTM(5, 4, batch_first=True),
            b=nn.Linear(4, 3),
        ),
        TOKENS,
        4,
        {**LSTM, ("h.weight", 0): itself, ("c.weight", 0): itself},
        form="module",
    ),
    "states that are inputs": Toy(
        lambda: Net(
            lambda s, x, h: s.b(s.r(s.a(x), h)[0]), a=nn.Linear(5, 6), r=nn.GRU(6, 4), b=nn.Linear(4, 3)
        ),
        None,
        6,
        INPUTS,
        declined={("r.weight_ih_l0", 0): "fixed size"},
        inputs=lambda: (torch.randn(7, 3, 5), torch.randn(1, 3, 4)),
    ),
    "projected LSTM": Toy(
        lambda: _network(nn.LSTM(6, 4, proj_size=3, batch_first=True), 3),
        TOKENS,
        3,
        {("r.weight_hr_l0", 0): itself, ("r.weight_hh_l0", 1): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "cells of a projected LSTM": Toy(
        lambda: _network(nn.LSTM(6, 4, proj_size=3, batch_first=True), 3),
        TOKENS,
        4,
        {
            ("r.weight_ih_l0", 0): every(4, 4),
            ("r.weight_hh_l0", 0): every(4, 4),
            ("r.weight_hr_l0", 1): itself,
        },
        form="module",
    ),
    "one step of an LSTM": Toy(
        lambda: Net(lambda s, x: s.b(s.r(x)[0]), r=nn.LSTMCell(5, 4), b=nn.Linear(4, 3)),
        (3, 5),
        4,
        {("r.weight_ih", 0): every(4, 4), ("r.weight_hh", 1): itself, ("b.weight", 1): itself},
        form="module",
    ),
    "LSTM behind attention over time": Toy(
        lambda: Net(
            lambda s, x: (lambda y: s.b((y * s.w(y).softmax(1)).sum(1)))(s.r(x)[0]),
            r=nn.LSTM(5, 4, batch_first=True),
            w=nn.Linear(4, 1),
            b=nn.Linear(4, 3),
        ),
        TOKENS,
        4,
        {**LSTM, ("w.weight", 1): itself},
        form="module",
    ),
}
