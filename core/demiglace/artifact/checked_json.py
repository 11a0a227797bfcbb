"""JSON files that carry their format, its version and a checksum of themselves. Read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demiglace.artifact.atomic import canonical_json
from demiglace.errors import ArtifactError

DAMAGED = "copy it again from where it came, or run the recipe again"


@dataclass(frozen=True)
class CheckedJson:
    """A kind of file, which names what its folder is."""

    #: The file's name in the folder.
    file: str
    #: What the folder is called in messages, such as `artifact`.
    what: str
    #: What stands in the file under `format` and `version`.
    format: str
    version: int

    def sealed(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content with its format and version before it, and the checksum of all behind."""
        whole = {"format": self.format, "version": self.version, **content}
        return {**whole, "checksum": _checksum(whole)}

    def read(self, folder: Path, missing: str) -> dict[str, Any]:
        """The content of the file in a folder, its checksum tested.

        Args:
            folder: where the file should be.
            missing: the hint where it is not there.

        Raises:
            ArtifactError: when it is missing, damaged, of another format, or of another version.
        """
        content = self._parsed(folder, missing)
        if content.get("version") != self.version:
            raise ArtifactError(
                f"{folder} has format version {content.get('version')}; this demiglace reads version "
                f"{self.version}",
                hint="install the demiglace that wrote it, or a newer one",
            )
        if content.pop("checksum", None) != _checksum(content):
            raise ArtifactError(f"{folder / self.file} is damaged: its checksum differs", hint=DAMAGED)
        return content

    def _parsed(self, folder: Path, missing: str) -> dict[str, Any]:
        path = folder / self.file
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            reason = f"it has no {self.file}" if folder.is_dir() else "there is no such folder"
            raise ArtifactError(f"{folder} is not a demiglace {self.what}: {reason}", hint=missing) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}", hint=DAMAGED) from None
        if not isinstance(content, dict) or content.get("format") != self.format:
            raise ArtifactError(f"{path} is not of a demiglace {self.what}", hint=DAMAGED)
        return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
