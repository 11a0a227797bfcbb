"""Repairs, `prune.obs` and criteria of data on models in graph form: the same edits as on modules."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.data import Data
from demiglace.graph import Example, Lower, Mask, ModelGraph, Write, apply
from demiglace.graph.plain import LayeredGraph, PlainGraph
from demiglace.passes import Context
from demiglace_pruners.channels import Channels, ChannelsConfig
from demiglace_pruners.obs import Obs, ObsConfig
from demiglace_repairs.batchnorm import BatchnormConfig, BatchnormRepair
from demiglace_repairs.bias import BiasConfig, BiasRepair
from demiglace_repairs.least_squares import LeastSquaresConfig, LeastSquaresRepair

INPUTS = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Every kind of layer that repairs look at; its forward has a width written into it."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8)
        self.mixed = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2, padding_mode="circular")
        self.groups, self.up = nn.GroupNorm(4, 8), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.inner, self.layer, self.out = nn.Linear(6 * 64, 16), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.up(self.groups(self.mixed(x))))
        return self.out(torch.relu(self.layer(self.inner(x.reshape(-1, 384)))))


def net():
    torch.manual_seed(0)
    module = Net()
    for _ in range(3):
        module(INPUTS)
    return module.eval()


def pair(form, *, masked=True):
    """The model with masks, and as it was before; in graph form both, or only what was changed."""
    model = ModelGraph(net(), Example((INPUTS[:2],)))
    original = model.copy()
    if form != "module":
        apply(model, [Lower()]).commit()
    if form == "both":
        apply(original, [Lower()]).commit()
    if masked:
        draw = torch.Generator().manual_seed(1)
        names = ("stem.weight", "mixed.weight", "inner.weight")
        keeps = {name: torch.rand(model.module.get_parameter(name).shape, generator=draw) for name in names}
        apply(model, [Mask(name, keep > 0.5) for name, keep in keeps.items()]).commit()
    return model, original


def context(original=None):
    labels = torch.arange(48) % 4
    batches = list(zip(INPUTS.split(16), labels.split(16), strict=True))
    return Context(0, torch.device("cpu"), data=Data.of(batches), original=original)


REPAIRS = {
    "bias": BiasRepair(BiasConfig()),
    "least squares": LeastSquaresRepair(LeastSquaresConfig()),
    "batch norm": BatchnormRepair(BatchnormConfig()),
}


def writes(editor, form):
    model, original = pair(form)
    where = context(original)
    edits = list(editor.edits(model, where))
    before = {name: one.clone() for name, one in model.module.state_dict().items()}
    assert all(torch.equal(one, before[name]) for name, one in model.module.state_dict().items())
    apply(model, edits).commit()
    return {edit.tensor: edit.value for edit in edits if isinstance(edit, Write)}, model


@pytest.mark.parametrize("form", ["changed", "both"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_a_graph_is_repaired_as_its_module_is(repair, form):
    expected, module = writes(REPAIRS[repair], "module")
    found, graph = writes(REPAIRS[repair], form)
    assert type(graph.module) is PlainGraph
    assert found.keys() == expected.keys()
    assert len(found) > 0
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graph.module(INPUTS), module.module(INPUTS), rtol=1e-3, atol=1e-4)


def test_obs_prunes_a_graph_as_its_module():
    kept = []
    for form in ("module", "both"):
        model, _ = pair(form, masked=False)
        where = context()
        apply(model, list(Obs(ObsConfig(amount=0.6)).edits(model, where))).commit()
        kept.append(dict(model.masks))
        assert set(where.left_alone) == {"up.weight"}
    assert kept[0].keys() == kept[1].keys()
    for name, keep in kept[0].items():
        # Scores that differ in the last digit may change places.
        assert (keep == kept[1][name]).float().mean() > 0.99


@pytest.mark.parametrize("importance", ["wanda", "activation_variance", "taylor"])
def test_units_of_a_graph_are_ranked_by_data_as_those_of_its_module(importance):
    editor = Channels(ChannelsConfig(amount=0.5, importance=importance))
    cuts = []
    for form in ("module", "both"):
        model, _ = pair(form, masked=False)
        made = editor.edits(model, context())
        cuts.append({(one.tensor, one.dim): one.kept for one in made if hasattr(one, "kept")})
    assert cuts[0] == cuts[1]
    assert cuts[0]


def test_a_recipe_repairs_what_its_cut_turned_into_a_graph():
    recipe = {"pass": [{"use": "prune.channels", "amount": 0.5}]}
    data = [(INPUTS[:16], torch.arange(16) % 4)]

    def missed(*repairs):
        passes = [*recipe["pass"], *({"use": f"repair.{one}"} for one in repairs)]
        result = demiglace.run({"pass": passes}, model=net(), data=data)
        assert result.steps[0].verified["form"] == "graph"
        return (result.model(INPUTS[:16]) - net()(INPUTS[:16])).square().mean().item()

    assert missed("batchnorm", "least_squares") < 0.5 * missed()


def test_the_view_of_a_graph_computes_the_same_and_calls_its_layers():
    graph, _ = pair("both", masked=False)
    view = graph.with_layers()
    assert isinstance(view.module, LayeredGraph)
    assert view.with_layers() is view
    called = []
    for name, layer in view.module.named_modules():
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
    assert torch.equal(view.module(INPUTS), graph.module(INPUTS))
    assert called == ["stem", "norm", "mixed", "groups", "up", "inner", "layer", "out", ""]
    original = net()
    for name in called[:-1]:
        own, was = view.module.get_submodule(name), original.get_submodule(name)
        assert own.weight is graph.module.get_submodule(name).weight
        shared = {"stride", "dilation", "groups", "kernel_size", "in_channels", "out_channels", "eps"}
        assert all(getattr(own, key) == getattr(was, key) for key in shared & vars(was).keys())
