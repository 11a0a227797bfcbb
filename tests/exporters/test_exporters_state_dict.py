"""`export.state_dict`: what others read is what the model holds."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import demiglace

pytestmark = pytest.mark.needs_no_runtime

INPUTS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    layers = (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.Flatten(), nn.Linear(384, 5))
    return nn.Sequential(*layers).eval()


def exported(folder, *passes, model=None, **options):
    step = {"use": "export.state_dict", "id": "out", **options}
    result = demiglace.run(
        {"pass": [*passes, step]}, model=model or net(), example_inputs=INPUTS, out=folder / "run"
    )
    figures = result.steps[-1].figures
    return result, folder / "run" / "steps" / f"{len(passes) + 1:02d}-out" / figures["file"]


@pytest.mark.parametrize(
    "step",
    [
        {"use": "quantize.weight_only", "bits": 4},
        {"use": "quantize.cast"},
        {"use": "prune.magnitude", "amount": 0.9, "targets": ["4"]},
    ],
    ids=lambda step: step["use"],
)
def test_the_original_network_loads_the_file_and_computes_the_same(tmp_path, step):
    result, file = exported(tmp_path, step)
    other = net()
    other.load_state_dict(load_file(file))  # strictly: every name and shape is the original's
    assert all(one.dtype == torch.float32 for one in other.state_dict().values())
    assert torch.allclose(other(INPUTS), result.model(INPUTS), atol=1e-2)
    if step["use"] == "quantize.weight_only":
        assert torch.equal(other[4].weight, result.model[4].weight)


def test_sparse_layers_are_written_whole(tmp_path):
    prune = {"use": "prune.magnitude", "amount": 0.9, "targets": ["4"]}
    result, file = exported(tmp_path, prune, {"use": "deploy.sparse", "min_speedup": 0.0, "targets": ["4"]})
    other = net()
    other.load_state_dict(load_file(file))
    assert torch.allclose(other(INPUTS), result.model(INPUTS), atol=1e-5)


@pytest.mark.parametrize("weights", ["float", "integers"])
def test_integers_in_a_plain_data_graph_are_unpacked_too(tmp_path, weights):
    static = {"use": "quantize.static", "bias_correction": False}
    edges = {"use": "quantize.edges"}
    step = {"use": "export.state_dict", "id": "out", "weights": weights}
    original = net()
    result = demiglace.run(
        {"pass": [static, edges, step]}, model=original, data=[INPUTS], out=tmp_path / "run"
    )
    tensors = load_file(tmp_path / "run" / "steps" / "03-out" / "model.safetensors")
    for name, expected in net().state_dict().items():
        found = tensors[name]
        if "weight" in name and weights == "integers":
            assert found.dtype == torch.int8
            found = found * tensors[f"{name}_scale"].view(-1, *[1] * (found.dim() - 1))
        assert torch.allclose(found, expected, atol=0.01), name
    assert not [name for name in tensors if name.endswith("_codes")]
    assert result.model


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("group", [None, 6])
def test_integers_scales_and_zero_points_give_the_weights(tmp_path, bits, group):
    step = {"use": "quantize.weight_only", "bits": bits}
    step |= {} if group is None else {"group_size": group}
    result, file = exported(tmp_path, step, weights="integers")
    tensors = load_file(file)
    for name in ("0.weight", "2.weight", "4.weight"):
        layer = result.model.get_submodule(name[0])
        weight, integers = layer.weight, tensors[name]
        assert integers.dtype == torch.int8
        assert integers.shape == weight.shape
        rows = integers.flatten(1).float()
        scale, zero = tensors[f"{name}_scale"], tensors[f"{name}_zero_point"].float()
        groups = rows.unflatten(1, (scale.shape[1], -1))
        expected = weight.flatten(1)
        assert torch.equal(((groups - zero[..., None]) * scale[..., None]).flatten(1), expected)
    assert not [name for name in tensors if name.endswith(("_codes", "_sums"))]


def test_biases_and_ranges_of_inputs_stay_beside_integers(tmp_path):
    _, file = exported(tmp_path, {"use": "quantize.dynamic"}, weights="integers")
    with safe_open(file, "pt") as opened:
        names = set(opened.keys())
    weights = {f"{at}.weight{part}" for at in (0, 2, 4) for part in ("", "_scale", "_zero_point")}
    assert names == weights | {"0.bias", "2.bias", "4.bias"}


def test_a_model_without_integers_says_so(tmp_path):
    with pytest.raises(demiglace.DemiglaceError, match="no weight of the model is an integer"):
        exported(tmp_path, weights="integers")
    assert not list((tmp_path / "run" / "steps").rglob("*.safetensors"))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import errno

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("demiglace.artifact.write_tensors", full)
    with pytest.raises(demiglace.DemiglaceError, match="No space left"):
        exported(tmp_path)
    assert not [one for one in (tmp_path / "run" / "steps").rglob("*") if one.is_file()]
