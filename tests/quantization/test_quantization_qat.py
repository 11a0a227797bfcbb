"""Training with integers: what is learned, what takes part beside, what comes out."""

import copy

import pytest
import torch
from torch import nn

import demiglace
from demiglace.errors import DemiglaceError, RecipeError
from demiglace.graph import Example, ModelGraph
from demiglace.graph.plain import lower
from demiglace.quantization import FakeQuantized, Scheme
from demiglace.quantization.straight_through import fake_symmetric, learned_step, rounded


class Normed(nn.Module):
    """Batch norms behind convolutions and behind a linear layer without bias, one with negative weights."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.fc, self.b3 = nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.b1(self.c1(x)).relu()
        x = (x + self.b2(self.c2(x))).relu().mean((2, 3))
        return self.head(self.b3(self.fc(x)).relu())


class Mixed(nn.Module):
    """An embedding, attention, and a convolution: inputs are rounded where there is an integer layer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.conv, self.head = nn.Conv1d(16, 8, 3), nn.Linear(8, 4)

    def forward(self, ids):
        x = self.words(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.conv(x.transpose(1, 2)).relu().mean(2))


def _images(count=128):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (count,), generator=generator)
    values = torch.randn(count, 1, 8, 8, generator=generator)
    values += 2 * labels.view(-1, 1, 1, 1)
    return values, labels


def _tokens(count=128):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (count,), generator=generator)
    ids = torch.randint(30, (count, 6), generator=generator)
    return torch.where(torch.rand(count, 6, generator=generator) < 0.5, labels[:, None], ids), labels


def _made(kind=Normed):
    torch.manual_seed(0)
    module = kind()
    if kind is Normed:
        nn.init.normal_(module.b1.weight)
        module.b1.weight.data[3] = 0
    return module.eval()


def _train(module, data=None, others=(), out=None, train=None, first=(), **options):
    values, labels = _images() if data is None else data
    batches = [(values[i : i + 32], labels[i : i + 32]) for i in range(0, len(values), 32)]
    qat = {"id": "qat", "use": "quantize.qat", **options}
    fit = {
        "use": "train.supervised",
        "epochs": 8,
        "optimizer": {"name": "Adam", "lr": 0.01},
        "with": [*others, qat],
        **(train or {}),
    }
    recipe = {"name": "q", "pass": [*first, fit]}
    splits = {"train": batches, "validation": batches}
    return demiglace.run(recipe, model=module, data=splits, example_inputs=values[:4], out=out)


