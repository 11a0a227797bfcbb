"""A saved model as the start of another run."""

import pytest
import torch

from demiglace.artifact import SourceOrigin, open_artifact, save
from demiglace.errors import ArtifactError
from demiglace.graph import Mask, apply
from demiglace.plugins import discover, structures
from demiglace_sources.artifact import ArtifactConfig, ArtifactSource
from demiglace_sources.mlp import MlpConfig, MlpSource

ORIGIN = SourceOrigin("mlp", {"widths": [4, 3, 2]})


def saved(folder):
    model = MlpSource(MlpConfig(widths=[4, 3, 2])).open()
    apply(model, [Mask("fc1.weight", torch.rand(3, 4) > 0.5)])
    save(model, folder, origin=ORIGIN)
    return model


def source(path):
    return ArtifactSource(ArtifactConfig(path=str(path)))


@pytest.mark.parametrize("inside", [".", "model"], ids=["artifact", "run directory"])
def test_weights_masks_and_the_first_origin_carry_over(tmp_path, inside):
    model = saved(tmp_path / "run" / inside if inside != "." else tmp_path / "run")
    graph = source(tmp_path / "run").open()
    assert torch.equal(graph.masks["fc1.weight"], model.masks["fc1.weight"])
    assert all(
        torch.equal(a, b) for a, b in zip(graph.module.parameters(), model.module.parameters(), strict=True)
    )
    assert graph.origin == ORIGIN


def test_what_is_saved_again_no_longer_needs_the_first_artifact(tmp_path):
    model = saved(tmp_path / "first")
    graph = source(tmp_path / "first").open()
    save(graph, tmp_path / "second", origin=graph.origin)
    (tmp_path / "first").rename(tmp_path / "gone")
    again = open_artifact(tmp_path / "second", resolve=structures(discover()))
    assert torch.equal(again.module.fc2.weight, model.module.fc2.weight)


def test_planning_knows_the_names_of_its_layers(tmp_path):
    saved(tmp_path / "first")
    assert {name for name, _ in source(tmp_path / "first").structure().named_parameters()} >= {
        "fc1.weight",
        "fc2.bias",
    }


def test_an_absent_artifact_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="absent"):
        source(tmp_path / "absent").open()
