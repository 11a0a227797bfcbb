"""Model sources: structures, names of layers, errors that say what to do."""

import os
import py_compile
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from demiglace.errors import SourceError, UsageError
from demiglace.passes import allowing_code
from demiglace_sources.lenet import LenetConfig, LenetSource
from demiglace_sources.mlp import MlpConfig, MlpSource
from demiglace_sources.python_code import PythonConfig, PythonSource
from demiglace_sources.torchvision_models import TorchvisionModelConfig, TorchvisionModelSource


def vision(**options):
    return TorchvisionModelSource(TorchvisionModelConfig(**options))


def python(path, **options):
    return PythonSource(PythonConfig(path=str(path), **options))


def test_mlp_takes_images_and_names_its_layers():
    model = MlpSource(MlpConfig(widths=[784, 256, 128, 10], activation="GELU")).build()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert names == ["fc1", "fc2", "fc3"]
    assert [type(model.act1), type(model.act2)] == [nn.GELU, nn.GELU]
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_mlp_ends_in_a_linear_layer_even_without_a_hidden_one():
    assert list(dict(MlpSource(MlpConfig(widths=[4, 2])).build().named_children())) == ["flatten", "fc1"]


@pytest.mark.parametrize(
    "options", [{"widths": [3]}, {"widths": [3, 0]}, {"widths": [3, 2], "activation": "Relu"}]
)
def test_mlp_refuses_what_is_no_network(options):
    with pytest.raises(ValidationError):
        MlpConfig(**options)


def test_lenet5_is_the_network_of_the_literature():
    source = LenetSource(LenetConfig())
    model = source.build()
    assert [name for name, _ in model.named_children() if name[:-1] in ("conv", "fc")] == [
        "conv1",
        "conv2",
        "fc1",
        "fc2",
    ]
    assert sum(parameter.numel() for parameter in model.parameters()) == 431_080
    assert model(torch.rand(2, *source.example_shape())).shape == (2, 10)


def test_lenet_300_100_has_as_many_parameters_as_in_the_literature():
    model = LenetSource(LenetConfig(variant="lenet-300-100")).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 266_610


@pytest.mark.parametrize(
    "source",
    [
        MlpSource(MlpConfig(widths=[784, 30, 10])),
        LenetSource(LenetConfig()),
        vision(name="resnet18", num_classes=7),
        vision(name="deeplabv3_mobilenet_v3_large", num_classes=4),
    ],
    ids=lambda source: type(source).__name__,
)
def test_structures_are_built_on_the_meta_device_without_a_tensor(source):
    module = source.structure()
    assert all(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])


def test_torchvision_builder_options_reach_the_builder():
    model = vision(name="mobilenet_v3_small", num_classes=5, options={"dropout": 0.5}).build()
    assert model.classifier[-1].out_features == 5
    assert model.classifier[2].p == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V9"}, "IMAGENET1K_V1"),
        ({"name": "resnet18", "options": {"depth": 3}}, "depth"),
        ({"name": "resnet18", "options": {"pretrained": True}}, 'weights = "DEFAULT"'),
        (
            {"name": "resnet18", "weights": "DEFAULT", "num_classes": 10},
            "have 1000 classes, not num_classes = 10",
        ),
    ],
)
def test_torchvision_says_what_is_wrong_with_its_options(options, message):
    with pytest.raises(SourceError) as caught:
        vision(**options).build()
    assert message in str(caught.value)


def weights_file(folder, source, state, name):
    """Put a state dict where torch looks for that of the published weights."""
    from torchvision import models

    weights = models.get_model_weights(source.config.name)[name]
    path = folder / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of torch's own, whose files are taken without their checksum and no network behind it."""
    import torchvision.models._api as api

    def from_cache(url, check_hash, **options):
        path = tmp_path / "checkpoints" / url.rpartition("/")[2]
        if not path.exists():
            raise OSError("no network")
        assert options.pop("weights_only")
        return torch.load(path, weights_only=True)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(api, "load_state_dict_from_url", from_cache)
    return tmp_path


def test_published_weights_are_loaded_bit_for_bit(cache):
    source = vision(name="squeezenet1_1", weights="IMAGENET1K_V1")
    other = source.build()
    weights_file(cache, source, other.state_dict(), "IMAGENET1K_V1")
    loaded = source.open().module.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in other.state_dict().items())


def test_published_weights_of_inception_bring_their_input_transform_and_leave_auxiliary_heads_out(cache):
    from torchvision import models

    source = vision(name="googlenet", weights="DEFAULT")
    trained = models.googlenet(weights=None, aux_logits=True, init_weights=False)
    weights_file(cache, source, trained.state_dict(), "IMAGENET1K_V1")
    module = source.open().module
    assert module.transform_input
    assert module.aux1 is None
    assert torch.equal(module.fc.weight, trained.fc.weight)


