"""Folders of images: splits, labels, and errors for files that are no images."""

import numpy as np
import pytest
import torch
from PIL import Image
from source_data import promised, sizes, write_images

from demiglace.data import open_data
from demiglace.errors import SourceError
from demiglace_sources.folder import FolderConfig, FolderSource


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
