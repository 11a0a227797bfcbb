"""A module whose forward is a file that another runtime runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from demiglace.data import leaves
from demiglace.errors import SourceError, UsageError


class FileModule(nn.Module):
    """Holds an exported file's bytes as buffers, so that footprints and artifacts have them, and runs them.

    The runtime's session is made at the first call, and not copied with the module.
    """

    #: The runtime, for messages.
    runtime = ""

    def __init__(self, files: dict[str, Path], threads: int | None) -> None:
        """Read the files.

        Args:
            files: by the name of the buffer that will hold it.
            threads: that compute; by default as many as torch has when the session is made.

        Raises:
            SourceError: one cannot be read.
        """
        super().__init__()
        self.threads = threads
        self._session: Any = None
        for name, path in files.items():
            self.register_buffer(name, _content(path))

    @abstractmethod
    def start(self, threads: int) -> Any:
        """The runtime's session for the files."""

    @abstractmethod
    def compute(self, session: Any, inputs: Sequence[np.ndarray[Any, Any]]) -> Sequence[Any]:
        """The outputs as arrays."""

    @abstractmethod
    def input_names(self, session: Any) -> Sequence[Collection[str]]:
        """For each input, in order, the names that it has."""

    @abstractmethod
    def input_shape(self) -> list[int | None]:
        """The first input's shape, `None` for what is free."""

    @property
    def session(self) -> Any:
        """The runtime's session, made on first use.

        Raises:
            SourceError: the runtime does not take the file.
        """
        if self._session is None:
            try:
                self._session = self.start(self.threads or torch.get_num_threads())
            except Exception as error:
                raise SourceError(
                    f"{self.runtime} cannot open the file: {_first_line(error)}",
                    hint="export it again with the version of the runtime that is installed",
                ) from error
        return self._session

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The file's outputs: one tensor, or a tuple of them, on the CPU.

        A file takes tensors one by one that the model took in containers.
        """
        session, first = self.session, tuple(leaves(args))
        given = (*first, *self._by_name(session, len(first), kwargs))
        inputs = [one.detach().cpu().contiguous().numpy() for one in given]
        try:
            outputs = [torch.from_numpy(np.array(one)) for one in self.compute(session, inputs)]
        except Exception as error:
            shapes = ", ".join(f"{one.dtype} {list(one.shape)}" for one in inputs)
            raise UsageError(f"{self.runtime} refuses {shapes}: {_first_line(error)}") from error
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _by_name(self, session: Any, first: int, kwargs: Mapping[str, Tensor]) -> list[Tensor]:
        """The inputs from the number `first` on, in their order."""
        named = self.input_names(session)[first:]
        given = [kwargs[name] for names in named for name in names if name in kwargs]
        if not len(named) == len(given) == len(kwargs):
            wanted = ", ".join(min(names) for names in named) or "nothing"
            raise UsageError(f"the file takes {wanted} beside {first} inputs")
        return given

    def content(self, name: str) -> bytes:
        """A file's bytes."""
        return self.get_buffer(name).numpy().tobytes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}


def _content(path: Path) -> Tensor:
    try:
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise SourceError(f"cannot read {path}: {reason}", hint="check the path") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