def _outputs(module, values):
    with torch.no_grad():
        return module.eval()(values)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_what_was_trained_is_what_is_stored_norms_folded(bits, tmp_path):
    values, labels = _images()
    before = []

    class Watching(Normed):
        def forward(self, x):
            if not self.training and isinstance(self.c1, FakeQuantized):
                before[:] = [super().forward(values)]
            return super().forward(x)

    module = _made()
    module.__class__ = Watching
    result = _train(module, out=tmp_path / "run", bits=bits, train={"validate_each_epoch": True})
    after = _outputs(module, values)
    torch.testing.assert_close(after, before[0], rtol=2e-3, atol=2e-3)
    assert float((after.argmax(1) == labels).float().mean()) > 0.7
    assert isinstance(module.b1, nn.Identity)
    assert isinstance(module.b3, nn.Identity)
    for layer in (module.c1, module.c2, module.fc, module.head):
        assert set(layer.quantized("weight").integers.unique().tolist()) <= set(
            range(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
        )
        assert not [name for name in dict(layer.named_buffers()) if "step" in name or "low" in name]
    assert torch.equal(_outputs(demiglace.load(tmp_path / "run", model=Normed), values), after)
    step = result.record.steps[0]
    assert {row["weight"] for row in step.figures["quantized"]} == {
        "c1.weight",
        "c2.weight",
        "fc.weight",
        "head.weight",
    }
    assert step.figures["history"]
    assert step.after.parameters == sum(one.numel() for one in _made().parameters()) - 2 * (8 + 16) + 8


@pytest.mark.parametrize("bits", [8, 2])
def test_layers_of_all_kinds_train_and_open_again(bits, tmp_path):
    values, labels = _tokens()
    module = _made(Mixed)
    _train(module, (values, labels), out=tmp_path / "run", bits=bits)
    assert [type(one).__name__ for one in (module.words, module.attention, module.conv, module.head)] == [
        "QuantizedEmbedding",
        "QuantizedMultiheadAttention",
        "StaticConv1d",
        "StaticLinear",
    ]
    assert module.attention.out_proj.quantized("weight").scheme.bits == bits
    after = _outputs(module, values)
    assert float((after.argmax(1) == labels).float().mean()) > 0.7
    assert torch.equal(_outputs(demiglace.load(tmp_path / "run", model=Mixed), values), after)


def test_attention_computes_with_the_rounded_weight_of_the_projection_inside_it():
    module = _made(Mixed)
    seen = []
    original = nn.functional.multi_head_attention_forward

    def spy(*args, **kwargs):
        seen.append(args[11].detach())
        return original(*args, **kwargs)

    nn.functional.multi_head_attention_forward = spy
    try:
        _train(module, _tokens(32), bits=2, train={"epochs": 1})
    finally:
        nn.functional.multi_head_attention_forward = original
    # MACs are counted on tensors without values.
    concrete = [one for one in seen if type(one) is torch.Tensor and not one.is_meta]
    assert any(len(one[0].unique()) <= 3 for one in concrete)


def test_a_layer_of_inputs_as_they_are_holds_integers_only_in_its_weight():
    module = _made()
    step = _train(module, inputs="float").record.steps[0]
    assert type(module.c1).__name__ == "QuantizedConv2d"
    assert isinstance(module.b1, nn.BatchNorm2d)
    assert "inputs as they are" in step.words or step.participants


def test_a_pruner_in_the_same_training_keeps_its_zeros():
    module = _made()
    pruner = {"use": "prune.magnitude", "amount": 0.8, "schedule": {"end": 0.5}}
    result = _train(module, others=[pruner], bits=2)
    step = result.record.steps[0]
    total = 72 + 8 * 36 + 128 + 64
    assert step.after.over([row["weight"] for row in step.figures["quantized"]]).zeros >= round(0.8 * total)
    assert result.graph.masks == {}


def test_masks_that_were_there_before_are_zeros_of_the_integers():
    module = _made()
    demiglace.run(
        {"name": "p", "pass": [{"use": "prune.magnitude", "amount": 0.5}]},
        model=module,
        example_inputs=_images(4)[0],
    )
    pruned = {name: one == 0 for name, one in module.named_parameters() if one.dim() > 1}
    first = [{"use": "prune.magnitude", "amount": 0.5}]
    _train(module, bits=4, first=first)
    for name in ("c2", "fc", "head"):
        integers = module.get_submodule(name).quantized("weight").integers
        assert (integers[pruned[f"{name}.weight"].flatten(1)] == 0).all()


def test_a_distiller_takes_part_beside_it():
    module = _made()
    soft = {"id": "soft", "use": "distill.logits", "teacher": "start", "alpha": 0.5}
    step = _train(module, others=[soft], bits=4).record.steps[0]
    assert "loss.soft.kl" in step.figures["history"][0]
    assert type(module.head).__name__ == "StaticLinear"


def test_ranges_and_norms_stay_after_their_moments():
    frozen = {}

    class Watching(Normed):
        def forward(self, x):
            if self.training and isinstance(self.c1, FakeQuantized):
                frozen.setdefault("ranges", []).append(float(self.c2.input_high))
                frozen.setdefault("norms", []).append(self.b1.running_var.clone())
            return super().forward(x)

    module = _made()
    module.__class__ = Watching
    _train(module, freeze_ranges="2 epochs", freeze_norms="8 steps")
    assert frozen["ranges"][2] != frozen["ranges"][5]
    assert len(set(frozen["ranges"][9:])) == 1
    assert not torch.equal(frozen["norms"][1], frozen["norms"][7])
    assert all(torch.equal(frozen["norms"][9], later) for later in frozen["norms"][9:])


@pytest.mark.parametrize("train", [{"keep": "best"}, {"ema": 0.9}, {"keep": "best", "ema": 0.9}])
def test_the_weights_that_stay_keep_their_own_step_sizes(train):
    module = _made()
    values, labels = _images()
    _train(module, bits=2, train=train)
    assert float((_outputs(module, values).argmax(1) == labels).float().mean()) > 0.7


def test_training_after_it_is_refused_before_anything_runs():
    fit = {"use": "train.supervised", "epochs": 1}
    recipe = {"name": "q", "pass": [{**fit, "with": [{"use": "quantize.qat"}]}, fit]}
    with pytest.raises(RecipeError, match=r"model\.trainable"):
        demiglace.check(recipe)


def test_a_weight_that_layers_share_is_left_alone_and_named():
    module = _made(Mixed)
    module.extra = nn.Linear(16, 30, bias=False)
    module.extra.weight = module.words.weight
    step = _train(module, _tokens()).record.steps[0]
    assert "shares its weight" in step.left_alone["words"]
    assert type(module.words) is nn.Embedding


def test_selectors_that_leave_nothing_are_an_error_and_the_model_is_untouched():
    module = _made()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(DemiglaceError, match="b1"):
        _train(module, targets=["b1"])
    assert list(module.state_dict()) == list(before)


def test_the_step_size_has_lsqs_gradient_and_size_of_move():
    torch.manual_seed(0)
    scheme, weight = Scheme(3), torch.randn(2, 50, dtype=torch.float64)
    start = torch.tensor([0.3, 0.2], dtype=torch.float64)
    step = start.clone().requires_grad_()
    fake_symmetric(weight, step[:, None], scheme).sum().backward()
    inside = (weight / start[:, None]).abs() <= scheme.high
    ratio = weight / start[:, None]
    expected = torch.where(inside, ratio.round() - ratio, ratio.sign() * scheme.high).sum(1)
    torch.testing.assert_close(step.grad, expected)
    log_step = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    moved = learned_step(start, log_step, 50, scheme.high)
    assert torch.equal(moved, start)
    fake_symmetric(weight, moved[:, None], scheme).sum().backward()
    lsq = expected / (50 * scheme.high) ** 0.5
    # A small step of gradient descent moves the step size as LSQ's own gradient would.
    after = learned_step(start, (-1e-6 * log_step.grad), 50, scheme.high)
    torch.testing.assert_close((after - start) / -1e-6, lsq, rtol=1e-3, atol=1e-6)


def test_rounding_lets_gradients_through_where_nothing_saturates():
    values = torch.tensor([-9.0, -1.2, 0.4, 9.0], requires_grad=True)
    result = rounded(values, -3, 3)
    result.sum().backward()
    assert result.tolist() == [-3, -1, 0, 3]
    assert values.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("option", ["freeze_ranges", "freeze_norms"])
def test_a_moment_after_the_end_of_the_training_is_refused_when_it_is_planned(option):
    recipe = _recipe_of_qat(epochs=4, **{option: "5 epochs"})
    with pytest.raises(RecipeError, match=f"`{option}` comes at 5 epochs, after the end of the training"):
        demiglace.plan(recipe)
    demiglace.plan(_recipe_of_qat(epochs=5, **{option: "5 epochs"}))


def test_a_moment_after_the_end_is_refused_where_only_the_data_tells_the_length():
    module = _made()
    with pytest.raises(DemiglaceError, match="`freeze_ranges` comes at 33 steps, after the end"):
        _train(module, freeze_ranges="33 steps")  # of 8 epochs of 4 steps
    assert type(module.c1) is nn.Conv2d


def _recipe_of_qat(epochs, others=(), **options):
    fit = {"use": "train.supervised", "epochs": epochs, "with": [*others, {"use": "quantize.qat", **options}]}
    return {"model": {"use": "lenet"}, "data": {"use": "mnist5k"}, "pass": [fit]}


@pytest.mark.parametrize("cutter", ["prune.channels", "prune.blocks"])
def test_what_cuts_beside_it_is_refused_before_anything_runs(cutter):
    others = [{"use": cutter, "amount": 0.5, "schedule": {"shape": "one_shot"}}]
    with pytest.raises(RecipeError, match=r"removed, which step 'qat'.* does not take") as caught:
        demiglace.check(_recipe_of_qat(4, others))
    assert "a training of its own before" in caught.value.faults[0].hint
    demiglace.check(_recipe_of_qat(4, others, targets=["fc2"], inputs="float"))


def test_a_plain_data_graph_is_refused_when_it_is_planned():
    graph = lower(ModelGraph(_made(), Example((_images(4)[0],))))
    with pytest.raises(RecipeError, match="plain-data graph, whose layers cannot round"):
        _train(graph)
