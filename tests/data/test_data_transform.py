"""The transform list: names and options of torchvision's v2, faults, randomness."""

import contextlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.data import DatasetSplit, TensorSplit, build_transform, open_data
from demiglace.errors import RecipeError, SourceError, UsageError

IMAGES = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).reshape(4, 3, 8, 8)
SCALE = {"name": "ToDtype", "dtype": "float32", "scale": True}


class Source:
    def __init__(self, **splits):
        self.given = splits

    def splits(self):
        return self.given

    def fingerprint(self):
        return "content"


def test_resize_scale_normalize_give_the_same_as_torchvision_called_by_hand():
    from torchvision.transforms import v2

    tables = [
        {"name": "Resize", "size": [4, 4]},
        SCALE,
        {"name": "Normalize", "mean": [0.1] * 3, "std": [0.2] * 3},
    ]
    by_hand = v2.Compose(
        [v2.Resize([4, 4]), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1] * 3, [0.2] * 3)]
    )
    assert torch.equal(build_transform(tables)(IMAGES), by_hand(IMAGES))


def test_uint8_images_reach_the_model_as_floats_from_0_to_1():
    out = build_transform([])(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert torch.equal(out, torch.tensor([[0.0, 51 / 255, 1.0]]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "Resizze", "size": 4}, "Resize"),
        ({"name": "Resize", "sise": 4}, "size"),
        ({"name": "Resize"}, "missing a required argument: 'size'"),
        ({"name": "Resize", "size": "big"}, "transform Resize"),
        ({"name": "ToDtype", "dtype": "float31"}, "float32"),
        ({"name": "ToDtype", "dtype": 3}, "no dtype named 3"),
        ({"name": "Lambda", "lambd": "x"}, "does not turn one image into one image"),
        ({"name": "ToTensor"}, "ToDtype"),
        ({"size": 3}, "names no transform"),
        ({"name": "Resize", "size": 4, "on": "tests"}, 'on = "train"'),
        ({"name": "Normalize", "mean": [math.nan], "std": [1.0]}, "not finite"),
        ({"name": "RandomCrop", "size": 4}, 'add on = "train"'),
        ({"name": "AutoAugment"}, 'add on = "train"'),
        ({"name": "RandomApply", "on": "evaluation", "transforms": [SCALE]}, "random"),
    ],
)
def test_a_wrong_table_is_refused_with_what_to_do(table, message):
    with pytest.raises(RecipeError) as caught:
        build_transform([table])
    assert message in str(caught.value)


def test_all_faults_of_the_list_are_reported_at_once():
    with pytest.raises(RecipeError) as caught:
        build_transform([{"name": "Resizze"}, SCALE, {"name": "Normalise"}])
    assert len(caught.value.faults) == 2


def test_a_transform_that_cannot_work_on_the_images_names_itself_and_their_shape():
    with pytest.raises(UsageError, match=r"Normalize fails on torch.uint8 images of shape \[4, 3, 8, 8\]"):
        build_transform([{"name": "Normalize", "mean": [0.1], "std": [0.2]}])(IMAGES)


def test_random_transforms_draw_for_each_example_and_are_pinned_by_the_seed():
    flip = build_transform([{"name": "RandomHorizontalFlip", "on": "train"}], "train")
    same = IMAGES[:1].repeat(64, 1, 1, 1)
    out = flip(same, seed=1)
    flipped = int((out[:, 0, 0, 0] != out[0, 0, 0, 0]).sum())
    assert 0 < flipped < 64
    assert torch.equal(out, flip(same, seed=1))
    assert not torch.equal(out, flip(same, seed=2))


def test_random_transforms_leave_the_global_generator_alone():
    noise = build_transform([SCALE, {"name": "GaussianNoise", "on": "train"}], "train")
    before = torch.random.get_rng_state()
    noise(IMAGES)
    assert torch.equal(before, torch.random.get_rng_state())


