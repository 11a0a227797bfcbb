"""Weights that share values: what is clustered, what is trained, what is stored."""

import pytest
import torch
from torch import nn

import demiglace
from demiglace.artifact.inspection import inspect
from demiglace.artifact.packed import unpack
from demiglace.errors import DemiglaceError, RecipeError
from demiglace.graph import Example, ModelGraph, apply
from demiglace.graph.plain import PlainGraph
from demiglace.graph.swaps import swapped
from demiglace.measure import measure
from demiglace.quantization import Clustered, SharedTensor, weight_only_swap
from demiglace.quantization.clustering import centroids_of, nearest


class Mixed(nn.Module):
    """An embedding, attention, convolutions forth and back."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.conv, self.back = nn.Conv1d(16, 8, 3), nn.ConvTranspose1d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, ids):
        x = self.words(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.back(self.conv(x.transpose(1, 2)).relu()).mean(2))


def tokens(count=96):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (count,), generator=generator)
    ids = torch.randint(30, (count, 6), generator=generator)
    return torch.where(torch.rand(count, 6, generator=generator) < 0.5, labels[:, None], ids), labels


def points(count=128):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 4
    centres = 3 * torch.randn(4, 10, generator=generator)
    return centres[labels] + torch.randn(count, 10, generator=generator), labels


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4))


def train(module, data=None, others=(), out=None, after=(), train=None, **options):
    values, labels = points() if data is None else data
    batches = [(values[i : i + 32], labels[i : i + 32]) for i in range(0, len(values), 32)]
    fit = {
        "use": "train.supervised",
        "epochs": 10,
        "optimizer": {"name": "Adam", "lr": 0.01},
        "with": [*others, {"id": "share", "use": "share.kmeans", **options}],
        **(train or {}),
    }
    recipe = {"name": "k", "pass": [fit, *after]}
    splits = {"train": batches, "validation": batches}
    return demiglace.run(recipe, model=module, data=splits, example_inputs=values[:4], out=out)


def accuracy(module, values, labels):
    with torch.no_grad():
        return float((module.eval()(values).argmax(1) == labels).float().mean())


def test_clusters_are_found_from_evenly_spread_beginnings_and_leave_zeros_out():
    torch.manual_seed(0)
    groups = [centre + 0.01 * torch.randn(40) for centre in (-2.0, 0.5, 3.0)]
    weight = torch.cat([*groups, torch.zeros(1000)])
    torch.testing.assert_close(
        centroids_of(weight, 3), torch.stack([one.mean() for one in groups]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("elements", [[0.0, 0.0], [1.0, 1.0], [], [2.0, -1.0]])
def test_more_clusters_than_different_weights_are_no_trouble(elements):
    weight = torch.tensor(elements)
    centroids = centroids_of(weight, 7)
    assert centroids.shape == (7,)
    assert torch.isfinite(centroids).all()
    if len(weight):
        assert torch.equal(centroids[nearest(weight, centroids)], weight)


def test_a_centroids_gradient_is_the_sum_of_its_weights_gradients():
    layer = swapped("clustered", nn.Linear(6, 5), {"clusters": {"weight": 3}})
    assert isinstance(layer, Clustered)
    with torch.no_grad():
        layer.weight[0, :3] = 0
    layer.share()
    weight = layer.computed("weight")
    weight.retain_grad()
    (weight * torch.randn(5, 6)).sum().backward()
    centroids = layer.get_parameter("weight_centroids")
    sums = [weight.grad[(weight == one) & (layer.own("weight") != 0)].sum() for one in centroids]
    torch.testing.assert_close(centroids.grad, torch.stack(sums))
    assert torch.equal(layer.own("weight").grad, weight.grad)
    assert (weight[0, :3] == 0).all()


def test_before_it_starts_the_layer_computes_as_it_would_without():
    module = plain()
    alone, beside = plain(), plain()
    train(alone, clusters=3, train={"epochs": 1}, start="4 steps")
    seen = []

    class Watching(nn.Sequential):
        def forward(self, x):
            if self.training:
                seen.append(self[0].sharing)
                if not self[0].sharing:
                    assert self[0].computed("weight") is self[0].own("weight")
            return super().forward(x)

    module.__class__ = Watching
    train(module, clusters=3, start="12 steps")
    assert seen == [False] * 12 + [True] * 28
    assert len(alone[0].weight.unique()) == 3
    assert len(beside[0].weight.unique()) == beside[0].weight.numel()


@pytest.mark.parametrize("biases", [{}, {"bias_clusters": 2}])
def test_layers_of_all_kinds_share_learn_save_and_open_again(biases, tmp_path):
    values, labels = tokens()
    module = Mixed()
    for name, one in module.named_parameters():
        if "bias" in name:  # those of attention begin as zeros, and zeros stay
            nn.init.normal_(one, std=0.1)
    after = [{"use": "export.packed"}]
    result = train(module, (values, labels), out=tmp_path / "run", clusters=6, after=after, **biases)
    names = ("words", "attention", "conv", "back", "head")
    kinds = {name: type(module.get_submodule(name)).__name__ for name in names}
    assert set(kinds.values()) == {
        "QuantizedEmbedding",
        "QuantizedMultiheadAttention",
        "QuantizedConv1d",
        "QuantizedConvTranspose1d",
        "QuantizedLinear",
    }
    assert accuracy(module, values, labels) > 0.7
    assert len(module.attention.in_proj_weight.unique()) == 6
    shared_biases = [module.head.bias, module.conv.bias, module.back.bias, module.attention.in_proj_bias]
    if biases:
        assert not [name for name, _ in module.named_parameters()]
        assert all(len(one.unique()) <= 2 for one in shared_biases)
        # Eight numbers of one bit each, and two floats.
        assert result.steps[0].after.layers["conv.bias"].bits == 8 + 2 * 32
    else:
        assert {name.rpartition(".")[2] for name, _ in module.named_parameters()} == {"bias", "in_proj_bias"}
        assert len(module.conv.bias.unique()) == 8
    expected = module(values)
    assert torch.equal(demiglace.load(tmp_path / "run", model=Mixed)(values), expected)
    file = next(tmp_path.glob("run/steps/*/model.dgz"))
    assert torch.equal(demiglace.load(file, model=Mixed)(values), expected)
    graph = demiglace.load(file)  # the plain-data graph, without the class
    torch.testing.assert_close(graph(values), expected)
    assert {row["weight"] for row in result.steps[0].figures["shared"]} >= {"words.weight", "head.weight"}


def test_a_pruner_in_the_same_training_keeps_its_zeros_and_all_is_counted(tmp_path):
    module = plain()
    pruner = {"use": "prune.magnitude", "amount": 0.75, "schedule": {"end": 0.4}}
    result = train(module, others=[pruner], clusters=3, out=tmp_path, after=[{"use": "export.packed"}])
    assert accuracy(module, *points()) > 0.9
    footprint = result.steps[0].after
    total = 10 * 24 + 24 * 4
    assert footprint.over(["0.weight", "2.weight"]).zeros == round(0.75 * total)
    # Zero and up to three values take 2 bits: a row of 10 weights 3 bytes, one of 24 weights 6.
    for name, octets in (("0", 24 * 3), ("2", 4 * 6)):
        values = len(module.get_submodule(name).weight.unique())
        assert 3 <= values <= 4
        assert footprint.layers[f"{name}.weight"].bits == 8 * octets + 32 * values
    reports = {one.name: one for one in inspect(next(tmp_path.glob("steps/*/model.dgz"))).tensors}
    for name in ("0", "2"):
        codes = reports[f"{name}.weight_codes"]
        assert (codes.dtype, codes.is_weight) == ("int2", True)
        assert codes.zeros == footprint.layers[f"{name}.weight"].zeros


def test_zeros_that_were_there_before_stay():
    module = plain()
    demiglace.run({"name": "p", "pass": [{"use": "prune.magnitude", "amount": 0.5}]}, model=module)
    zeros = {name: one == 0 for name, one in module.named_parameters() if one.dim() > 1}
    masked = [{"use": "prune.magnitude", "amount": 0.5, "schedule": {"shape": "one_shot", "begin": 0.0}}]
    train(module, others=masked, clusters=4)
    for name, zero in zeros.items():
        assert (module.get_submodule(name.partition(".")[0]).weight[zero] == 0).all()


@pytest.mark.parametrize("entries", [1, 2, 3, 5, 16, 17, 256])
def test_codebooks_of_every_size_are_stored_in_as_few_bits(entries, tmp_path):
    from demiglace.artifact import GraphOrigin
    from demiglace.artifact.packed import pack

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(50, 40, bias=False))
    index = torch.arange(2000).remainder(entries).view(40, 50)
    codebook = torch.randn(entries).sort().values
    shared = SharedTensor.of(index, codebook, (40, 50))
    assert torch.equal(shared.dequantize(), codebook[index])
    assert torch.equal(shared.rows(torch.tensor([7, 3])).dequantize(), codebook[index][[7, 3]])
    graph = ModelGraph(module, Example((torch.randn(2, 50),)))
    apply(graph, [weight_only_swap("0", module[0], {"weight": shared})]).commit()
    bits = max(1, (entries - 1).bit_length())
    assert -(-50 * bits // 8) <= shared.codes.shape[1] <= -(-50 * bits // 8) + 4
    assert measure(graph).bits == 8 * shared.codes.numel() + 32 * entries
    pack(graph, tmp_path / "m.dgz", origin=GraphOrigin())
    back = unpack(tmp_path / "m.dgz")
    assert back.header.tensors["0.weight_codes"].fields.bits == bits
    assert torch.equal(back.tensors["0.weight_codebook"], codebook)


@pytest.mark.parametrize("entries", [0, 257])
def test_a_codebook_that_integers_cannot_number_is_refused(entries):
    with pytest.raises(ValueError, match="1 to 256"):
        SharedTensor.of(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(entries), (2, 2))


def test_the_weights_that_stay_are_of_an_epoch_in_which_they_shared():
    module = plain()
    values, labels = points()
    result = train(module, clusters=4, start=0.5, train={"keep": "best", "metric": "accuracy"})
    assert result.steps[0].figures["best_epoch"] > 5
    assert accuracy(module, values, labels) > 0.9


class FixedWidth(nn.Module):
    """What a cut turns into a plain-data graph, since a width is written into its forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(10, 24), nn.Linear(24, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu().reshape(-1, 12))


