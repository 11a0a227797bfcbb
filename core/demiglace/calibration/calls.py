"""When a forward pass calls which module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from demiglace.calibration.undisturbed import undisturbed
from demiglace.calibration.watch import run_batch
from demiglace.data import Batch
from demiglace.recipe.selectors import ROOT

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Calls:
    """The calls of a model's modules in one forward pass."""

    #: By qualified name, when each call begins and ends; all these times differ.
    times: Mapping[str, list[tuple[int, int]]]

    @classmethod
    def of(cls, module: nn.Module, batch: Batch) -> Calls:
        """Run a batch and look. The module is as before afterwards."""
        clock, open_calls = count(), list[int]()
        times: dict[nn.Module, list[tuple[int, int]]] = {}

        def begin(_: nn.Module, __: Any) -> None:
            open_calls.append(next(clock))

        def end(called: nn.Module, _: Any, __: Any) -> None:
            times.setdefault(called, []).append((open_calls.pop(), next(clock)))

        with ExitStack() as stack, undisturbed(module):
            for each in module.modules():
                stack.callback(each.register_forward_pre_hook(begin).remove)
                stack.callback(each.register_forward_hook(end).remove)
            run_batch(module, batch)
        named = module.named_modules(remove_duplicate=False)
        return cls({name or ROOT: times[each] for name, each in named if each in times})

    def number(self, names: Collection[str]) -> int:
        """How many calls these modules get together."""
        return sum(len(self.times.get(name, ())) for name in names)

    def behind(self, names: Collection[str]) -> list[str]:
        """The outermost modules that are called once, and are done when the first of these is called.

        They are in the order of their calls.
        """
        first = min((self._begin(name) for name in names if name in self.times), default=0)
        done = [each for each, calls in self.times.items() if len(calls) == 1 and self.end(each) < first]
        outermost: list[str] = []
        for each in sorted(done, key=self._begin):
            if not outermost or self._begin(each) > self.end(outermost[-1]):
                outermost.append(each)
        return outermost

    def after(self, name: str) -> list[str]:
        """The modules whose first call begins when a module's is done."""
        return [each for each in self.times if self._begin(each) > self.end(name)]

    def end(self, name: str) -> int:
        """When a module's first call ends."""
        return self.times[name][0][1]

    def _begin(self, name: str) -> int:
        return self.times[name][0][0]
