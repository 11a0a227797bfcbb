"""`torch.compile` in a training: what it needs here, and a module to train with that follows cuts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch

from demiglace.errors import UsageError
from demiglace.machine import compiler, compiler_hint, compiler_wanted
from demiglace.passes import Problem
from demiglace.recipe.nearest import did_you_mean

if TYPE_CHECKING:
    from torch import nn

INDUCTOR = "inductor"
"""torch's own backend, which writes C++ for processors and for the launchers of GPU kernels."""


def compile_problems(backend: str) -> Iterator[Problem]:
    """What keeps `torch.compile` from working here with a backend of that name."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        yield Problem(f"torch.compile has no backend {backend!r}", ("compile",), did_you_mean(backend, known))
    elif backend == INDUCTOR and compiler() is None:
        yield Problem(
            f"torch.compile needs a C++ compiler, and there is no {compiler_wanted()}",
            ("compile",),
            f"{compiler_hint()}, or set compile = false",
        )


class Compiled:
    """A module with a compiled way to run it, for training only: it has the same parameters and hooks.

    Args:
        module: what runs uncompiled everywhere else.
        backend: a name that `compile_problems` has nothing against.
    """

    def __init__(self, module: nn.Module, backend: str) -> None:
        self._module, self._backend = module, backend
        self.module = self._made()

    def forget(self, module: nn.Module) -> None:
        """Compile anew at the next call: the structure of the module has changed, or it became another.

        Old code would be dropped by its guards; but a schedule of many cuts would soon reach the number of
        recompilations after which torch silently stops to compile.
        """
        torch.compiler.reset()
        self._module = module
        self.module = self._made()

    def _made(self) -> nn.Module:
        return cast("nn.Module", torch.compile(self._module, backend=self._backend))


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the compiler itself fails with into an error that says what to do.

    Raises:
        UsageError: in the place of the compiler's.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"torch.compile failed on this model: {type(error).__name__}: {first}",
            hint='set compile = false, or compile = "aot_eager", which needs no C++ compiler',
        ) from error
