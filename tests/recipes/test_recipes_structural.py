"""The shipped recipes that remove structures for good, run as they are shipped."""

import pytest
import torch
from torch import nn

import demiglace

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """A function that runs a shipped recipe and gives its result and what a fresh load of it gives."""

    def ran(name):
        result = demiglace.run(f"recipe:{name}", out=tmp_path / name)
        assert result.record.status == "done", [str(gate) for gate in result.gates]
        return result, demiglace.load(result.path)

    return ran


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_half_of_lenets_neurons_go_and_its_accuracy_stays(run):
    result, model = run("lenet-neurons")
    widths = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert widths == [150, 50, 10]
    assert parameters(model) == 125_810
    assert result.graph.masks == {}
    dense, pruned, tuned = (step.metrics["accuracy"].value for step in result.steps)
    assert dense >= 0.92
    assert pruned < tuned
    assert tuned >= dense - 0.01


def test_half_of_resnets_channels_go(run):
    result, model = run("resnet18-channels")
    assert [model.conv1.out_channels, model.layer4[1].conv2.out_channels, model.fc.in_features] == [
        32,
        256,
        256,
    ]
    assert result.steps[0].verified["equality"] == "exact"
    assert result.steps[0].verified["form"] == "module"
    inputs = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), result.model.eval()(inputs))


def test_two_of_resnets_branches_go(run):
    result, model = run("resnet18-blocks")
    assert result.steps[0].verified["form"] == "module"
    gone = result.steps[0].figures["branches"]["removed"]
    assert len(gone) == 2
    assert not any(name.startswith(f"{one}.") for one in gone for name in model.state_dict())
    inputs = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), result.model.eval()(inputs))


def test_a_third_of_the_heads_of_a_vision_transformer_go_whole(run):
    result, model = run("vit-heads")
    rows = [
        parameter.shape
        for name, parameter in model.named_parameters()
        if name.endswith("self_attention.in_proj_weight")
    ]
    assert rows == [(3 * 8 * 64, 768)] * 12
    assert result.steps[0].verified["equality"] in {"exact", "wiring"}
