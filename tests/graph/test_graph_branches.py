"""Residual branches: which there are, and that what is left is the model with the branch at zero."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from demiglace.artifact import load, save
from demiglace.errors import GraphError, VerificationError
from demiglace.graph import (
    Bypass,
    Example,
    Lower,
    Mask,
    ModelGraph,
    Swap,
    apply,
    apply_verified,
    bypass_edits,
)
from demiglace.graph.origins import CallerOrigin

INPUTS = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A forward given as a function of the block and its input; `zero` multiplies what the branch adds."""

    def __init__(self, run):
        super().__init__()
        self.run, self.zero = run, None
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.relu, self.drop = nn.GroupNorm(2, 8), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.gamma = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def branch(self, value):
        return value if self.zero is None else value * self.zero

    def forward(self, x):
        return self.run(self, x)


def relu_after(s, x):
    y = s.branch(s.b(s.relu(s.a(x))))
    y += x
    return s.relu(y)


def functional(s, x):
    return F.relu(x + s.branch(s.b(F.relu(s.a(s.norm(x))))))


def norm_after(s, x):
    return s.norm(s.branch(s.b(F.relu(s.a(x)))) + x)


def scaled(s, x):
    return x + s.branch(s.gamma * s.drop(s.b(x)))


def subtracted(s, x):
    return x - s.branch(s.b(x))


def keyword(s, x):
    return torch.add(x, s.branch(s.b(input=s.a(x))), alpha=0.5)


def two(s, x):
    x = x + s.branch(s.drop(s.a(s.norm(x))))
    return x + s.branch(s.drop(s.b(x)))


def pooled(s, x):
    return x + s.branch(s.b(x)).mean((2, 3), keepdim=True)


REMOVABLE = {
    one.__name__: one
    for one in (relu_after, functional, norm_after, scaled, subtracted, keyword, two, pooled)
}


def net(run):
    torch.manual_seed(0)
    blocks = [Block(run) for _ in range(3)]
    # What follows works in place on a sum that may be the shortcut itself; not on what a ReLU keeps.
    last = nn.Identity() if run in {relu_after, functional} else nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(8, 8, 1), *blocks, last, nn.Conv2d(8, 4, 1)).eval()


def model(run, inputs=INPUTS):
    return ModelGraph(net(run) if not isinstance(run, nn.Module) else run, Example((inputs,)))


def with_zero(run, *blocks):
    """The original's outputs with the branches of these blocks at zero."""
    original = net(run)
    for block in blocks:
        original[block].zero = 0.0
    return original(INPUTS)


def remove(one, names):
    chosen = [branch for branch in one.branches.found if branch.holder in names]
    transaction, verified = apply_verified(one, bypass_edits(one, chosen))
    transaction.commit()
    return verified


@pytest.mark.parametrize("name", REMOVABLE)
def test_the_model_without_branches_is_the_original_with_them_at_zero(name):
    run = REMOVABLE[name]
    pruned = model(run)
    parameters = sum(one.numel() for one in pruned.module.parameters())
    verified = remove(pruned, {"2", "3"})
    assert (verified.form, verified.equality) == ("module", "exact")
    torch.testing.assert_close(pruned.module(INPUTS), with_zero(run, 2, 3))
    weights = sum(one.numel() for one in pruned.module.parameters())
    # Of each block at least the last convolution is gone: 8 * 8 * 9 weights.
    assert weights <= parameters - 2 * 576
    pruned.module.train()(INPUTS).sum().backward()


@pytest.mark.parametrize("name", REMOVABLE)
def test_graphs_lose_branches_too(name):
    run = REMOVABLE[name]
    pruned = model(run)
    apply(pruned, [Lower()]).commit()
    verified = remove(pruned, {"2", "3"})
    assert (verified.form, verified.equality) == ("graph", "exact")
    torch.testing.assert_close(pruned.module(INPUTS), with_zero(run, 2, 3))
    assert not any(one.startswith("2.b") for one, _ in pruned.module.named_parameters())
    pruned.module.train()(INPUTS).sum().backward()
    # Its calls keep their numbers, which tracing gives anew.
    assert len(pruned.branches.found) == len(model(run).branches.found) // 3
    remove(pruned, {"1"})
    torch.testing.assert_close(pruned.module.eval()(INPUTS), with_zero(run, 1, 2, 3))


