"""Distillers in the training loop: right terms, right teachers, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from demiglace.data import Data, IterableSplit, TensorSplit, build_transform
from demiglace.errors import UsageError
from demiglace.graph import Cut, ModelGraph
from demiglace.passes import Config, Context, Participant
from demiglace_distillers.features import Features, FeaturesConfig
from demiglace_distillers.logits import Logits, LogitsConfig, softened_kl
from demiglace_trainers.supervised import Supervised, SupervisedConfig

CPU = torch.device("cpu")


def mlp(width: int = 12, seed: int = 0) -> ModelGraph:
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module("fc1", nn.Linear(6, width))
    model.add_module("act", nn.ReLU())
    model.add_module("fc2", nn.Linear(width, 3))
    return ModelGraph(model)


def unlabelled(teacher: ModelGraph | None = None, batches: int = 5) -> Context:
    inputs = torch.randn(batches * 16, 6, generator=torch.Generator().manual_seed(1))
    data = Data({"train": TensorSplit(inputs)}, batch_size=16)
    return Context(seed=2, device=CPU, data=data, teacher=None if teacher is None else lambda: teacher)


def train(model, context, *participants, **options):
    config = {"epochs": 3, "loss": "none", "optimizer": {"name": "Adam", "lr": 0.02}} | options
    return Supervised(SupervisedConfig.model_validate(config)).train(model, context, participants)["history"]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_term_is_the_definition_written_out(temperature):
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    p = (teacher / temperature).exp() / (teacher / temperature).exp().sum(1, keepdim=True)
    q = (student / temperature).exp() / (student / temperature).exp().sum(1, keepdim=True)
    expected = sum(p[i, c] * math.log(p[i, c] / q[i, c]) for i in range(7) for c in range(5)) / 7
    found = softened_kl(student, teacher, temperature)
    assert found.item() == pytest.approx(temperature**2 * float(expected), rel=1e-4)


def test_the_textbook_distillation_learns_from_noise_alone():
    """The softened KL is nearly quadratic with curvature 1 / classes: 100 steps of 0.1 leave exp(-2)."""
    torch.manual_seed(0)
    teacher, student = ModelGraph(nn.Linear(10, 10)), ModelGraph(nn.Linear(10, 10))
    noise = Data({"train": IterableSplit([torch.randn(32, 10) for _ in range(100)])})
    context = Context(seed=0, device=CPU, data=noise, teacher=lambda: teacher)
    probe = torch.randn(1000, 10)

    def kl() -> float:
        with torch.no_grad():
            return softened_kl(student.module(probe), teacher.module(probe), 2.0).item()

    before = kl()
    distiller = Logits(LogitsConfig(temperature=2.0, alpha=1.0))
    train(student, context, distiller, epochs=None, steps=100, optimizer={"name": "SGD", "lr": 0.1})
    assert kl() < before / 6


def test_alpha_weighs_soft_against_hard_labels():
    teacher, student = mlp(seed=1), mlp(seed=2)
    context = unlabelled(teacher)
    split = context.data.splits["train"]
    split.labels = torch.arange(len(split.inputs)) % 3
    distiller = Logits(LogitsConfig(alpha=0.3, temperature=2.0))
    distiller.id = "soft"
    with torch.no_grad():
        outputs, taught = student.module(split.inputs), teacher.module(split.inputs)
        hard = 0.7 * nn.functional.cross_entropy(outputs, split.labels)
        soft = 0.3 * softened_kl(outputs, taught, 2.0)
    options = {"loss": "cross_entropy", "epochs": 1, "optimizer": {"name": "SGD", "lr": 1e-9}}
    entry = train(student, context, distiller, **options)[0]
    assert entry["loss.task"] == pytest.approx(hard.item(), rel=1e-4)
    assert entry["loss.soft.kl"] == pytest.approx(soft.item(), rel=1e-4)
    assert entry["loss"] == pytest.approx((hard + soft).item(), rel=1e-4)


def test_the_teacher_does_not_change():
    teacher, student = mlp(seed=1), mlp(seed=2)
    teacher.module.act = nn.BatchNorm1d(12)
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    train(student, unlabelled(teacher), Logits(LogitsConfig(alpha=1.0)))
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_self_distillation_learns_from_the_model_as_training_finds_it():
    model = mlp()

    class Damage(Participant[Config]):
        def before_step(self, at):
            if at.step == 0:
                with torch.no_grad():
                    model.module.fc2.weight.zero_()

    original = mlp().module(torch.ones(4, 6)).detach()
    train(model, unlabelled(), Logits(LogitsConfig(alpha=1.0, teacher="start")), Damage(Config()), epochs=40)
    found = model.module(torch.ones(4, 6)).softmax(1)
    assert torch.allclose(found, original.softmax(1), atol=0.1)


@pytest.mark.parametrize("width", [12, 20])
def test_features_come_nearer_with_and_without_a_projection(width):
    history = train(
        mlp(seed=2),
        unlabelled(mlp(width, seed=1)),
        Features(FeaturesConfig(layers={"fc1": "fc1", "fc2": "fc2"})),
        epochs=20,
    )
    assert history[-1]["loss"] < 0.4 * history[0]["loss"]


def test_a_cut_student_goes_on_learning_from_what_it_still_has():
    for width in (12, 20):
        model = mlp(seed=2)

        class Cutter(Participant[Config]):
            def prepare(self, loop):
                self.loop = loop

            def before_step(self, at):
                if at.step == 7:
                    kept = (0, 2, 3, 7)
                    edits = [Cut("fc1.weight", 0, kept), Cut("fc1.bias", 0, kept), Cut("fc2.weight", 1, kept)]
                    self.loop.apply(edits)

        distiller = Features(FeaturesConfig(layers={"fc1": "fc1"}))
        history = train(model, unlabelled(mlp(width, seed=1)), distiller, Cutter(Config()), epochs=20)
        assert model.module.fc1.weight.shape == (4, 6)
        assert history[-1]["loss"] < history[2]["loss"]


def test_a_cut_student_is_compared_with_the_teachers_same_units():
    model = mlp()

    class Cutter(Participant[Config]):
        def prepare(self, loop):
            kept = (1, 2, 5)
            loop.apply([Cut("fc1.weight", 0, kept), Cut("fc1.bias", 0, kept), Cut("fc2.weight", 1, kept)])

    distiller = Features(FeaturesConfig(layers={"fc1": "fc1"}, teacher="start"))
    options = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 1e-9}}
    history = train(model, unlabelled(), distiller, Cutter(Config()), **options)
    assert history[0]["loss"] == pytest.approx(0.0, abs=1e-12)


class Counted(nn.Module):
    """Counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, inputs):
        self.calls += 1
        return self.inner(inputs)


