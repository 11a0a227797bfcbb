"""What is gathered of a model and its data."""

import pytest
import torch
from torch import nn

from demiglace.data import Data
from demiglace.engine.check import check
from demiglace.engine.events import Listener
from demiglace.errors import Interrupted
from demiglace.graph import ModelGraph
from demiglace.plugins import discover
from demiglace.quick.facts import _accuracy, gather
from demiglace.recipe import load_recipe


class Echo(nn.Module):
    """Its inputs are its scores."""

    def forward(self, scores):
        return scores


def accuracy(scores, labels):
    data = Data.of({"validation": [(scores, labels)]})
    return _accuracy(ModelGraph(Echo()), data.evaluate("validation"))


def test_accuracy_and_the_most_frequent_class_are_shares_of_labelled_examples():
    scores = torch.eye(3)[[0, 1, 1, 2, 0]]
    assert accuracy(scores, torch.tensor([0, 1, 2, 2, 2])) == pytest.approx((3 / 5, 3 / 5))
    # A label below zero is one that losses ignore.
    assert accuracy(scores, torch.tensor([0, 1, -100, 2, 2])) == pytest.approx((3 / 4, 2 / 4))


@pytest.mark.parametrize(
    "labels",
    [torch.rand(5), torch.zeros(5, 3, dtype=torch.long), torch.full((5,), -1)],
    ids=["real", "many", "none"],
)
def test_labels_that_are_no_classes_are_no_accuracy(labels):
    assert accuracy(torch.rand(5, 3), labels) == (None, None)


TABLES = {
    "model": {"use": "mlp", "widths": [16, 3]},
    "data": {"use": "fake", "shape": [16], "classes": 3, "train": 64, "eval_batch_size": 16},
    "pass": [{"use": "evaluate.sparsity"}],
}


class Heard(Listener):
    """Keeps how far it was."""

    def __init__(self):
        self.progressed = []

    def progress(self, step, done, total, text):
        self.progressed.append((done, total))


def test_looking_at_a_model_tells_its_progress_and_can_be_stopped():
    checked, heard = check(load_recipe(TABLES), discover()), Heard()
    gather(checked, heard, lambda: None)
    totals = {total for _, total in heard.progressed}
    assert [done for done, _ in heard.progressed] == list(range(*totals))

    def stop():
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        gather(checked, Listener(), stop)
