"""`evaluate.classification`: right figures, and no trace left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from demiglace.data import Data, TensorSplit
from demiglace.errors import UsageError
from demiglace.graph import ModelGraph
from demiglace.passes import Context
from demiglace_evaluators.classification import Classification, ClassificationConfig

CPU = torch.device("cpu")


def context(scores: torch.Tensor, labels: torch.Tensor | None, **more) -> Context:
    """Data on which the identity gives `scores`."""
    splits = {"test": TensorSplit(scores, labels)} | more
    return Context(seed=0, device=CPU, data=Data(splits, eval_batch_size=7))


def measured(scores, labels, model=None, train=None, **options):
    more = {} if train is None else {"train": train}
    evaluator = Classification(ClassificationConfig(**options))
    return evaluator.measure(ModelGraph(model or nn.Identity()), context(scores, labels, **more))


@pytest.mark.parametrize("shape", [(50, 6), (20, 6, 4, 3)])
def test_figures_are_those_of_torchmetrics(shape):
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(*shape, generator=rng)
    labels = torch.randint(0, 5, shape[:1] + shape[2:], generator=rng)  # class 5 never occurs
    found = measured(scores, labels, top_k=[3])
    given = {"num_classes": 6, "average": "micro"}
    assert found["accuracy"].value == pytest.approx(multiclass_accuracy(scores, labels, **given).item())
    expected = multiclass_accuracy(scores, labels, top_k=3, **given).item()
    assert found["top3_accuracy"].value == pytest.approx(expected)
    assert found["f1"].value == pytest.approx(multiclass_f1_score(scores, labels, num_classes=6).item())
    assert found["loss"].value == pytest.approx(nn.functional.cross_entropy(scores, labels).item(), rel=1e-6)


def test_classes_that_never_occur_do_not_count_in_f1():
    scores = torch.eye(100)[:2]
    assert measured(scores, torch.tensor([0, 1]))["f1"].value == 1.0


def test_each_example_is_kept_in_the_datas_order_for_paired_tests():
    scores = torch.eye(3)[[0, 1, 2, 0]]
    found = measured(scores, torch.tensor([0, 2, 2, 1]))["accuracy"]
    assert found.per_example.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert (found.value, found.examples) == (0.5, 4)


def test_the_gap_is_train_minus_test():
    scores, train = torch.eye(4), TensorSplit(torch.eye(4), torch.arange(4))
    found = measured(scores, torch.tensor([0, 1, 2, 0]), train=train, gap=True)
    assert found["accuracy_gap"].value == 0.25


def test_the_metrics_are_those_announced():
    config = ClassificationConfig(top_k=[2, 3], gap=True)
    train = TensorSplit(torch.eye(4), torch.arange(4))
    found = measured(torch.eye(4), torch.arange(4), train=train, top_k=[2, 3], gap=True)
    assert tuple(found) == config.metrics()


class Careless(nn.Module):
    """Draws random numbers and writes into a buffer, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, scores):
        self.calls += 1
        return self.norm(scores) + torch.rand(()) * 0


def test_modes_buffers_and_random_state_are_left_as_they_were():
    model = Careless()
    model.norm.eval()
    scores = torch.randn(20, 4)
    random = torch.get_rng_state()
    measured(scores, torch.zeros(20).long(), model)
    assert (model.training, model.norm.training) == (True, False)
    assert model.calls == 0
    assert torch.equal(torch.get_rng_state(), random)
    assert model.norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long(), "empty"),
        (torch.zeros(4, 3), None, "no labels"),
        (torch.zeros(4, 3), torch.zeros(4), "no class indices"),
        (torch.zeros(4, 3), torch.zeros(4, 3).long(), "no class indices"),
        (torch.zeros(4), torch.zeros(4).long(), "no class indices"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), "tells 3 classes apart"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, -1]), "run from -1 to 2"),
    ],
)
def test_data_that_cannot_be_judged_is_refused(scores, labels, message):
    with pytest.raises(UsageError, match=message):
        measured(scores, labels)


def test_a_split_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no 'validation' split"):
        measured(torch.eye(3), torch.arange(3), split="validation")
