"""A saved model as the start of another run."""

import subprocess
import sys

import pytest
import torch

import demiglace
from demiglace.artifact import SourceOrigin, open_artifact, save
from demiglace.errors import ArtifactError, RecipeError
from demiglace.graph import Mask, apply
from demiglace.plugins import discover, structures
from demiglace_sources.artifact import ArtifactConfig, ArtifactSource
from demiglace_sources.mlp import MlpConfig, MlpSource

MLP = {"use": "mlp", "widths": [24, 40, 6]}
FINALIZE = {"use": "prune.finalize"}
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


@pytest.fixture
def digits():
    return {"calibration": [torch.randn(8, 24)]}


@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_passes_may_build_on_what_a_model_computes_in(tmp_path, digits, way):
    quantize, out = {"use": f"quantize.{way}"}, tmp_path / "run"
    demiglace.run({"model": MLP, "pass": [quantize]}, data=digits, out=out)
    deploy = {"use": "deploy.sparse_int8"}
    demiglace.check({"model": {"use": "artifact", "path": str(out)}, "pass": [deploy]})
    demiglace.plan({"pass": [deploy]}, model=demiglace.load(out))
    demiglace.run({"model": MLP, "pass": [{"use": "quantize.weight_only"}]}, out=tmp_path / "other")
    with pytest.raises(RecipeError, match=r"needs products\.int8, which nothing before it gives"):
        demiglace.check({"model": {"use": "artifact", "path": str(tmp_path / "other")}, "pass": [deploy]})
    with pytest.raises(RecipeError, match=r"needs products\.int8, which nothing before it gives"):
        demiglace.plan({"pass": [deploy]}, model=demiglace.load(tmp_path / "other"))


def test_what_only_opening_tells_is_not_refused_before(tmp_path):
    packed = tmp_path / "run" / "steps" / "02-packed" / "model.dgz"
    passes = [{"use": "quantize.dynamic"}, {"use": "export.packed"}]
    demiglace.run({"model": MLP, "pass": passes}, out=tmp_path / "run")
    deploy = {"use": "deploy.sparse_int8", "min_speedup": 0.0, "min_sparsity": 0.0, "allow_noop": True}
    demiglace.run({"model": {"use": "artifact", "path": str(packed)}, "pass": [deploy]})
    with pytest.raises(ArtifactError, match="absent"):
        demiglace.run({"model": {"use": "artifact", "path": str(tmp_path / "absent")}, "pass": [deploy]})


def test_masks_of_a_saved_model_can_be_made_final(tmp_path):
    prune = {"use": "prune.magnitude", "amount": 0.5}
    demiglace.run({"model": MLP, "pass": [prune]}, out=tmp_path / "masked")
    recipe = {"model": {"use": "artifact", "path": str(tmp_path / "masked")}, "pass": [FINALIZE]}
    graph = demiglace.run(recipe).graph
    assert not graph.masks
    assert (graph.module.fc1.weight == 0).any()


def test_checking_reads_a_saved_model_without_torch(tmp_path):
    saved(tmp_path / "masked")
    recipe = {"model": {"use": "artifact", "path": str(tmp_path / "masked")}, "pass": [FINALIZE]}
    code = f"import sys, demiglace; demiglace.check({recipe!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
