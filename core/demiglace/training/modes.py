"""Running a module without leaving a trace: its modes, its buffers and the random state stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Give every submodule its training flag back at the end."""
    flags = [(one, one.training) for one in module.modules()]
    try:
        yield
    finally:
        for one, training in flags:
            one.training = training


@contextmanager
def forked_rng(device: torch.device | None = None) -> Iterator[None]:
    """Give torch's random state back at the end, that of `device` included."""
    devices = [device] if device is not None and device.type != "cpu" else []
    kind = device.type if devices and device is not None else "cuda"
    with torch.random.fork_rng(devices=devices, device_type=kind):
        yield


@contextmanager
def evaluating(module: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Evaluation mode without gradients; modes, buffers and random state are given back at the end.

    Buffers are copied, because observers and careless layers write into theirs in evaluation mode too.
    """
    buffers = [(one, one.detach().clone()) for one in module.buffers()]
    with kept_modes(module), forked_rng(device), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
