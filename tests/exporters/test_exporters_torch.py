"""`export.torch`: a program of PyTorch's own; the tests open it, demiglace never does."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import RecipeError
from demiglace.machine import compiler

pytestmark = pytest.mark.needs_no_runtime

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8))
    return nn.Sequential(*layers).eval()


def exported(folder, *passes, model=None, **options):
    step = {"use": "export.torch", "id": "out", **options}
    result = demiglace.run(
        {"pass": [*passes, step]}, model=model or net(), example_inputs=X[:2], out=folder / "run"
    )
    return result, folder / "run" / "steps" / f"{len(passes) + 1:02d}-out" / "model.pt2"


@pytest.mark.parametrize(
    "step", [None, {"use": "quantize.dynamic"}, {"use": "quantize.weight_only", "bits": 4}]
)
def test_the_exported_program_computes_the_same_at_any_batch(tmp_path, step):
    result, file = exported(tmp_path, *([] if step is None else [step]), compile=False)
    program = torch.export.load(file).module()
    for size in (2, 3):
        assert torch.allclose(program(X[:size]), result.model(X[:size]), atol=1e-5)
    assert result.steps[-1].figures["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_the_compiled_program_computes_the_same(tmp_path):
    result, file = exported(tmp_path)
    program = torch._inductor.aoti_load_package(str(file))
    for size in (2, 3):
        assert torch.allclose(program(X[:size]), result.model(X[:size]), atol=1e-4)
    assert [one.name for one in file.parent.iterdir()] == ["model.pt2"]


def test_it_says_that_such_files_hold_pickles(tmp_path):
    result, _ = exported(tmp_path, compile=False)
    assert "pickles" in result.steps[-1].notes[0]
    assert "pickles" in result.steps[-1].words


def test_without_a_compiler_it_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match="set compile = false"):
        exported(tmp_path)
    assert exported(tmp_path / "second", compile=False)[1].exists()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, values):
        return self.layer(values) if float(values.sum()) > 0 else values


def test_what_cannot_be_traced_is_one_error(tmp_path):
    with pytest.raises(demiglace.DemiglaceError, match="cannot be traced"):
        exported(tmp_path, model=Branching(), compile=False)


def test_a_layer_without_its_zeros_is_whole_in_the_program(tmp_path):
    prune = {"use": "prune.magnitude", "amount": 0.9, "targets": ["4"]}
    sparse = {"use": "deploy.sparse", "min_speedup": 0.0, "targets": ["4"]}
    result, file = exported(tmp_path, prune, sparse, compile=False)
    program = torch.export.load(file)
    assert torch.allclose(program.module()(X[:3]), result.model(X[:3]), atol=1e-6)
    assert not any("demiglace" in str(node.target) for node in program.graph.nodes)


def test_a_program_that_departs_fails_the_step_and_leaves_nothing(tmp_path, monkeypatch):
    from demiglace_exporters import torch_program

    monkeypatch.setattr(torch_program, "_difference", lambda program, model: 0.5)
    with pytest.raises(demiglace.DemiglaceError, match=r"departs from the model by 0\.5"):
        exported(tmp_path, compile=False)
    assert not list((tmp_path / "run" / "steps").rglob("*.pt2"))


def test_its_file_ends_in_pt2(tmp_path):
    with pytest.raises(RecipeError, match="pt2"):
        exported(tmp_path, compile=False, file="model.pt")
