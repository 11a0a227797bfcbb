"""Passes that begin where the ones before left off see what passes from the beginning see."""

import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from demiglace.calibration import Calls, InputGram, Replay, calibrate, execution_order
from demiglace.calibration.hollow import Touched, hollowed
from demiglace.data import Batch
from demiglace.graph import ModelGraph
from demiglace.passes import Context

WIDTH = 4
PLENTY = 1 << 20


class Block(nn.Module):
    """A residual block that returns a tuple, as those of encoders do."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)

    def forward(self, x, scale=1.0):
        return x + scale * self.down(F.gelu(self.up(self.norm(x)))), None


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, values):
        x = self.first(values) + values
        for block in self.blocks:
            x = block(x, scale=0.5)[0] * 1.5
        return {"logits": self.head(x.mean(1))}


class Skipping(nn.Module):
    """A U: what an early layer gives is needed at the end."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up2, self.up1 = nn.Linear(WIDTH, WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, values):
        early = self.down1(values)
        late = self.up2(self.down2(early).relu_())
        return self.up1(torch.cat([early, late], -1))


class Twice(nn.Module):
    """Calls one layer two times, the second time after another one."""

    def __init__(self):
        super().__init__()
        self.shared, self.between, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, values):
        return self.last(self.shared(self.between(self.shared(values).tanh()).tanh()))


class Remembering(nn.Module):
    """Its first layer's output reaches the last one by an attribute."""

    def __init__(self):
        super().__init__()
        self.note = Noting()
        self.middle, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, values):
        x = self.middle(self.note(values))
        return self.last(x + self.note.noted)


class Noting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.noted = None

    def forward(self, values):
        self.noted = self.layer(values)
        return self.noted.tanh()


class InPlace(nn.Module):
    """What works on a module's output in place must not reach what it answers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, values):
        return self.c(self.b(self.a(values).mul_(2)).add_(1))


@dataclass(frozen=True)
class Given:
    hidden: torch.Tensor


class Holding(nn.Module):
    """Its blocks give their output in a dataclass."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Holder() for _ in range(3))

    def forward(self, values):
        for block in self.blocks:
            values = block(values).hidden
        return Given(values)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, values):
        return Given(self.layer(values).tanh())


class Sometimes(nn.Module):
    """Needs its first layer's output again for some batches only, between two layers that are looked at."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.middle = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))

    def forward(self, values):
        first = self.first(values)
        x = self.middle(first)
        return self.last(x if len(values) % 2 else x + first)


class Listing(nn.Module):
    """Decides for some batches by the elements of an early layer, out of torch's sight."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, values):
        first = self.a(values)
        x = self.b(first)
        return self.c(x * 2 if len(values) % 2 == 0 and first.tolist() else x)


class Wired(nn.Module):
    """Each layer gets the sum of what some layers before it give."""

    def __init__(self, sources):
        super().__init__()
        self.sources = sources
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in sources)

    def forward(self, values):
        given = [values]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            given.append(layer(sum(given[one] for one in sources)).tanh())
        return given[-1]


def _batches(sizes=(3, 2, 5)):
    torch.manual_seed(1)
    return [Batch((torch.randn(size, 3, WIDTH),)) for size in sizes]


def _moments(net, batches, room, together=1):
    """All layers' second moments, each layer changed when it has been looked at, and how often modules ran.

    Modules that answer are counted too, what is in them is not.
    """
    model, context = ModelGraph(net.eval()), Context(seed=0, device=torch.device("cpu"))
    replay = None if room is None else Replay(net, Calls.of(net, batches[0]), room)
    names = [name for name, each in net.named_modules() if isinstance(each, nn.Linear)]
    found, calls = {}, dict.fromkeys((name for name, _ in net.named_modules()), 0)
    handles = [
        each.register_forward_hook(lambda *_, n=name: calls.update({n: calls[n] + 1}))
        for name, each in net.named_modules()
    ]
    order = execution_order(model, batches[0], names)
    for start in range(0, len(order), together):
        stage = [name for one in order[start : start + together] for name in one]
        grams = {name: InputGram() for name in stage}
        calibrate(model, batches, grams, context, stop_early=True, replay=replay)
        found |= {name: (gram.matrix, gram.rows, gram.calls) for name, gram in grams.items()}
        with torch.no_grad():
            for name in stage:
                net.get_submodule(name).weight.mul_(0.9)
    for handle in handles:
        handle.remove()
    return found, calls


