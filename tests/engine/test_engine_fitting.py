"""What does not fit together in a training is refused at plan time, before a teacher is trained."""

from __future__ import annotations

import pytest

import demiglace
from demiglace.errors import RecipeError

SOFT = {"use": "distill.logits"}


def plan(*participants, teacher=None, train=None, **tables):
    step = {"id": "train", "use": "train.supervised"} | ({"epochs": 2} if train is None else train)
    recipe = {
        "name": "fit",
        "model": {"use": "mlp", "widths": [12, 8, 4]},
        "data": {"use": "fake", "shape": [12], "classes": 4},
        "pass": [step | {"with": list(participants)}],
    }
    recipe |= {} if teacher is None else {"teacher": teacher}
    return demiglace.plan(recipe | tables)


def pruner(train=None, **schedule):
    return plan({"use": "prune.magnitude", "amount": 0.5, "schedule": schedule}, train=train)


@pytest.mark.parametrize(
    ("train", "schedule", "message"),
    [
        (None, {"end": "3 epochs"}, "ends at 3 epochs, after the end of the training"),
        (None, {"begin": "2 epochs", "end": 0.5}, "ends at 50% of training, before it begins at 2 epochs"),
        (None, {"shape": "one_shot", "begin": "5 epochs"}, "begins at 5 epochs, after the end"),
        ({"steps": 30}, {"end": "31 steps"}, "ends at 31 steps, after the end"),
        ({"steps": 30}, {"begin": 0.9, "end": "20 steps"}, "before it begins at 90% of training"),
    ],
)
def test_a_schedule_that_cannot_fit_is_refused(train, schedule, message):
    with pytest.raises(RecipeError, match=message):
        pruner(train, **schedule)


@pytest.mark.parametrize(
    "schedule", [{"end": "2 epochs"}, {"end": "3000 steps"}, {"begin": "1 step", "end": 0.1}]
)
def test_what_fits_and_what_the_data_decides_passes(schedule):
    pruner(**schedule)


def source(*widths):
    return {"use": "mlp", "widths": list(widths)}


@pytest.mark.parametrize(
    ("participant", "teacher", "message"),
    [
        (SOFT, source(12, 8, 5), r"the teacher's outputs have shape \[2, 5\], the model's \[2, 4\]"),
        (
            {"use": "distill.features", "layers": {"fc1": "fc11"}},
            source(12, 8, 4),
            "the teacher has no layer 'fc11'",
        ),
    ],
    ids=["outputs", "layers"],
)
def test_a_teacher_that_does_not_fit_is_refused(participant, teacher, message):
    with pytest.raises(RecipeError, match=message):
        plan(participant, teacher=teacher)
    trained = {"model": teacher, "data": {"use": "fake", "shape": teacher["widths"][:1]}}
    inner = {"recipe": trained | {"pass": [{"use": "train.supervised", "epochs": 100000}]}}
    with pytest.raises(RecipeError, match=message):
        plan(participant, teacher=inner)


def test_a_teacher_that_fits_passes():
    plan(SOFT, teacher={"use": "lenet"}, model=source(784, 10))  # the data decides what both take
    plan(SOFT, {"use": "distill.features", "layers": {"fc1": "fc2"}}, teacher=source(12, 6, 16, 4))


def test_a_cache_over_random_transforms_is_refused():
    images = {"use": "fake", "shape": [1, 4, 3], "classes": 4}
    flip = {"name": "RandomHorizontalFlip", "on": "train"}
    cached = SOFT | {"cache": True}
    given = {"teacher": source(12, 8, 4), "data": images | {"transform": [flip]}}
    with pytest.raises(RecipeError, match=r"step 'logits' needs data\.fixed"):
        plan(cached, **given)
    plan(SOFT, **given)
    still = {"name": "Normalize", "mean": [0.5], "std": [1.0]}
    plan(cached, teacher=source(12, 8, 4), data=images | {"transform": [still]})
