"""Runs of shipped recipes that several tests look at, and a trained network for those that begin with one."""

import pytest

import demiglace


@pytest.fixture(scope="session")
def gradual_teacher(tmp_path_factory):
    """A run of `gradual-teacher`, shorter than it is shipped; its teacher is trained as it is shipped."""
    overrides = ["dense.epochs=8", "gradual.epochs=12", "gate.accuracy.max_drop=0.04"]
    folder = tmp_path_factory.mktemp("gradual-teacher") / "run"
    return demiglace.run("recipe:gradual-teacher", overrides=overrides, out=folder)


@pytest.fixture(scope="session")
def from_trained(gradual_teacher):
    """Overrides with which a recipe that trains the `lenet` starts from that teacher: one epoch is enough."""
    path = gradual_teacher.path / "teacher"
    return [f'model={{ use = "artifact", path = "{path}" }}', "dense.epochs=1"]
