"""Files of NumPy arrays: splits, layouts, and errors for arrays that do not fit."""

import io

import numpy as np
import pytest
import torch
from source_data import sizes

from demiglace.data import open_data
from demiglace.errors import SourceError
from demiglace_sources.npz import NpzConfig, NpzSource


def npz(tmp_path, options=None, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return NpzSource(NpzConfig(path=str(path), **(options or {})))


def test_npz_arrays_become_splits(tmp_path):
    x = np.arange(20 * 4, dtype=np.float64).reshape(20, 4)
    source = npz(
        tmp_path, x_train=x, y_train=np.arange(20), x_test=x[:5], y_test=np.arange(5, dtype=np.uint8)
    )
    assert sizes(source) == {"train": 18, "validation": 2, "test": 5}
    test = source.splits()["test"]
    assert (test.inputs.dtype, test.labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(test.inputs, torch.from_numpy(x[:5]).float())


def test_x_and_y_alone_are_split_and_no_example_is_lost_or_twice(tmp_path):
    parts = npz(tmp_path, x=np.arange(50)[:, None], y=np.arange(50) % 3).splits()
    seen = torch.cat([split.inputs[:, 0] for split in parts.values()])
    assert seen.sort().values.tolist() == list(range(50))
    assert all(torch.equal(split.labels, split.inputs[:, 0] % 3) for split in parts.values())


@pytest.mark.parametrize(("layout", "shape"), [("nhw", (9, 4, 3)), ("nhwc", (9, 4, 3, 1))])
def test_npz_images_get_their_channels_first(tmp_path, layout, shape):
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    options = {"layout": layout, "test": 0.0, "validation": 0.0}
    data = open_data(npz(tmp_path, options, x=x, y=np.zeros(9, dtype=int)))
    batch = next(data.evaluate("train"))
    assert batch.args[0].shape == (9, 1, 4, 3)
    assert batch.args[0].dtype == torch.float32


X, Y = np.ones((6, 2), dtype=np.float32), np.arange(6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X}, "no y_train"),
        ({"x_train": X, "y_train": Y[:5]}, "6 examples in x_train, 5 in y_train"),
        ({"x_test": X, "y_test": Y}, "no training examples"),
        ({"x_train": X, "y_train": Y, "x_tset": X}, "x_test"),
        ({"x": X, "y": Y.astype(float)}, "labels are integers"),
        (
            {"x": X * np.array([1, np.nan], dtype=np.float32), "y": Y},
            "NaN or infinity in 6 examples of x, the first at index 0",
        ),
        ({"x": X.astype(str), "y": Y}, "store floats or integers"),
        ({"x": X.astype(object), "y": Y}, "not a NumPy archive of plain arrays"),
        ({"x": np.float32(1), "y": Y}, "single number"),
        ({"x": X[:1], "y": Y[:1]}, "too few"),
        ({"x": X[:0], "y": Y[:0]}, "too few"),
    ],
)
def test_npz_says_what_is_wrong_with_its_arrays(tmp_path, arrays, message):
    with pytest.raises(SourceError) as caught:
        npz(tmp_path, **arrays).splits()
    assert message in str(caught.value)


def test_npz_of_another_shape_than_its_layout_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"shape \(6, 2\), which is not nhwc"):
        npz(tmp_path, {"layout": "nhwc"}, x=X, y=Y).splits()


def array_file():
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off", array_file()])
def test_a_file_that_is_no_archive_is_an_error_of_the_source(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"data\.npz is not a NumPy archive"):
        NpzSource(NpzConfig(path=str(path))).splits()


def test_an_absent_npz_file_is_named(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        NpzSource(NpzConfig(path=str(tmp_path / "absent.npz"))).fingerprint()