def _made(kind):
    torch.manual_seed(0)
    return kind()


def _same(kind, room=PLENTY, together=1):
    batches = _batches()
    wanted, _ = _moments(_made(kind), batches, None, together)
    found, _ = _moments(_made(kind), batches, room, together)
    assert found.keys() == wanted.keys()
    for name, (matrix, rows, number) in wanted.items():
        assert torch.equal(found[name][0], matrix), name
        assert found[name][1:] == (rows, number), name


@pytest.mark.parametrize(
    "kind", [Encoder, Skipping, Twice, Remembering, InPlace, Holding, Sometimes, Listing]
)
@pytest.mark.parametrize("room", [PLENTY, 400, 0])
@pytest.mark.parametrize("together", [1, 2])
def test_layers_see_the_same_as_in_passes_from_the_beginning(kind, room, together):
    _same(kind, room, together)


class Showing(nn.Module):
    """Keeps what it computes where its user can look at it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.shown = None

    def forward(self, values):
        first = self.a(values)
        second = self.b(first)
        self.shown, self.both = first * 2, [first, second]
        return self.d(self.c(second))


def test_nothing_hollow_is_left_in_a_model():
    net = _made(Showing)
    _moments(net, _batches(), PLENTY)
    copied = copy.deepcopy(vars(net))
    assert copied["shown"].isfinite().all()
    assert all(one.isfinite().all() for one in copied["both"])


def _passes_of_the_first_block(room, batches, kind=Encoder, layer="up"):
    _, calls = _moments(_made(kind), batches, room)
    return calls[f"blocks.0.{layer}"]


def test_modules_that_are_behind_run_in_fewer_passes():
    # Ten layers are looked at, eight of them behind the block.
    plenty, never = (_passes_of_the_first_block(room, _batches()) for room in (PLENTY, None))
    assert 2 * plenty < never


def test_modules_whose_outputs_are_in_objects_answer_too():
    batches = _batches([2] * 6)
    plenty, never = (_passes_of_the_first_block(room, batches, Holding, "layer") for room in (PLENTY, None))
    assert plenty < never


def test_batches_without_room_run_from_the_beginning():
    batches = _batches([2] * 12)
    eight = 8 * batches[0].args[0].nbytes
    plenty, some, none = (_passes_of_the_first_block(room, batches) for room in (PLENTY, eight, 0))
    assert plenty < some < none


@st.composite
def _wirings(draw):
    count = draw(st.integers(2, 6))
    return [
        draw(st.lists(st.integers(0, place), min_size=1, max_size=3, unique=True)) for place in range(count)
    ]


@settings(max_examples=100, deadline=None)
@given(_wirings())
def test_any_wiring_gives_the_same(sources):
    _same(lambda: Wired(sources))


def test_what_is_computed_from_a_hollow_tensor_is_hollow_and_tells_its_shape():
    hollow = hollowed({"a": (torch.ones(2, 3), None)})["a"][0]
    found = F.linear(hollow, torch.ones(5, 3)).softmax(-1)[:, None]
    assert found.shape == (2, 1, 5)
    assert found.dtype is torch.float32
    assert found.device == torch.device("cpu")
    with pytest.raises(Touched):
        found.sum().item()


@pytest.mark.parametrize(
    "use",
    [
        lambda hollow: torch.zeros(2, 3).add_(hollow),
        lambda hollow: torch.zeros(2, 3).copy_(hollow),
        lambda hollow: torch.add(hollow, 1, out=torch.zeros(2, 3)),
        lambda hollow: torch.zeros(4, 3).__setitem__(slice(0, 2), hollow),
        lambda hollow: bool((hollow > 0).any()),
        lambda hollow: hollow.nonzero(),
    ],
)
def test_where_elements_are_needed_a_hollow_tensor_says_so(use):
    with pytest.raises(Touched):
        use(hollowed(torch.ones(2, 3)))
