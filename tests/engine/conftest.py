"""A plugin whose passes misbehave, each in one way, and a small recipe that runs in a moment."""

from __future__ import annotations

import pytest

SPECS = """
import demiglace
from demiglace.passes import Config, Contract, Kind, PassSpec


class Nothing(Config):
    '''Do nothing.'''


class Integer(Config):
    '''Pretend to turn weights into integers.'''

    def contract(self):
        return Contract.of(needs=("weights.float",), gives=("weights.int8",), destroys=("weights.float",))


class Pack(Config):
    '''Pretend to pack integers.'''

    def contract(self):
        return Contract.of(needs=("weights.int8",), gives=("weights.packed",))


@demiglace.hookimpl
def demiglace_passes():
    editors = ["Nothing", "Nan", "Raises", "Promise", "Misfit"]
    return [
        *(PassSpec(f"bad.{name.lower()}", Kind.EDITOR, Nothing, f"bad_code:{name}") for name in editors),
        PassSpec("bad.integer", Kind.EDITOR, Integer, "bad_code:Nothing"),
        PassSpec("bad.pack", Kind.EDITOR, Pack, "bad_code:Nothing"),
        PassSpec("bad.peek", Kind.EVALUATOR, Nothing, "bad_code:Peek"),
        PassSpec("bad.infinite", Kind.EVALUATOR, Nothing, "bad_code:Infinite"),
    ]
"""

CODE = """
import torch
from demiglace.graph import Mask, Write
from demiglace.passes import Asked, Editor, Evaluator, Metric


class Nothing(Editor):
    def edits(self, model, context, amount=None):
        context.leave_alone("fc1", "it is perfect")
        return ()


class Nan(Editor):
    def edits(self, model, context, amount=None):
        weight = next(iter(model.weights()))
        value = weight.tensor.clone()
        value[0, 0] = float("nan")
        return [Write(weight.name, value)]


class Raises(Editor):
    def edits(self, model, context, amount=None):
        raise KeyError("lost")


class Misfit(Editor):
    def edits(self, model, context, amount=None):
        first, second, *_ = model.weights()
        return [Write(first.name, first.tensor * 2), Mask(second.name, torch.ones(1, 1, dtype=torch.bool))]


class Promise(Editor):
    def edits(self, model, context, amount=None):
        weight = next(iter(model.weights()))
        context.ask(Asked("zeros", 3, over=(weight.name,)))
        keep = torch.ones_like(weight.tensor, dtype=torch.bool)
        keep[0, 0] = False
        return [Mask(weight.name, keep)]


class Peek(Evaluator):
    def measure(self, model, context):
        next(model.module.parameters()).data.add_(1)
        return {"peek": Metric(1.0)}


class Infinite(Evaluator):
    def measure(self, model, context):
        return {"peek": Metric(float("inf"))}
"""


@pytest.fixture
def bad_plugin(site):
    """The misbehaving plugin, installed as a distribution of its own."""
    site.install(
        "bad-passes", {"bad_specs": SPECS, "bad_code": CODE}, version="2.1", points={"bad": "bad_specs"}
    )


@pytest.fixture
def recipe():
    """A recipe over generated data, as a function of its passes and further tables."""

    def make(*passes: dict, **tables: object) -> dict:
        return {
            "name": "small",
            "model": {"use": "mlp", "widths": [12, 8, 4]},
            "data": {"use": "fake", "shape": [12], "classes": 4, "train": 640, "test": 64},
            "pass": list(passes),
        } | tables

    return make
