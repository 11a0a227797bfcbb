"""Exactly the k smallest magnitudes over any number of tensors, without a copy of them.

The magnitude bits of a float, read as an integer, grow with the magnitude. A radix selection over these
integers finds the k-th smallest one digit at a time: a histogram of the leading digit over all tensors
tells the digit of the k-th, the next pass looks only at the weights that share it. A 32-bit float takes
two passes, a 16-bit one one. Memory beyond the result is one chunk and one histogram.

Of many weights a sample tells first between which two magnitudes the k-th lies (Floyd & Rivest 1975): one
pass then masks those below and picks the few between. Where the sample was wrong, the digits decide.

Weights that a mask holds already count as zeros, whatever their value, so they are the smallest of all.
They are counted from the mask, so the sample is of the others alone and leaves fewer to pick from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Keeps = Sequence["Tensor | None"]

_CHUNK = 1 << 17  # elements at a time: a few of these fit into a processor's cache
_DIGIT = 16  # bits
_SAMPLE = 1 << 14  # elements that stand for all
_DEVIATIONS = 4  # standard deviations of a rank in the sample that the sample may be wrong by


def keep_largest(tensors: Sequence[Tensor], remove: int, keeps: Keeps | None = None) -> list[Tensor]:
    """Boolean masks, `True` where kept, that remove exactly the `remove` smallest magnitudes of all.

    Of equal magnitudes those that come first are removed first: by tensor, then by index in the tensor.

    Args:
        tensors: floating-point tensors of any shape and device, without NaN. Of mixed dtypes, they are
            compared in the dtype that holds them all.
        remove: how many elements to remove, from 0 to all.
        keeps: a boolean mask for each tensor, or `None` for one without: what it removes is removed first.

    Raises:
        ValueError: when `remove` is out of range.
    """
    return _removing(_Keys.of(tensors, keeps), remove)[0]


def mask_smallest(
    tensors: Sequence[Tensor], remove: int, keeps: Keeps | None = None
) -> tuple[list[Tensor], int]:
    """The masks of `keep_largest`, and how many elements are zero under them, by value or by mask.

    That is `remove`, unless more were zero before; only then are they counted. For the arguments see
    `keep_largest`.

    Raises:
        ValueError: when `remove` is out of range.
    """
    keys = _Keys.of(tensors, keeps)
    masks, threshold = _removing(keys, remove)
    # Below a threshold above zero are all zeros, and they are among those removed.
    return masks, remove if threshold > 0 else sum(map(count_zeros, tensors, keys.keeps))


def keep_at_least(tensors: Sequence[Tensor], threshold: float, keeps: Keeps | None = None) -> list[Tensor]:
    """Boolean masks, `True` where the magnitude is at least `threshold`, a number above 0.

    The threshold is compared in the tensors' common dtype. For the arguments see `keep_largest`.
    """
    import torch

    keys = _Keys.of(tensors, keeps)
    return _masks(keys, int(torch.tensor(threshold, dtype=keys.dtype).view(keys.integer)), 0)


def kth_smallest(tensors: Sequence[Tensor], k: int, keeps: Keeps | None = None) -> Tensor:
    """The k-th smallest magnitude of all tensors, `k` from 0, as a scalar on the CPU in their dtype.

    Raises:
        ValueError: when `k` is not below the number of elements.
    """
    import torch

    keys = _Keys.of(tensors, keeps)
    return torch.tensor(_select(keys, k)[0].key, dtype=keys.integer).view(keys.dtype)


def count_zeros(tensor: Tensor, keep: Tensor | None = None) -> int:
    """How many elements are zero, by value or by mask."""
    parts = _Keys.of([tensor], [keep]).parts(0)
    return tensor.numel() - sum(_count(_reaching(key, kept, 1)) for key, kept in parts)


@dataclass(frozen=True)
class _Keys:
    """The magnitudes of some tensors as integers of the same order, chunk by chunk."""

    tensors: Sequence[Tensor]
    keeps: Keeps
    #: The dtype that all tensors are compared in, and the integer dtype of its width.
    dtype: torch.dtype
    integer: torch.dtype
    rooms: dict[torch.device, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Sequence[Tensor], keeps: Keeps | None) -> _Keys:
        import torch

        dtype = reduce(torch.promote_types, {tensor.dtype for tensor in tensors}, tensors[0].dtype)
        integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        return cls(tensors, keeps or [None] * len(tensors), dtype, integers[dtype.itemsize])

    @property
    def bits(self) -> int:
        """How many bits a magnitude has: all but the sign."""
        return 8 * self.dtype.itemsize - 1

    def chunks(self, index: int) -> Iterator[Tensor]:
        """The keys of one tensor in order of its elements; each chunk lies where the one before lay."""
        for key, kept in self.parts(index):
            yield key if kept is None else key.mul_(kept)

    def parts(self, index: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """As `chunks`, but each key is as without a mask, and the chunk of the mask comes with it."""
        import torch

        tensor, keep = self.tensors[index], self.keeps[index]
        flat = tensor.is_contiguous() and (keep is None or keep.is_contiguous())
        kept = repeat(None) if keep is None else _chunks(keep, flat)
        for part, own in zip(_chunks(tensor, flat), kept, strict=False):
            key = self._room(tensor.device, part.numel())
            torch.bitwise_and(part.to(self.dtype).view(self.integer), (1 << self.bits) - 1, out=key)
            yield key, own

    def _room(self, device: torch.device, size: int) -> Tensor:
        """Memory for one chunk, the same again and again: a fresh one for each would scatter the masks."""
        import torch

        if device not in self.rooms or self.rooms[device].numel() < size:
            self.rooms[device] = torch.empty(max(size, _CHUNK), dtype=self.integer, device=device)
        return self.rooms[device][:size]

    @property
    def total(self) -> int:
        """How many elements there are."""
        return sum(tensor.numel() for tensor in self.tensors)

    @property
    def held(self) -> int:
        """How many elements the masks remove."""
        return sum(keep.numel() - _count(_native(keep)) for keep in self.keeps if keep is not None)

    def sample(self) -> Any:
        """Of about `_SAMPLE` evenly spaced keys those that no mask removes, sorted, as a numpy array."""
        import numpy as np

        step = max(1, self.total // _SAMPLE)
        found = []
        for tensor, keep in zip(self.tensors, self.keeps, strict=True):
            key = tensor.reshape(-1)[::step].to(self.dtype).view(self.integer) & ((1 << self.bits) - 1)
            found.append((key if keep is None else key[keep.reshape(-1)[::step]]).cpu().numpy())
        return np.sort(np.concatenate(found))

    def histogram(self, digit_of: Callable[[Tensor], Tensor], length: int) -> Tensor:
        """How many elements have each digit, shape `[length]`, on the CPU."""
        import torch

        counts = torch.zeros(length, dtype=torch.int64)
        for index in range(len(self.tensors)):
            for key in self.chunks(index):
                counts += torch.bincount(digit_of(key), minlength=length).cpu()
        return counts


def _chunks(tensor: Tensor, flat: bool) -> Iterator[Tensor]:
    """The elements in order, about `_CHUNK` at a time, by whole rows unless `flat`."""
    if flat:
        yield from tensor.view(-1).split(_CHUNK)
        return
    rows = max(1, _CHUNK // max(1, tensor[0].numel()))
    for part in tensor.split(rows):
        yield part.reshape(-1)


def _masks(keys: _Keys, threshold: int, ties: int) -> list[Tensor]:
    """`True` where a key is at least the threshold, but for the first `ties` keys that are equal to it."""
    import torch

    masks = []
    for index, tensor in enumerate(keys.tensors):
        mask = torch.empty(tensor.shape, dtype=torch.bool, device=tensor.device)
        rest = mask.view(-1)
        # What a mask removes is equal to a threshold of zero, and below every other.
        parts = keys.parts(index) if threshold > 0 else zip(keys.chunks(index), repeat(None), strict=False)
        for key, kept in parts:
            part, rest = rest[: key.numel()], rest[key.numel() :]
            flags = _reaching(key, kept, threshold, _native(part))
            if ties > 0:
                equal = _where((_native(key) == threshold) & flags)[:ties]
                part[torch.as_tensor(equal)] = False
                ties -= len(equal)
        masks.append(mask)
    return masks


@dataclass(frozen=True)
class _Found:
    """The key of a rank."""

    key: int
    #: How many keys before it are equal to it, and how many in all.
    before: int
    equal: int


def _removing(keys: _Keys, remove: int) -> tuple[list[Tensor], int]:
    """Masks that remove so many, and a key: those below it go, and perhaps some that are equal to it."""
    if not 0 <= remove <= keys.total:
        raise ValueError(f"cannot remove {remove} of {keys.total} weights")
    if remove == 0:
        return _masks(keys, 0, 0), 0
    found, split = _select(keys, remove - 1)
    ties = found.before + 1
    # Where all that are equal go, none of them has to be looked for.
    threshold, ties = (found.key + 1, 0) if ties == found.equal else (found.key, ties)
    masks = _masks(keys, threshold, ties) if split is None else split.masks_from(threshold, ties)
    return masks, threshold


def _select(keys: _Keys, rank: int) -> tuple[_Found, _Split | None]:
    """The key of a rank, from 0, and what was learnt on the way of all that are smaller."""
    if not 0 <= rank < keys.total:
        raise ValueError(f"no element of rank {rank} among {keys.total}")
    near = _near(keys, rank) if keys.total >= 16 * _SAMPLE else None
    return near or (_by_digits(keys, rank), None)


def _near(keys: _Keys, rank: int) -> tuple[_Found, _Split | None] | None:
    """What `_select` gives, from the keys near the rank alone; `None` where the sample was wrong."""
    import numpy as np

    low, high = _bounds(keys, rank)
    split = _Split.of(keys, low, high)
    if rank < split.below and low == 1:
        return _Found(0, rank, split.below), None
    rank -= split.below
    if not 0 <= rank < len(split.keys):
        return None
    found = np.partition(split.keys, rank)[rank]
    return _Found(int(found), rank - _count(split.keys < found), _count(split.keys == found)), split


@dataclass(frozen=True)
class _Split:
    """All elements by two bounds: which are below, and the few between."""

    #: `True` where a key reaches the lower bound.
    masks: list[Tensor]
    #: How many do not.
    below: int
    #: The keys between, both bounds included, in order, as a numpy array.
    keys: Any
    #: For each mask, where in it these keys lie.
    places: list[Tensor]

    @classmethod
    def of(cls, keys: _Keys, low: int, high: int) -> _Split:
        import torch

        masks, below, between, places = [], 0, [], []
        for index, tensor in enumerate(keys.tensors):
            mask = torch.empty(tensor.shape, dtype=torch.bool, device=tensor.device)
            rest, own, start = mask.view(-1), [], 0
            for key, kept in keys.parts(index):
                flags = _reaching(key, kept, low, _native(rest[start : start + key.numel()]))
                below += key.numel() - _count(flags)
                found = _where((_native(key) <= high) & flags)
                between.append(torch.as_tensor(_native(key)[found]).cpu())
                own.append(torch.as_tensor(found) + start)
                start += key.numel()
            masks.append(mask)
            places.append(torch.cat(own))
        return cls(masks, below, torch.cat(between).numpy(), places)

    def masks_from(self, threshold: int, ties: int) -> list[Tensor]:
        """The masks without the keys between that are below a threshold, and the first that are equal."""
        import torch

        gone = self.keys < threshold
        gone[_where(self.keys == threshold)[:ties]] = True
        parts = torch.as_tensor(gone).split([len(own) for own in self.places])
        for mask, own, lost in zip(self.masks, self.places, parts, strict=True):
            mask.view(-1)[own[lost.to(own.device)]] = False
        return self.masks


def _bounds(keys: _Keys, rank: int) -> tuple[int, int]:
    """Between which two keys, both included and above 0, the rank lies by the sample, unless its key is 0."""
    sample, held = keys.sample(), keys.held
    share = max(0, rank - held) / max(1, keys.total - held)
    middle = share * len(sample)
    margin = 1 + _DEVIATIONS * (middle * (1 - share)) ** 0.5
    # Zeros are many in a pruned network, and all alike: they are counted, never picked.
    low = max(1, int(sample[int(middle - margin)])) if middle > margin else 1
    high = int(sample[int(middle + margin)]) if middle + margin < len(sample) else (1 << keys.bits) - 1
    return low, high


def _reaching(key: Tensor, keep: Tensor | None, bound: int, out: Any = None) -> Any:
    """Which keys reach a bound, as numpy's flags or torch's; what a mask removes reaches none."""
    import numpy as np
    import torch

    library: Any = np if key.device.type == "cpu" else torch
    flags = library.greater_equal(_native(key), bound, out=out)
    if keep is not None:
        flags &= _native(keep)
    return flags


def _native(key: Tensor) -> Any:
    """The same memory for numpy where it can be: on processors it compares several times faster."""
    return key.numpy() if key.device.type == "cpu" else key


def _count(flags: Any) -> int:
    """How many are true, of numpy's or of torch's."""
    import numpy as np

    return int(np.count_nonzero(flags) if isinstance(flags, np.ndarray) else flags.count_nonzero())


def _where(flags: Any) -> Any:
    """The indices of those that are true."""
    import numpy as np

    return np.flatnonzero(flags) if isinstance(flags, np.ndarray) else flags.nonzero().view(-1)


def _by_digits(keys: _Keys, rank: int) -> _Found:
    """What `_select` gives, by a histogram of each digit."""
    prefix, shift, equal = 0, keys.bits, 0
    while shift > 0:
        width = min(_DIGIT, shift)
        shift -= width
        counts = keys.histogram(_digit(prefix, shift, width, first=shift + width == keys.bits), 1 << width)
        upto = counts.cumsum(0)
        digit = int((upto > rank).nonzero()[0])
        equal = int(counts[digit])
        rank -= int(upto[digit]) - equal
        prefix = prefix << width | digit
    return _Found(prefix, rank, equal)


def _digit(prefix: int, shift: int, width: int, *, first: bool) -> Callable[[Tensor], Tensor]:
    """A function from keys to their digit at `shift`, of those keys that start with `prefix`."""
    if first:
        return lambda key: key.bitwise_right_shift_(shift)
    return lambda key: (key[key >> shift + width == prefix] >> shift) & ((1 << width) - 1)
