"""Image files as tensors, and what pins a folder of files down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demiglace.errors import SourceError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class ImageFiles:
    """A map-style data set of image files: images uint8 `[c, h, w]` (1 channel or 3) and class indices."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return decoded(self.files[index]), self.labels[index]


def decoded(file: Path) -> Tensor:
    """An image file as uint8 `[c, h, w]`.

    Raises:
        SourceError: naming a file that is no image, is damaged, or has more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image_tensor(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(
            f"{file} is not a readable image: {error}", hint="repair or remove the file"
        ) from error


def image_tensor(image: Image) -> Tensor:
    """A PIL image as uint8 `[1, h, w]` if it is grey or black and white, else as RGB `[3, h, w]`."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode {image.mode} has more than 8 bits a channel")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    tensor: Tensor = pil_to_tensor(image.convert(mode))
    return tensor


def listing_digest(folder: Path, files: Iterable[Path]) -> str:
    """A digest of the files' names in the folder, sizes and times of change; contents are not read."""
    digest = hashlib.sha256()
    for file in sorted(files):
        stat = file.stat()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
