"""`prune.blocks`: how much, which, what is refused and what is reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import demiglace
from demiglace.data import Data
from demiglace.errors import GraphError, RecipeError
from demiglace.graph import Example, ModelGraph, apply_verified
from demiglace.measure import measure
from demiglace.passes import Context
from demiglace_pruners.blocks import Blocks, BlocksConfig

INPUTS = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self, inner, shortcut=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.out, self.shortcut = nn.Conv2d(inner, 8, 1), shortcut

    def forward(self, x):
        y = self.out(torch.relu(self.norm(self.conv(x))))
        return y + (x if self.shortcut is None else self.shortcut(x))


def residual(scales=(1.0, 0.01, 1.0, 0.1)):
    """Blocks of 8 to 32 inner channels, of which each adds as much as its scale says; one has a shortcut."""
    torch.manual_seed(0)
    blocks = [Block(8 * (place + 1)) for place in range(4)]
    for block, scale in zip(blocks, scales, strict=True):
        block.out.weight.data.mul_(scale)
        block.out.bias.data.zero_()
    net = nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, Block(8, nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 4, 1))
    return ModelGraph(net.eval(), Example((INPUTS[:2],)))


def context():
    return Context(seed=0, device=torch.device("cpu"), data=Data.of(list(INPUTS.split(4))))


def blocks(model, where=None, **options):
    editor = Blocks(BlocksConfig(**options))
    transaction, verified = apply_verified(model, list(editor.edits(model, where or context())))
    transaction.commit()
    return verified


def left(model):
    return [name for name, one in model.module.named_children() if isinstance(one, Block)]


@pytest.mark.parametrize("importance", ["gain", "change"])
def test_the_branches_that_add_least_go(importance):
    model = residual()
    verified = blocks(model, amount=0.5, importance=importance)
    assert left(model) == ["1", "3", "5"]
    assert (verified.form, verified.equality) == ("module", "exact")


def test_change_is_the_norm_of_what_is_added_over_that_of_what_it_is_added_to():
    from demiglace.calibration import branch_changes, calibration_batches

    model, where = residual(), context()
    batches = calibration_batches(where, 8, 4)
    found = branch_changes(model, model.branches.found, batches, where)
    x, expected = model.module[0](INPUTS), []
    for place in range(1, 5):
        y = model.module[place](x)
        expected.append(((y - x).norm() / x.norm()).item())
        x = y
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("of", ["parameters", "macs"])
def test_branches_go_until_the_share_of_the_whole_model_is_reached(of):
    model = residual()
    before = getattr(measure(model, model.example), of)
    where = context()
    blocks(model, where, amount=0.3, of=of)
    share = 1 - getattr(measure(model, model.example), of) / before
    # The smallest is removed first, alone it is not enough.
    assert len(where.figures["branches"]["removed"]) == 2
    assert share >= 0.3
    assert where.asked[0].value == sum(one.numel() for one in model.module.parameters())


def test_one_branch_stays_and_what_is_kept_is_said():
    model, where = residual(), context()
    blocks(model, where, amount=1.0)
    assert len(left(model)) == 2
    assert "1 branches stay" in " ".join(where.left_alone.values())
    model = residual()
    blocks(model, amount=1.0, min_kept=3)
    assert len(left(model)) == 4


def test_selectors_take_a_branch_by_any_layer_in_it_and_ignore_wins():
    model, where = residual(), context()
    blocks(model, where, amount=1.0, targets=["1.conv", "2"], ignore=["2.norm"])
    assert left(model) == ["2", "3", "4", "5"]
    assert "2.norm, which is ignored" in where.left_alone["2"]


def test_a_shortcut_with_layers_of_its_own_stays_with_its_reason():
    where = context()
    blocks(residual(), where, amount=0.5)
    assert "its shortcut is no identity: aten.conv2d" in where.left_alone["5"]
    with pytest.raises(GraphError, match="select no residual branches"):
        blocks(residual(), amount=0.5, targets=["5"])


def test_nothing_is_promised_or_removed_at_amount_zero():
    where = context()
    assert not list(Blocks(BlocksConfig(amount=0.0)).edits(residual(), where))
    assert where.asked == []


def test_weights_and_data_that_are_not_a_number_are_refused():
    model = residual()
    model.module[2].out.weight.data[0] = float("nan")
    with pytest.raises(GraphError, match="branch '2' is not finite"):
        blocks(model, amount=0.5)
    with pytest.raises(GraphError, match="gives NaN"):
        blocks(model, amount=0.5, importance="change")


def test_the_draw_follows_the_seed():
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        where = Context(seed, torch.device("cpu"))
        blocks(residual(), where, amount=0.5, importance="random")
        drawn.append(where.figures["branches"]["removed"])
    assert drawn[0] == drawn[1]
    assert any(one != drawn[0] for one in drawn[2:])


def train_with(schedule):
    data = [(INPUTS, torch.randn(8, 4, 6, 6))]
    inside = {"use": "prune.blocks", "amount": 0.5, "schedule": schedule}
    train = {"use": "train.supervised", "epochs": 1, "loss": "mse_loss", "with": [inside]}
    return demiglace.run({"pass": [train]}, model=residual().module, data=data)


def test_branches_go_once_while_a_model_trains():
    result = train_with({"shape": "one_shot"})
    before, after = (one.parameters for one in (result.steps[0].before, result.steps[0].after))
    assert after < before
    assert sum(one.numel() for one in result.model.parameters()) == after


def test_no_schedule_raises_the_number_of_branches():
    with pytest.raises(RecipeError, match="go at once"):
        train_with({"shape": "cubic"})


def test_the_result_trains_and_opens_again(tmp_path):
    data = [(INPUTS, torch.randn(8, 4, 6, 6))]
    recipe = {
        "pass": [
            {"use": "prune.blocks", "amount": 0.5},
            {"use": "train.supervised", "epochs": 1, "loss": "mse_loss"},
            {"use": "prune.channels", "amount": 0.5},
        ]
    }
    result = demiglace.run(recipe, model=residual().module, data=data, out=tmp_path / "run")
    opened = demiglace.load(tmp_path / "run", model=residual().module)
    assert torch.equal(opened(INPUTS), result.model(INPUTS))
    assert "2.conv.weight" not in opened.state_dict()


def test_the_plan_says_the_amount_in_words():
    assert BlocksConfig(amount=0.25).words() == (
        "remove 25 % of the residual branches, those of the smallest gain"
    )
    words = BlocksConfig(amount=0.25, of="macs", importance="change").words()
    assert "until 25 % of the model's multiply-accumulates are gone" in words
    assert words.endswith("on 1024 examples")