def test_a_branch_that_no_layer_stands_for_makes_the_model_a_graph():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.randn(8, 8) / 3) for _ in range(3)])

        def forward(self, x):
            for weight in self.weights:
                x = torch.relu_(x + torch.tanh(x @ weight))
            return x

    torch.manual_seed(0)
    x = torch.randn(2, 8)
    pruned = ModelGraph(Bare(), Example((x,)))
    expected = torch.relu(x + torch.tanh(x @ pruned.module.weights[0]))
    transaction, verified = apply_verified(pruned, bypass_edits(pruned, pruned.branches.found[1:]))
    transaction.commit()
    assert (verified.form, verified.reason) == ("graph", "no layer of its own stands for the branch alone")
    torch.testing.assert_close(pruned.module(x), expected)
    assert list(dict(pruned.module.named_parameters())) == ["weights.0"]
    pruned.module.train()(x).sum().backward()


@pytest.mark.parametrize("form", ["module", "graph"])
def test_what_works_in_place_on_the_sum_leaves_the_shortcut_as_it_is(form):
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.block = nn.Conv2d(8, 8, 1), Block(scaled)

        def forward(self, x):
            x = self.first(x)
            return torch.relu_(self.block(x)) - x

    pruned = model(Kept())
    hidden = pruned.module.first(INPUTS)
    if form == "graph":
        apply(pruned, [Lower()]).commit()
    assert remove(pruned, {"block"}).form == form
    torch.testing.assert_close(pruned.module(INPUTS), torch.relu(hidden) - hidden)


def read_elsewhere(s, x):
    hidden = s.a(x)
    return x + s.b(hidden) + hidden.mean()


def other_shortcut(s, x):
    return s.norm(x) + s.b(s.a(x))


def scaled_shortcut(s, x):
    return torch.add(s.b(x), x, alpha=0.5)


def in_place(s, x):
    y = x.view(-1, 8, 5, 5)
    return x + s.b(y.mul_(2))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (read_elsewhere, "is read elsewhere too"),
        (other_shortcut, "its shortcut is no identity: aten.group_norm"),
        (scaled_shortcut, "its shortcut is no identity: aten.add"),
        (in_place, "elsewhere|in place|no identity"),
    ],
)
def test_what_cannot_be_removed_says_why(run, reason):
    known = model(run).branches
    assert not known.found
    assert set(known.stuck) == {"1", "2", "3"}
    for one in known.stuck.values():
        assert re.search(reason, one)


def gelu(s, x):
    return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.045 * x**3)))


def test_sums_without_parameters_are_no_branches():
    known = model(gelu).branches
    assert (known.found, known.stuck) == ((), {})


def nested(s, x):
    inner = x + s.a(x)
    return x + s.b(inner)


def test_a_branch_that_holds_others_goes_after_them():
    pruned = model(nested)
    assert [one.holder for one in pruned.branches.found] == ["1", "2", "3"]
    assert set(pruned.branches.stuck.values()) == {"it holds other branches"}
    remove(pruned, {"1", "2", "3"})
    assert not pruned.branches.stuck
    remove(pruned, {"1", "2", "3"})
    assert {name for name, _ in pruned.module.named_parameters() if name.partition(".")[0] in "123"} <= {
        f"{block}.{rest}" for block in "123" for rest in ("gamma", "norm.weight", "norm.bias")
    } | {f"{block}.{rest}" for block in "123" for rest in ("a.weight", "a.bias")}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        y = self.norm(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(x)


def test_attention_that_returns_a_tuple_goes_and_the_module_stays():
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 16)
    pruned = ModelGraph(nn.Sequential(Attention(), Attention()).eval(), Example((tokens,)))
    assert [one.name for one in pruned.branches.found] == ["0.attention", "0.mlp", "1.attention", "1.mlp"]
    expected = pruned.module[1](tokens + pruned.module[0].mlp(tokens))
    chosen = [one for one in pruned.branches.found if one.name == "0.attention"]
    transaction, verified = apply_verified(pruned, bypass_edits(pruned, chosen))
    transaction.commit()
    assert verified.form == "module"
    torch.testing.assert_close(pruned.module(tokens), expected)
    assert not [name for name, _ in pruned.module.named_parameters() if name.startswith(("0.norm", "0.att"))]


