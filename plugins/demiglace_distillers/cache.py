"""Teacher outputs, remembered by what each example holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demiglace.errors import UsageError

if TYPE_CHECKING:
    from demiglace.data import Batch, Data


class OutputCache:
    """Outputs by a digest of each example's inputs, so that the order of the data does not matter.

    An example that random augmentation changed has another digest and is computed anew: a wrong answer
    cannot come out, but a useless cache can, which is refused: at once where the data's transforms tell,
    else in the second epoch.

    Raises:
        UsageError: when the training split's transforms are random.
    """

    def __init__(self, data: Data | None) -> None:
        split = None if data is None else data.split("train")
        if getattr(getattr(split, "transform", None), "random", False):
            raise UsageError(
                "the transforms of the data are random, so the teacher's outputs cannot be cached",
                hint="set cache = false, or take the random transforms out of [data]",
            )
        self._rows: dict[bytes, Tensor] = {}
        self._found = 0
        self._examples = 0

    def get(self, batch: Batch, compute: Callable[[], Tensor]) -> Tensor:
        """The outputs of a batch, shape `[examples, ...]`, computed where one is not known yet."""
        keys = list(_digests(batch))
        self._examples += len(keys)
        if all(key in self._rows for key in keys):
            self._found += len(keys)
            return torch.stack([self._rows[key] for key in keys])
        outputs = compute()
        self._rows.update(zip(keys, outputs.unbind(0), strict=True))
        return outputs

    def state(self) -> dict[str, Any]:
        """The outputs known so far: computed anew, in other batches, they could differ in the last bit."""
        rows = {"rows": torch.stack(list(self._rows.values()))} if self._rows else {}
        keys = [key.hex() for key in self._rows]
        return {"keys": keys, "found": self._found, "examples": self._examples, **rows}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up what `state` gave."""
        keys = map(bytes.fromhex, state["keys"])
        self._rows = dict(zip(keys, state["rows"].to(device).unbind(0), strict=True)) if state["keys"] else {}
        self._found, self._examples = state["found"], state["examples"]

    def check(self) -> None:
        """Look after the second epoch whether anything was found.

        Raises:
            UsageError: when the examples never come back as they were.
        """
        if self._examples and not self._found:
            raise UsageError(
                "no example came again in the second epoch, so the teacher's outputs cannot be cached",
                hint="set cache = false, or take random augmentation out of the data",
            )


def _digests(batch: Batch) -> Iterator[bytes]:
    """One digest for each example, over all its inputs."""
    arrays = [
        one.detach().cpu().contiguous().view(torch.uint8).numpy()
        for one in batch.inputs()
        if isinstance(one, Tensor)
    ]
    for row in range(len(batch)):
        digest = blake2b(digest_size=16)
        for array in arrays:
            digest.update(array[row])
        yield digest.digest()