def test_a_model_that_a_cut_turned_into_a_graph_shares_and_opens_again(tmp_path):
    torch.manual_seed(0)
    values, labels = points()
    data = [(values[:64], labels[:64]), (values[64:], labels[64:])]
    fit = {"use": "train.supervised", "epochs": 20, "optimizer": {"name": "Adam", "lr": 0.01}}
    share = {"use": "share.kmeans", "clusters": 6}
    recipe = {"pass": [{"use": "prune.channels", "amount": 0.5}, fit | {"with": [share]}]}
    result = demiglace.run(recipe, model=FixedWidth(), data=data, out=tmp_path / "run")
    assert isinstance(result.model, PlainGraph)
    assert all(one["values"] <= 7 for one in result.steps[1].figures["shared"])
    assert len(result.steps[1].figures["shared"]) == 3
    assert accuracy(result.model, values, labels) > 0.9
    assert torch.equal(demiglace.load(tmp_path / "run")(values), result.model(values))


def test_training_after_it_is_refused_before_anything_runs():
    fit = {"use": "train.supervised", "epochs": 1}
    recipe = {"name": "k", "pass": [{**fit, "with": [{"use": "share.kmeans"}]}, fit]}
    with pytest.raises(RecipeError, match=r"model\.trainable"):
        demiglace.check(recipe)


def test_what_cannot_share_is_refused_or_named():
    with pytest.raises(DemiglaceError, match="no layer that can be quantized"):
        train(plain(), targets=["1"])
    tied = Mixed()
    tied.extra = nn.Linear(16, 30, bias=False)
    tied.extra.weight = tied.words.weight
    step = train(tied, tokens()).record.steps[0]
    assert "shares its weight" in step.left_alone["words"]
    assert type(tied.words) is nn.Embedding


@pytest.mark.parametrize("clusters", [0, 256, "many"])
def test_an_impossible_number_of_clusters_is_refused_with_its_place(clusters):
    share = {"use": "share.kmeans", "clusters": clusters}
    recipe = {"name": "k", "pass": [{"use": "train.supervised", "epochs": 1, "with": [share]}]}
    with pytest.raises(RecipeError, match="clusters"):
        demiglace.check(recipe)
