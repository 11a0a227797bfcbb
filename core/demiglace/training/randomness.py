"""Every source of random numbers that a training draws from, so that it can be taken up in the middle."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from demiglace.training.processes import Processes


class Randomness:
    """The states of torch's generators, of the data's, and of Python's and numpy's, one set per process.

    Args:
        own: generators of the training by their names in a checkpoint.
        device: where the model computes.
        processes: those that train together; each has states of its own.
    """

    def __init__(
        self, own: Mapping[str, torch.Generator], device: torch.device, processes: Processes
    ) -> None:
        self._own, self._processes = own, processes
        self._device = None if device.type == "cpu" else torch.get_device_module(device)

    def state_dict(self) -> dict[str, Any]:
        """The states of all processes; every process must call it."""
        state: dict[str, Any] = {name: one.get_state() for name, one in self._own.items()}
        state |= {"torch": torch.get_rng_state(), "python": random.getstate()}
        if self._device is not None:
            state["device"] = self._device.get_rng_state()
        if "numpy" in sys.modules:
            kind, keys, *rest = sys.modules["numpy"].random.get_state()
            state["numpy"] = [kind, keys.tolist(), *rest]
        return {"processes": self._processes.every(state)}

    def load_state_dict(self, whole: Mapping[str, Any]) -> None:
        """Take up this process's states."""
        state = whole["processes"][self._processes.rank]
        for name, one in self._own.items():
            one.set_state(state[name])
        torch.set_rng_state(state["torch"])
        random.setstate(state["python"])
        if self._device is not None:
            self._device.set_rng_state(state["device"])
        if "numpy" in state and "numpy" in sys.modules:
            sys.modules["numpy"].random.set_state(tuple(state["numpy"]))