def test_edits_that_remove_another_branch_are_refused_and_leave_the_model_as_it_was():
    pruned = model(relu_after)
    edits = bypass_edits(pruned, pruned.branches.found[:1])
    before = pruned.module(INPUTS)
    wrong = [Swap("2", one.type, one.options) for one in edits if isinstance(one, Swap)]
    bypass = [one for one in edits if isinstance(one, Bypass)]
    transaction, verified = apply_verified(pruned, [*wrong, *bypass])
    # The module's form is refused: the graph is right.
    assert verified.form == "graph"
    assert "differs from the original" in verified.reason
    transaction.rollback()
    assert torch.equal(pruned.module(INPUTS), before)
    assert pruned.edits == []


def test_a_graph_without_the_wrong_branch_is_refused(monkeypatch):
    from demiglace.graph import plain

    pruned = model(relu_after)
    apply(pruned, [Lower()]).commit()
    before = pruned.module(INPUTS)
    first, second = pruned.branches.found[:2]
    right = plain.bypassed
    monkeypatch.setattr(plain, "bypassed", lambda graph, *_: right(graph, second.sum, second.skip))
    with pytest.raises(VerificationError, match="differs from the original"):
        apply_verified(pruned, bypass_edits(pruned, [first]))
    assert torch.equal(pruned.module(INPUTS), before)


def test_a_sum_cannot_be_bypassed_in_a_module_or_where_there_is_none():
    pruned = model(relu_after)
    with pytest.raises(GraphError, match="plain-data graph only"):
        apply(pruned, [Bypass("add", "relu")])
    with pytest.raises(GraphError, match="no sum 'nothing'"):
        apply(pruned, [Lower(), Bypass("nothing", "relu")])
    assert isinstance(pruned.module, nn.Sequential)


def test_masks_go_with_their_weights_and_come_back():
    pruned = model(relu_after)
    keep = torch.rand(8, 8, 3, 3) > 0.5
    apply(pruned, [Mask("1.a.weight", keep), Mask("2.a.weight", keep)]).commit()
    edits = bypass_edits(pruned, pruned.branches.found[:1])
    transaction, _ = apply_verified(pruned, edits)
    assert set(pruned.masks) == {"2.a.weight"}
    transaction.rollback()
    assert set(pruned.masks) == {"1.a.weight", "2.a.weight"}


def test_the_mask_of_a_shared_weight_stays_under_the_name_that_is_left():
    pruned = model(relu_after)
    pruned.module[2].a.weight = pruned.module[1].a.weight
    apply(pruned, [Mask("1.a.weight", torch.rand(8, 8, 3, 3) > 0.5)]).commit()
    transaction, _ = apply_verified(pruned, bypass_edits(pruned, pruned.branches.found[:1]))
    transaction.commit()
    assert set(pruned.masks) == {"2.a.weight"}


@pytest.mark.parametrize("form", ["module", "graph"])
def test_saved_models_open_without_their_branches(form, tmp_path):
    pruned = model(two)
    pruned.origin = CallerOrigin.of(pruned.module)
    if form == "graph":
        apply(pruned, [Lower()]).commit()
    remove(pruned, {"1", "3"})
    save(pruned, tmp_path / "model", origin=pruned.origin)
    opened = load(tmp_path / "model", model=net(two))
    assert torch.equal(opened(INPUTS), pruned.module(INPUTS))


class Viewed(nn.Module):
    """A branch whose forward has widths written into it, which a cut must change in the right calls."""

    def __init__(self, heads):
        super().__init__()
        self.heads, self.inner, self.back = heads, nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        y = self.inner(x).view(len(x), -1, self.heads, 16 // self.heads).transpose(1, 2)
        return x + self.back(torch.relu(y).transpose(1, 2).reshape(len(x), -1, 16))


def test_a_graph_without_a_branch_is_cut_in_the_right_calls():
    from demiglace.graph import removal_edits

    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 8)
    one = ModelGraph(nn.Sequential(Viewed(2), Viewed(4), Viewed(8)).eval(), Example((tokens,)))
    apply(one, [Lower()]).commit()
    remove(one, {"0"})
    for _ in range(2):
        groups = [group for group in one.groups if group.name.endswith("inner")]
        assert len(groups) == 2
        transaction, verified = apply_verified(
            one, removal_edits(one, [(group, torch.arange(group.units // 2)) for group in groups])
        )
        transaction.commit()
        assert verified.equality == "exact"