def test_weights_that_do_not_fit_name_what_differs(cache):
    source = vision(name="squeezenet1_1", weights="DEFAULT")
    state = source.build().state_dict()
    state["odd.weight"] = state.pop("classifier.1.weight")
    weights_file(cache, source, state, "IMAGENET1K_V1")
    with pytest.raises(SourceError, match=r"missing \['classifier.1.weight'\], unknown \['odd.weight'\]"):
        source.open()


def test_without_a_network_the_error_says_where_to_put_the_weights(cache):
    with pytest.raises(SourceError, match=r"without a network, put that file at .*squeezenet1_1"):
        vision(name="squeezenet1_1", weights="DEFAULT").open()


def test_published_weights_are_never_built_with_other_parameters_than_were_trained():
    from torchvision import models

    for name in ("resnet50", "vit_b_16", "vit_l_16", "inception_v3", "efficientnet_b0", "swin_t", "vgg11_bn"):
        for weights in models.get_model_weights(name):
            module = vision(name=name, weights=weights.name, options={}).structure()
            count = sum(parameter.numel() for parameter in module.parameters())
            # Published counts of the Inception family include the auxiliary heads.
            extra = 3_326_696 if name == "inception_v3" else 0
            assert count + extra == weights.meta["num_params"], weights


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (3, 224, 224)),
        ("inception_v3", (3, 299, 299)),
        ("fcn_resnet50", (3, 520, 520)),
        ("r3d_18", None),
    ],
)
def test_torchvision_knows_the_shape_of_an_example(name, shape):
    assert vision(name=name).example_shape() == shape


NET = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Size:
    width: int = 3

def make(width=3):
    return nn.Linear(Size(width).width, 2)

def broken():
    return 1 / 0

def text():
    return "model"
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def test_python_code_runs_only_when_its_file_was_allowed(net, tmp_path):
    source = python(net, factory="make", options={"width": 5})
    with pytest.raises(UsageError, match=f"--allow-code {net}"):
        source.build()
    (tmp_path / "net.py.txt").touch()
    with allowing_code([tmp_path / "other.py", tmp_path / "net.py.txt"]), pytest.raises(UsageError):
        source.build()
    with allowing_code([net]):
        assert source.build().in_features == 5
    with allowing_code([tmp_path]):
        assert source.build().in_features == 5
    with pytest.raises(UsageError):
        source.build()


def test_a_link_does_not_lead_out_of_what_was_allowed(net, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "net.py").symlink_to(net)
    with allowing_code([inside]), pytest.raises(UsageError):
        python(inside / "net.py", factory="make").build()
    with allowing_code([inside / "net.py"]):  # the caller named the link: what it points to is meant
        python(inside / "net.py", factory="make").build()


def test_python_code_comes_from_the_file_and_never_from_a_bytecode_cache(net):
    with allowing_code([net]):
        python(net, factory="make").build()
        assert not (net.parent / "__pycache__").exists()
        time = os.stat(net).st_mtime_ns
        net.write_text(NET.replace("width=3", "width=7"))
        os.utime(net, ns=(time, time))
        py_compile.compile(str(net))  # stands in for a file that somebody planted
        net.write_text(NET)
        os.utime(net, ns=(time, time))
        assert python(net, factory="make").build().in_features == 3


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("mke", "make"),
        ("broken", "net.py:13: ZeroDivisionError"),
        ("text", "gives a str"),
    ],
)
def test_python_code_that_fails_names_its_file_and_line(net, factory, message):
    with allowing_code([net]), pytest.raises(SourceError) as caught:
        python(net, factory=factory).build()
    assert message in str(caught.value)


def test_a_syntax_error_and_an_absent_file_are_errors_of_the_source(net):
    net.write_text("def make(:")
    with allowing_code([net.parent]):
        with pytest.raises(SourceError, match="SyntaxError"):
            python(net, factory="make").build()
        with pytest.raises(SourceError, match="there is no file"):
            python(net.parent / "absent.py", factory="make").build()


def test_names_and_options_of_all_sources_are_known_without_torch():
    code = (
        "import sys, demiglace_sources\n"
        "specs = demiglace_sources.demiglace_sources()\n"
        "assert all(spec.config.model_json_schema()['properties'] for spec in specs)\n"
        "assert all(spec.config.summary() for spec in specs)\n"
        "print([name for name in ('torch', 'torchvision', 'numpy', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_example_of_a_source_is_a_table_that_its_options_accept():
    import tomli

    from demiglace.recipe import DataTable, SourceTable
    from demiglace_sources import demiglace_sources

    for spec in demiglace_sources():
        [(key, options)] = tomli.loads(spec.example).items()
        table = {"model": SourceTable, "data": DataTable}[key].model_validate(options)
        assert table.use == spec.name
        assert "\n" not in spec.config.model_validate(table.options).words()