def test_cached_outputs_are_computed_once_in_any_order_and_change_nothing():
    teacher = ModelGraph(Counted(mlp(seed=1).module))
    plain, cached = mlp(seed=2), mlp(seed=2)
    train(plain, unlabelled(teacher), Logits(LogitsConfig(alpha=1.0)))
    assert teacher.module.calls == 15
    teacher.module.calls = 0
    train(cached, unlabelled(teacher), Logits(LogitsConfig(alpha=1.0, cache=True)))
    assert teacher.module.calls == 5, "once for each batch of the first epoch"
    for one, other in zip(plain.module.parameters(), cached.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_cache_over_random_transforms_is_refused_before_training():
    context = unlabelled(mlp(seed=1))
    flip = [{"name": "RandomHorizontalFlip", "on": "train"}]
    split = context.data.splits["train"].transformed(build_transform(flip, "train"))
    context.data = Data({"train": split})
    with pytest.raises(UsageError, match="transforms of the data are random"):
        train(mlp(), context, Logits(LogitsConfig(alpha=1.0, cache=True)))


def test_a_cache_over_a_loader_that_never_repeats_itself_is_refused():
    class Noise:
        def __iter__(self):
            return iter([torch.randn(16, 6) for _ in range(5)])

    context = unlabelled(mlp(seed=1))
    context.data = Data({"train": IterableSplit(Noise())})
    with pytest.raises(UsageError, match="cannot be cached"):
        train(mlp(), context, Logits(LogitsConfig(alpha=1.0, cache=True)))


@pytest.mark.parametrize(
    ("teacher", "participant", "message"),
    [
        (None, Logits(LogitsConfig()), "no teacher to learn from"),
        (
            ModelGraph(nn.Linear(6, 5)),
            Logits(LogitsConfig()),
            r"outputs have shape \[16, 5\], the model's \[16, 3\]",
        ),
        (ModelGraph(nn.Linear(9, 3)), Logits(LogitsConfig()), "does not take the data's inputs"),
        (mlp(), Features(FeaturesConfig(layers={"fc11": "fc1"})), "no layer 'fc11'"),
        (mlp(), Features(FeaturesConfig(layers={"fc1": "fc3"})), "no layer 'fc3'"),
        (
            ModelGraph(nn.Unflatten(1, (2, 3))),
            Features(FeaturesConfig(layers={"fc1": "."})),
            "more than a width differs",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, participant, message):
    with pytest.raises(UsageError, match=message):
        train(mlp(), unlabelled(teacher), participant)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LogitsConfig, {"temperature": 0.0}),
        (LogitsConfig, {"temperature": float("inf")}),
        (LogitsConfig, {"alpha": 1.5}),
        (FeaturesConfig, {}),
        (FeaturesConfig, {"layers": {}}),
    ],
)
def test_bad_options_are_refused(config, options):
    with pytest.raises(ValidationError):
        config.model_validate(options)


def test_a_teacher_is_needed_only_when_the_recipe_is_to_name_it():
    assert LogitsConfig().contract().needs == {"teacher"}
    assert LogitsConfig(teacher="start").contract().needs == set()
