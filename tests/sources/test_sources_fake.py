"""Made-up data: shapes, ranges, and the same values each time."""

import pytest
import torch
from pydantic import ValidationError
from source_data import promised, sizes

from demiglace_sources.fake import FakeConfig, FakeSource


def fake(**options):
    return FakeSource(FakeConfig(**options))


def test_fake_data_has_the_asked_shape_type_and_range_and_is_the_same_each_time():
    source = fake(shape=[3, 4], classes=3, train=200, validation=0, test=5)
    assert sizes(source) == {"train": 200, "test": 5}
    assert promised(source) == {"train", "calibration", "test"}
    train = source.splits()["train"]
    assert train.inputs.shape == (200, 3, 4)
    assert (train.inputs.min() >= 0, train.inputs.max() < 1) == (True, True)
    assert train.labels.unique().tolist() == [0, 1, 2]
    assert torch.equal(train.inputs, source.splits()["train"].inputs)
    assert not torch.equal(train.inputs, fake(shape=[3, 4], train=200, seed=1).splits()["train"].inputs)


def test_a_fake_split_does_not_depend_on_the_size_of_another():
    one, two = (fake(shape=[2], train=count).splits()["test"] for count in (10, 20))
    assert torch.equal(one.inputs, two.inputs)


def test_fake_tokens_stay_below_the_vocabulary():
    tokens = fake(shape=[16], dtype="int64", high=7).splits()["train"].inputs
    assert (tokens.dtype, int(tokens.min()), int(tokens.max())) == (torch.int64, 0, 6)


def test_fake_normal_inputs_are_normal():
    inputs = fake(shape=[64], distribution="normal").splits()["train"].inputs
    assert abs(float(inputs.mean())) < 0.05
    assert abs(float(inputs.std()) - 1) < 0.05


@pytest.mark.parametrize(
    "options", [{"shape": []}, {"shape": [0]}, {"shape": [2], "dtype": "uint8", "high": 257}]
)
def test_fake_refuses_what_cannot_be(options):
    with pytest.raises(ValidationError):
        FakeConfig(**options)
