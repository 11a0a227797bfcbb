"""Data sets that torchvision reads from files: splits, layouts, and errors for absent or garbled files."""

import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from source_data import sizes, write_images

from demiglace.data import DatasetSplit, TensorSplit, open_data
from demiglace.errors import SourceError
from demiglace_sources.torchvision_data import TorchvisionDataConfig, TorchvisionDataSource


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
