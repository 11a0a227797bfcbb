"""`torch.compile` in training: the same course, no stale code after a cut, clear errors where it fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from demiglace.errors import UsageError
from demiglace.graph import Cut, SetAttr
from demiglace.passes import Config, Participant
from demiglace.training import Settings, compile_problems, fit, named_loss
from demiglace.training.compiling import compiler
from demiglace_trainers.supervised import Supervised, SupervisedConfig


def settings(backend, **more) -> Settings:
    return Settings(
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        loss=named_loss("cross_entropy", {}),
        epochs=3,
        compile=backend,
        **more,
    )


class Cutter(Participant[Config]):
    """Takes a hidden unit away before each of 12 steps: more often than torch recompiles."""

    def prepare(self, loop):
        self.loop = loop
        self.ran = loop.capture("0")
        self.widths = []

    def loss(self, batch, outputs):
        self.widths.append(self.ran().shape[1])
        return {}

    def before_step(self, at):
        if 2 <= at.step < 14:
            kept = tuple(range(self.loop.model.module[0].out_features - 1))
            edits = [Cut("0.weight", 0, kept), Cut("0.bias", 0, kept), Cut("2.weight", 1, kept)]
            sizes = [SetAttr("0", "out_features", len(kept)), SetAttr("2", "in_features", len(kept))]
            self.loop.apply([*edits, *sizes])


def trained(net, context, backend, *participants):
    loop = fit(net, context, settings(backend), participants)
    return loop, [value.clone() for value in net.module.state_dict().values()]


def copied(net):
    return net.copy()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_training_computes_what_an_uncompiled_one_does(net, context, backend):
    plain, compiled = copied(net), copied(net)
    cutters = Cutter(Config()), Cutter(Config())
    _, one = trained(plain, context, None, cutters[0])
    loop, other = trained(compiled, context, backend, cutters[1])
    for first, second in zip(one, other, strict=True):
        assert torch.allclose(first, second, atol=1e-6)
    assert cutters[0].widths == cutters[1].widths
    assert min(cutters[1].widths) == 4
    assert type(loop.model.module) is nn.Sequential, "evaluation runs the module itself"


def test_code_is_made_anew_after_every_cut(net, context):
    """Each structure is compiled, though torch stops after eight of one function."""
    made = []

    def backend(graph, _inputs):
        made.append(graph)
        return graph.forward

    torch.compiler.reset()
    trained(net, context, backend, Cutter(Config()))
    assert len(made) >= 13


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_the_default_backend_trains_through_cuts(net, context):
    plain, compiled = copied(net), copied(net)
    kept = tuple(range(8))

    class Half(Cutter):
        def before_step(self, at):
            if at.step == 5:
                edits = [Cut("0.weight", 0, kept), Cut("0.bias", 0, kept), Cut("2.weight", 1, kept)]
                self.loop.apply([*edits, SetAttr("0", "out_features", 8), SetAttr("2", "in_features", 8)])

    _, one = trained(plain, context, None, Half(Config()))
    _, other = trained(compiled, context, "inductor", Half(Config()))
    for first, second in zip(one, other, strict=True):
        assert torch.allclose(first, second, atol=1e-4)


def test_without_a_compiler_the_error_says_what_to_install(net, context, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = SupervisedConfig(epochs=1, compile=True)
    [problem] = Supervised(config).preflight(net)
    assert "there is no no-such-compiler" in problem.message
    assert "apt-get install g++" in problem.hint
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        Supervised(config).train(net, context)
    assert not list(compile_problems("aot_eager")), "that backend needs none"


def test_an_unknown_backend_is_named_with_the_nearest(net):
    [problem] = Supervised(SupervisedConfig(epochs=1, compile="inducter")).preflight(net)
    assert (problem.option, "inductor" in problem.hint) == (("compile",), True)


def test_what_the_compiler_fails_with_is_explained(net, context):
    def broken(_graph, _inputs):
        raise ValueError("no code for this")

    torch.compiler.reset()
    with pytest.raises(
        UsageError, match=r"torch\.compile failed on this model: BackendCompilerFailed"
    ) as caught:
        fit(net, context, settings(broken))
    assert "compile = false" in caught.value.faults[0].hint
