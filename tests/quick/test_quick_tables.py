"""What MODEL and DATA may be."""

import pytest

from demiglace.errors import UsageError
from demiglace.plugins import discover
from demiglace.quick import data_table, model_table

REGISTRY = discover()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "lenet").mkdir()
    (tmp_path / "digits.npz").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("net.py:make_net", {"use": "python", "path": "net.py", "factory": "make_net"}),
        ("C:nets/net.py:Net", {"use": "python", "path": "C:nets/net.py", "factory": "Net"}),
        ("lenet", {"use": "lenet"}),
        ("./lenet", {"use": "artifact", "path": "./lenet"}),
        ("runs", {"use": "artifact", "path": "runs"}),
        ("torchvision:resnet18", {"use": "torchvision", "name": "resnet18"}),
        ("mlp:[784, 10]", {"use": "mlp", "widths": [784, 10]}),
    ],
)
def test_a_model(text, table):
    assert model_table(text, REGISTRY) == table


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("mnist5k", {"use": "mnist5k"}),
        ("digits.npz", {"use": "npz", "path": "digits.npz"}),
        ("runs", {"use": "folder", "path": "runs"}),
        ("folder:runs", {"use": "folder", "path": "runs"}),
        ("torchvision:MNIST", {"use": "torchvision", "name": "MNIST"}),
    ],
)
def test_data(text, table):
    assert data_table(text, REGISTRY) == table


@pytest.mark.parametrize(
    ("call", "text", "message"),
    [
        (model_table, "lent", "lenet"),
        (model_table, "net.py", "net.py:make_net"),
        (model_table, "absent/run", "neither a source of model nor a file"),
        (data_table, "mnist", "mnist5k"),
        (data_table, "absent.csv", "neither a source of data nor a file"),
    ],
)
def test_what_is_neither_is_told(call, text, message):
    with pytest.raises(UsageError, match=message):
        call(text, REGISTRY)
