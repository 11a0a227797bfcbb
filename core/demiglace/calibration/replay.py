"""Forward passes over the same batches again and again, each of which begins as late as it can.

Layers are compressed in the order of their calls, and each is looked at on what the compressed layers before
it give. So modules that a pass has behind it give the same in the next one. Which of them all else depends on
is found by trying: it answers with what it gave before, and those before it with hollow tensors, from which
nothing may come that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from demiglace.calibration.calls import Calls
from demiglace.calibration.hollow import Touched, alike, copied, holds_hollow, hollowed, known, size_of
from demiglace.calibration.watch import layer_named, run_batch
from demiglace.data import Batch

if TYPE_CHECKING:
    from torch import nn

_TRIED = 8  # modules at most, the last ones before a layer
_PART = 8  # of the room at most for what a module gives for one batch

_Noted = dict[str, Any]
"""What modules gave, by their names; the elements of some."""


class Replay:
    """What modules answer instead of running again, for each batch.

    Answers are tried out on the first batch, to its outputs, when the second has run: what modules leave for
    others without returning it is the second's by then, and is found out.

    Args:
        module: the model. Between walks over the batches, layers that these aimed at so far may be swapped.
        calls: of a forward pass through it.
        room: bytes that answers may take together; batches that find none are run from the beginning.
    """

    def __init__(self, module: nn.Module, calls: Calls, room: int) -> None:
        self.module, self._calls, self._room = module, calls, room
        #: Whether a pass must go on to the model's outputs.
        self.to_the_end = False
        #: Whether a pass only tries answers out: collectors should not see it.
        self.trying = False
        self._answers: dict[int, _Noted] = {}
        #: Behind which module passes begin, and will begin after the next `aim`.
        self._now: str | None = None
        self._next: str | None = None
        self._behind: list[str] = []
        self._candidates: list[str] = []
        self._first: tuple[Batch, Any, _Noted] | None = None

    def aim(self, layers: Collection[str]) -> int:
        """Go on to layers that come later than those before; how many calls they get in a pass."""
        self._now, self._behind = self._next, self._calls.behind(layers)
        done = -1 if self._now is None else self._calls.end(self._now)
        later = [name for name in reversed(self._behind) if self._calls.end(name) > done]
        self._candidates, self._first = later[:_TRIED], None
        return self._calls.number(layers)

    def run(self, number: int, batch: Batch, run: Callable[[Batch], Any]) -> Any:
        """Let modules answer while a batch runs, and note what they will answer after the next `aim`.

        Where the model meets hollow tensors it may fail by `Touched` or by an error of its own: `forget` the
        batch's answers then, and run it again.

        Args:
            number: of the batch, from 0 on in each walk over all.
            batch: what to run.
            run: runs it; what it returns is returned.
        """
        changes = [self._next] if self._next not in (None, self._now) else []
        whole = self._candidates if number < 2 else changes
        names = self._until(whole[0]) if whole else []
        self.to_the_end = number == 0 and bool(whole)
        with self._answering(self._answers.get(number, {})), self._noting(names, whole) as noted:
            outputs = run(batch)
        if self.to_the_end:
            self._first = batch, outputs, noted
        elif self._first is not None:
            self._choose(*self._first, noted)
            self._first = None
        elif whole:
            self._keep(number, noted)
        return outputs

    def forget(self, number: int) -> bool:
        """Run a batch from the beginning; whether it was not run so before."""
        return self._answers.pop(number, None) is not None

    def _choose(self, batch: Batch, outputs: Any, first: _Noted, second: _Noted) -> None:
        """Find out from where passes can begin after the next `aim`."""
        for name in self._candidates:
            answers = self._made(first, name)
            if answers is not None and self._suffices(name, answers, batch, outputs):
                self._next = name
                self._keep(0, first)
                self._keep(1, second)
                return

    def _until(self, name: str) -> list[str]:
        """The modules behind that end no later than one of them."""
        return self._behind[: self._behind.index(name) + 1]

    def _suffices(self, name: str, answers: _Noted, batch: Batch, outputs: Any) -> bool:
        """Whether the model gives the same when modules up to one answer."""
        self.trying = True
        try:
            with self._answering(answers), self._refusing(self._calls.after(name)):
                found = run_batch(self.module, batch)
        except (Touched, Exception):  # a model's code may fail in its own ways without elements
            return False
        finally:
            self.trying = False
        return alike(found, outputs)

    def _keep(self, number: int, noted: _Noted) -> None:
        """Let a batch begin behind the module that was chosen, if there is room."""
        self.forget(number)
        answers = self._made(noted, self._next)
        if answers is not None:
            taken = sum(size_of(each) for each in self._answers.values())
            if taken + size_of(answers) <= self._room:
                self._answers[number] = answers

    def _made(self, noted: _Noted, whole: str | None) -> _Noted | None:
        """Answers, one with elements; `None` where it has none, or outputs are of an unknown class."""
        if whole is None or not size_of(noted.get(whole)):
            return None
        names = self._until(whole)
        if not all(name in noted and known(noted[name]) for name in names):
            return None
        return {name: noted[name] if name == whole else hollowed(noted[name]) for name in names}

    @contextmanager
    def _answering(self, answers: Mapping[str, Any]) -> Iterator[None]:
        with ExitStack() as stack:
            if answers:
                stack.enter_context(_nothing_hollow_left(self.module))
            for name, answer in answers.items():
                stack.enter_context(_answering(layer_named(self.module, name), answer))
            yield

    @contextmanager
    def _refusing(self, names: Iterable[str]) -> Iterator[None]:
        """End a pass at once where something hollow has reached modules that come later."""

        def refuse(_: nn.Module, args: Any, kwargs: Any) -> None:
            if holds_hollow((args, kwargs)):
                raise Touched

        with ExitStack() as stack:
            for name in names:
                layer = layer_named(self.module, name)
                stack.callback(layer.register_forward_pre_hook(refuse, with_kwargs=True).remove)
            yield

    @contextmanager
    def _noting(self, names: Iterable[str], whole: Collection[str]) -> Iterator[_Noted]:
        """What modules give; of some, the elements too, where they are few enough."""
        noted: _Noted = {}

        def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
            small = name in whole and _PART * size_of(output) <= self._room
            noted[name] = copied(output) if small else hollowed(output)

        with ExitStack() as stack:
            for name in names:
                layer = layer_named(self.module, name)
                stack.callback(layer.register_forward_hook(partial(note, name)).remove)
            yield noted


@contextmanager
def _answering(module: nn.Module, answer: Any) -> Iterator[None]:
    """Let a module give an answer, a fresh copy for each call, instead of running."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = lambda *_, **__: copied(answer)
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


@contextmanager
def _nothing_hollow_left(module: nn.Module) -> Iterator[None]:
    """Put attributes back in which a forward keeps something hollow: nobody could copy such a model."""
    before = [(each, dict(vars(each))) for each in module.modules()]
    try:
        yield
    finally:
        for each, attributes in before:
            for name, value in list(vars(each).items()):
                if value is attributes.get(name) or not holds_hollow(value):
                    continue
                del vars(each)[name]
                if name in attributes:
                    vars(each)[name] = attributes[name]
