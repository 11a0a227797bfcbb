"""What every editor must hold to, as a test class to subclass."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from demiglace.data import Data
from demiglace.errors import UsageError
from demiglace.graph import Edit, Example, ModelGraph, apply_verified
from demiglace.measure import measure
from demiglace.passes import Config, Context, Editor, PassSpec
from demiglace.plugins.options import options_of
from demiglace.testing.fresh import imports_torch, reopened


class EditorConformance:
    """Tests that every editor must pass; pytest collects them from a subclass.

        class TestRound(EditorConformance):
            spec = acme_passes.SPEC
            config = acme_passes.RoundConfig(step=0.01)

    Override `module` where the default network has nothing for the pass to do, and `model` where the pass
    needs one that another pass has worked on.
    """

    #: The pass under test.
    spec: ClassVar[PassSpec]
    #: Options with which it changes the model.
    config: ClassVar[Config]
    #: The shape of one input of `module`, without the batch.
    input_shape: ClassVar[tuple[int, ...]] = (4, 8, 8)

    @staticmethod
    def module() -> nn.Module:
        """The network to work on. A fresh process must be able to import and call this function."""
        return nn.Sequential(
            nn.Conv2d(4, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 12),
        )

    def model(self) -> ModelGraph:
        """The model that the pass gets, the same at each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ModelGraph(self.module().eval(), Example((self.inputs(),)))

    def inputs(self) -> torch.Tensor:
        """Four inputs of the network, the same at each call."""
        return torch.randn(4, *self.input_shape, generator=torch.Generator().manual_seed(1))

    def context(self) -> Context:
        """What the pass sees besides the model."""
        return Context(seed=0, device=torch.device("cpu"), data=Data.of([self.inputs()]))

    def editor(self) -> Editor[Any]:
        """The pass under test, imported as the engine does."""
        from pkgutil import resolve_name

        return resolve_name(self.spec.implementation)(self.config)

    def edited(self) -> tuple[ModelGraph, Context]:
        """A model that the pass has changed, and what it reported."""
        model, context = self.model(), self.context()
        transaction, _ = apply_verified(model, list(self.editor().edits(model, context)))
        transaction.commit()
        return model, context

    def test_every_option_says_what_it_means(self) -> None:
        expect(bool(self.spec.config.summary()), f"{self.spec.config.__name__} has no docstring")
        for option in options_of(self.spec.config):
            expect(bool(option.meaning), f"option {option.name!r} has no docstring")

    def test_every_number_has_a_bound(self) -> None:
        for option in options_of(self.spec.config):
            number = "number" in option.type or "integer" in option.type
            expect(not number or bool(option.range), f"option {option.name!r} is a number without bounds")

    def test_the_example_is_valid(self) -> None:
        [table] = tomllib.loads(self.spec.example)["pass"]
        expect(table.pop("use") == self.spec.name, "the example shows another pass")
        self.spec.config.model_validate(table)

    def test_the_plan_has_words_for_it(self) -> None:
        expect(len(self.config.words()) > 0, "words() is empty")

    def test_its_options_are_known_without_torch(self) -> None:
        module = self.spec.config.__module__
        expect(not imports_torch(module), f"importing {module} imports torch")

    def test_it_changes_something(self) -> None:
        model, context = self.model(), self.context()
        expect(bool(list(self.editor().edits(model, context))), f"no edits; left alone: {context.left_alone}")

    def test_the_same_seed_gives_the_same_edits(self) -> None:
        def edits(global_seed: int) -> list[Edit]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(global_seed)
                return list(self.editor().edits(self.model(), self.context()))

        first, second = edits(1), edits(2)
        expect(len(first) == len(second), "the number of edits differs from run to run")
        for one, other in zip(first, second, strict=True):
            expect(same(one, other), f"the edits differ from run to run: {one} and {other}")

    def test_making_edits_leaves_the_model_and_the_random_numbers_alone(self) -> None:
        model, untouched = self.model(), self.model()
        state = torch.get_rng_state()
        list(self.editor().edits(model, self.context()))
        expect(torch.equal(state, torch.get_rng_state()), "edits() draws global random numbers")
        expect(model.edits == untouched.edits, "edits() applied structural edits itself")
        expect(same(model.masks, untouched.masks), "edits() changed the masks itself")
        before, after = untouched.module.state_dict(), model.module.state_dict()
        expect(same(before, after), "edits() changed the model's tensors itself")

    def test_an_amount_of_zero_changes_nothing_or_is_refused(self) -> None:
        if "amount" not in self.spec.config.model_fields:
            return
        try:
            edits = list(self.editor().edits(self.model(), self.context(), amount=0.0))
        except UsageError:  # it cannot work gradually, and says so
            return
        expect(not edits, f"amount 0 made {len(edits)} edits")

    def test_its_contract_is_true(self) -> None:
        contract, (model, _) = self.config.contract(), self.edited()
        had = bool(self.model().masks)
        gives, destroys = "weights.masked" in contract.gives, "weights.masked" in contract.destroys
        expect(not gives or bool(model.masks), "it gives weights.masked, but there is no mask")
        expect(not destroys or not model.masks, "it destroys weights.masked, but there is a mask")
        expect(gives or had or not model.masks, "it masks weights, but does not give weights.masked")

    def test_what_it_promises_is_measured(self) -> None:
        model, context = self.edited()
        footprint = measure(model, model.example)
        for asked in context.asked:
            found = getattr(footprint.over(asked.over) if asked.over else footprint, asked.figure)
            expect(
                abs(found - asked.value) <= asked.tolerance,
                f"promised {asked.figure} = {asked.value}, measured {found}",
            )

    def test_its_model_opens_in_a_fresh_process(self, tmp_path: Path) -> None:
        model, _ = self.edited()
        expected = model.module(self.inputs())
        outputs, masks = reopened(self.module, model, self.inputs(), tmp_path)
        expect(
            torch.equal(outputs, expected),
            f"the reopened model differs by up to {(outputs - expected).abs().max():.3g}",
        )
        expect(same(masks, model.masks), "the reopened model has other masks")


def expect(condition: bool, message: str) -> None:
    """An assertion with its message, in a file whose asserts pytest does not rewrite."""
    if not condition:
        raise AssertionError(message)


def same(one: object, other: object) -> bool:
    """Whether two edits, or containers of tensors, are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and same(_pairs(one.items()), _pairs(other.items()))
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in fields(one)  # type: ignore[arg-type]
        )
    return one == other


def _pairs(items: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    return sorted(items, key=lambda pair: pair[0])
