"""`folder`: images in one directory per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from demiglace.data import DatasetSplit, Split
from demiglace.errors import SourceError
from demiglace.passes import DataSource
from demiglace_sources.images import ImageFiles, listing_digest
from demiglace_sources.shares import SplitShares, completed

SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "calibration": ("calibration",),
    "test": ("test",),
}
"""Names of directories that hold a split."""
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class FolderConfig(SplitShares):
    """Images in one directory per class, below `train`, `validation` and `test` or directly below `path`."""

    path: Annotated[str, Field(min_length=1)]
    """Directory, relative to where demiglace is started: `path/train/cat/1.png`, or `path/cat/1.png`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images; 0 decodes in the process of the run."""

    def words(self) -> str:
        return f"images in {self.path}"


class FolderSource(DataSource[FolderConfig]):
    """Images uint8 `[c, h, w]` as stored, grey ones with one channel; labels index the sorted class names.

    Images of different sizes need a `Resize` in `[data] transform`.
    """

    def __init__(self, config: FolderConfig) -> None:
        super().__init__(config)
        self.root = Path(config.path)

    def splits(self) -> Mapping[str, Split]:
        folders = self._folders()
        classes = _directories(folders["train"])
        found: dict[str, DatasetSplit] = {}
        for name, folder in folders.items():
            files, labels = _labelled(folder, [directory.name for directory in classes])
            dataset: Any = ImageFiles(files, labels)
            found[name] = DatasetSplit(dataset, self.config.workers)
        return completed(found, self.config)

    def fingerprint(self) -> str:
        """Names, sizes and times of change of all images and the shares of the splits."""
        folders = self._folders().values()
        digest = listing_digest(self.root, (file for folder in folders for file in _images(folder)))
        return f"folder:{digest}:{self.config.validation}:{self.config.test}"

    def _folders(self) -> dict[str, Path]:
        """The directory of each split; without a `train` directory everything is `train`."""
        if not self.root.is_dir():
            raise SourceError(
                f"folder: there is no directory {self.root}",
                hint="`path` is relative to where demiglace is started; put one directory per class into it",
            )
        folders = {
            name: self.root / own
            for name, owns in SPLIT_FOLDERS.items()
            for own in owns
            if (self.root / own).is_dir()
        }
        return folders if "train" in folders else {"train": self.root}


def _labelled(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """All images of a split with the indices of their classes."""
    files: list[Path] = []
    labels: list[int] = []
    for directory in _directories(folder):
        if directory.name not in classes:
            raise SourceError(
                f"folder: {directory} is a class that the training images lack",
                hint=f"their classes are {', '.join(classes[:12])}",
            )
        images = _images(directory)
        if not images:
            raise SourceError(
                f"folder: {directory} holds no image", hint=f"images end in {', '.join(sorted(SUFFIXES))}"
            )
        files += images
        labels += [classes.index(directory.name)] * len(images)
    if not files:
        raise SourceError(
            f"folder: {folder} holds no directory of a class", hint="put images into path/CLASS/"
        )
    return files, labels


def _directories(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