def test_enumerations_and_nested_transforms_are_given_as_plain_data():
    tables = [
        {"name": "AutoAugment", "policy": "cifar10", "on": "train"},
        {"name": "RandomApply", "on": "train", "p": 1.0, "transforms": [{"name": "CenterCrop", "size": 4}]},
        {"name": "Resize", "size": [2, 2], "interpolation": "nearest"},
    ]
    assert build_transform(tables, "train")(IMAGES).shape == (4, 3, 2, 2)


def test_open_data_augments_training_only_and_keeps_the_evaluation_tables():
    split = TensorSplit(IMAGES, torch.arange(4))
    tables = [
        {"name": "RandomCrop", "size": 4, "on": "train"},
        {"name": "CenterCrop", "size": 6, "on": "evaluation"},
    ]
    data = open_data(Source(train=split, test=split), batch_size=2, eval_batch_size=3, transform=tables)
    assert [len(batch) for batch in data.train(torch.Generator())] == [2, 2]
    assert next(data.train(torch.Generator())).args[0].shape == (2, 3, 4, 4)
    assert [batch.args[0].shape for batch in data.evaluate("test")] == [(3, 3, 6, 6), (1, 3, 6, 6)]
    assert next(data.evaluate("calibration")).args[0].shape == (3, 3, 6, 6)
    assert data.transform == ({"name": "CenterCrop", "size": 6},)


def test_each_epoch_draws_anew_and_the_generator_alone_decides():
    same = IMAGES[:1].repeat(4, 1, 1, 1)  # whatever differs comes from the transform, not from the order
    for split in (TensorSplit(same), DatasetSplit(torch.utils.data.TensorDataset(same))):
        tables = [{"name": "RandomCrop", "size": 4, "on": "train"}]
        data = open_data(Source(train=split), batch_size=4, transform=tables)

        def two_epochs(data=data):
            rng = torch.Generator().manual_seed(5)
            return [next(data.train(rng)).args[0][:, 0, 0, 0].sort().values for _ in range(2)]

        first, second = two_epochs()
        assert not torch.equal(first, second)
        torch.rand(1)
        assert all(torch.equal(a, b) for a, b in zip((first, second), two_epochs(), strict=True))


def test_float_tensors_without_a_transform_are_handed_through_untouched():
    split = TensorSplit(torch.rand(4, 2))
    assert open_data(Source(train=split)).split("train") is split


def test_the_fingerprint_follows_the_transform():
    split = TensorSplit(IMAGES)
    plain, scaled = (open_data(Source(train=split), transform=tables) for tables in ([], [SCALE]))
    assert plain.fingerprint != scaled.fingerprint


def test_an_empty_split_is_an_error():
    with pytest.raises(SourceError, match="'test' split is empty"):
        open_data(Source(train=TensorSplit(IMAGES), test=TensorSplit(IMAGES[:0])))


def test_examples_of_different_shapes_say_to_resize_and_a_resize_helps():
    mixed = [(IMAGES[0], 0), (IMAGES[0, :, :5], 1)]
    with pytest.raises(UsageError, match="Resize"):
        list(open_data(Source(train=DatasetSplit(mixed))).evaluate("train"))
    data = open_data(Source(train=DatasetSplit(mixed)), transform=[{"name": "Resize", "size": [4, 4]}])
    batch = next(data.evaluate("train"))
    assert batch.args[0].shape == (2, 3, 4, 4)
    assert batch.labels.tolist() == [0, 1]


def test_a_transform_on_examples_that_are_no_tensors_is_refused():
    data = open_data(Source(train=DatasetSplit(["text"])), transform=[SCALE])
    with pytest.raises(UsageError, match="str examples"):
        list(data.evaluate("train"))


@settings(max_examples=60, deadline=None)
@given(
    use=st.sampled_from(["Resize", "Normalize", "ToDtype", "Pad", "Grayscale", "CenterCrop", "nonsense"]),
    options=st.dictionaries(
        st.sampled_from(["size", "mean", "std", "dtype", "scale", "padding", "inplace", "odd"]),
        st.none()
        | st.booleans()
        | st.integers(-3, 300)
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.floats()),
    ),
)
def test_whatever_the_options_are_only_errors_of_ours_come_out(use, options):
    with contextlib.suppress(RecipeError, UsageError):
        build_transform([{"name": use, **options}])(IMAGES)
