"""Running a module at inference without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from demiglace.graph.eval_mode import eval_mode


@contextmanager
def undisturbed(
    module: nn.Module, device: torch.device | None = None, *, gradients: bool = False
) -> Iterator[None]:
    """Eval mode; modes, buffers and random state are given back at the end, and no gradient is kept.

    Buffers are copied, because observers and careless layers write into theirs in eval mode too.

    Args:
        module: the module that will run.
        device: where it runs, for its random state.
        gradients: whether autograd records.
    """
    buffers = [(one, one.detach().clone()) for one in module.buffers()]
    devices = [device] if device is not None and device.type != "cpu" else []
    kind = devices[0].type if devices else "cuda"
    with (
        eval_mode(module),
        torch.random.fork_rng(devices=devices, device_type=kind),
        torch.set_grad_enabled(gradients),
    ):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


@contextmanager
def differentiable(parameters: Iterable[Tensor], module: nn.Module | None = None) -> Iterator[None]:
    """Let autograd see these parameters, frozen ones too; all are as before at the end.

    Args:
        parameters: whose gradients, or those of what they give, are wanted.
        module: whose other parameters are frozen meanwhile, so that no inputs of layers are kept for
            gradients that nobody wants.
    """
    wanted = {id(one): one for one in parameters}
    others = [] if module is None else [one for one in module.parameters() if id(one) not in wanted]
    changed = [one for one in wanted.values() if not one.requires_grad]
    changed += [one for one in others if one.requires_grad]
    for one in changed:
        one.requires_grad_(not one.requires_grad)
    try:
        yield
    finally:
        for one in changed:
            one.requires_grad_(not one.requires_grad)
