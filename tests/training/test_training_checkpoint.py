"""Checkpoints: whole or not at all, and training goes on from one to the bit."""

from __future__ import annotations

import copy
import json
import math
import signal
import time

import pytest
import torch
from torch import nn

import demiglace
from demiglace.data import Data, IterableSplit, TensorSplit
from demiglace.errors import ArtifactError, UsageError
from demiglace.graph import Cut, ModelGraph, SetAttr
from demiglace.passes import Config, Context, Editor, Participant, Schedule
from demiglace.testing.fresh import fresh_processes
from demiglace.training import Scheduled
from demiglace.training.checkpoint import read_checkpoint
from demiglace.training.loop import CHECKPOINTS
from demiglace.training.plain import join, split
from demiglace_distillers.features import Features, FeaturesConfig
from demiglace_distillers.logits import Logits, LogitsConfig
from demiglace_pruners.magnitude import Magnitude, MagnitudeConfig
from demiglace_quantizers.kmeans import Kmeans, KmeansConfig
from demiglace_quantizers.qat import Qat, QatConfig
from demiglace_trainers.supervised import Supervised, SupervisedConfig

EPOCHS, STOP = 6, 3
CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a process that ends in the middle."""


class Kill(Participant[Config]):
    """Ends the training in the middle of an epoch, where asked to."""

    step = -1

    def before_step(self, at):
        if at.step == self.step:
            raise Killed


class HalfConfig(Config):
    """Cuts hidden units."""

    amount: float = 0.5


class HalfUnits(Editor[HalfConfig]):
    """Cuts the last of the hidden units."""

    def edits(self, model, context, amount=None):
        width = model.module.fc1.out_features
        kept = tuple(range(width - round(width * amount)))
        yield from (Cut("fc1.weight", 0, kept), Cut("fc1.bias", 0, kept), Cut("fc2.weight", 1, kept))
        yield from (Cut("norm.weight", 0, kept), Cut("norm.bias", 0, kept))
        yield from (Cut("norm.running_mean", 0, kept), Cut("norm.running_var", 0, kept))
        yield from (SetAttr("fc1", "out_features", len(kept)), SetAttr("fc2", "in_features", len(kept)))
        yield SetAttr("norm", "num_features", len(kept))


def net(seed: int = 3, width: int = 16) -> ModelGraph:
    torch.manual_seed(seed)
    module = nn.Sequential()
    module.add_module("fc1", nn.Linear(8, width))
    module.add_module("norm", nn.BatchNorm1d(width))
    module.add_module("act", nn.ReLU())
    module.add_module("drop", nn.Dropout(0.3))
    module.add_module("fc2", nn.Linear(width, 4))
    return ModelGraph(module)


def points():
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(120) % 4
    return 3 * torch.randn(4, 8, generator=rng)[labels] + torch.randn(120, 8, generator=rng), labels


def tensors() -> Data:
    split = TensorSplit(*points())
    return Data({"train": split, "validation": split}, batch_size=20)


def loader() -> Data:
    """A caller's loader with an order of its own."""
    dataset = torch.utils.data.TensorDataset(*points())
    own = torch.Generator().manual_seed(5)
    made = torch.utils.data.DataLoader(dataset, batch_size=20, shuffle=True, generator=own)
    return Data({"train": IterableSplit(made), "validation": TensorSplit(*points())})


def restless() -> Data:
    """A caller's loader that draws from torch's, Python's and numpy's own random numbers."""
    import random

    import numpy as np

    random.seed(4)
    np.random.seed(4)

    class Jittered:
        def __iter__(self):
            inputs, labels = points()
            for rows in torch.randperm(120).split(20):
                noise = torch.randn(20, 8) + random.gauss(0, 1) + float(np.random.randn())
                yield inputs[rows] + noise, labels[rows]

    return Data({"train": IterableSplit(Jittered()), "validation": TensorSplit(*points())})


def gradual() -> Scheduled:
    return Scheduled(Magnitude(MagnitudeConfig(amount=0.8)), Schedule(end=0.8, every="2 steps"), "pruner")


def cutting() -> Scheduled:
    schedule = Schedule(shape="linear", begin=0.1, end=0.8, every="5 steps")
    return Scheduled(HalfUnits(HalfConfig()), schedule, "cutter")


def soft() -> Logits:
    return Logits(LogitsConfig(teacher="start", cache=True))


def features() -> Features:
    return Features(FeaturesConfig(layers={"fc1": "fc1"}))


def integers() -> Qat:
    return Qat(QatConfig(bits=4, inputs="int8"))


def shared() -> Kmeans:
    return Kmeans(KmeansConfig(clusters=3, start=0.3))


ADAM = {"name": "AdamW", "lr": 0.01}
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
PLATEAU = {"name": "ReduceLROnPlateau", "patience": 1, "threshold": 0.9}
BEST = {"keep": "best", "metric": "accuracy", "early_stopping": {"patience": 5}}
CASES = {
    "adam": ({"optimizer": ADAM}, tensors, ()),
    "one cycle, average": ({"optimizer": ADAM, "scheduler": "OneCycleLR", "ema": 0.9}, tensors, ()),
    "cosine, warm-up": (
        {"optimizer": SGD, "scheduler": "CosineAnnealingLR", "warmup": "4 epochs", "accumulate": 2},
        tensors,
        (),
    ),
    "plateau, best": ({"optimizer": SGD, "scheduler": PLATEAU, **BEST}, tensors, ()),
    "cyclic": (
        {"optimizer": SGD, "scheduler": {"name": "CyclicLR", "base_lr": 1e-3, "step_size_up": 4}},
        tensors,
        (),
    ),
    "adafactor": ({"optimizer": {"name": "Adafactor"}}, tensors, ()),
    "own loader": ({"optimizer": ADAM}, loader, ()),
    "other random numbers": ({"optimizer": ADAM}, restless, ()),
    "masks": ({"optimizer": ADAM, "ema": 0.9}, tensors, (gradual,)),
    "cuts": ({"optimizer": ADAM, "ema": 0.9, **BEST}, tensors, (cutting,)),
    "cuts, masks, teachers": ({"optimizer": ADAM}, tensors, (features, soft, cutting, gradual)),
    "integers": ({"optimizer": ADAM, "ema": 0.9}, tensors, (integers,)),
    "shared values": ({"optimizer": ADAM, "ema": 0.9}, tensors, (shared,)),
    "compiled": ({"optimizer": ADAM, "compile": "eager"}, tensors, (cutting,)),
}


def train(case, folder, *, kill=-1, resume=None):
    """Train, to be killed at a step or to go on from a checkpoint; what there is in the end."""
    options, data, participants = CASES[case]
    config = SupervisedConfig.model_validate({"epochs": EPOCHS, "checkpoint": True, **options})
    model = net()
    teacher = net(4, 20)
    teacher.module.eval()
    context = Context(seed=7, device=CPU, data=data(), folder=folder, resume=resume, teacher=lambda: teacher)
    killer = Kill(Config())
    killer.step = kill
    return model, Supervised(config).train(model, context, [*(one() for one in participants), killer])


def state(model: ModelGraph) -> dict[str, torch.Tensor]:
    masks = {f"mask {name}": keep for name, keep in model.masks.items()}
    return {name: value.clone() for name, value in model.module.state_dict().items()} | masks


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_a_checkpoint_to_the_bit(case, tmp_path):
    whole, figures = train(case, tmp_path / "whole")
    steps = -(-6 // CASES[case][0].get("accumulate", 1))
    with pytest.raises(Killed):
        train(case, tmp_path / "killed", kill=STOP * steps + steps // 2)
    folder = tmp_path / "killed" / CHECKPOINTS
    last = folder / f"epoch-{STOP:04d}"
    assert last.is_dir()
    torch.manual_seed(99)
    again, resumed = train(case, tmp_path / "again", resume=last)
    assert resumed == figures
    assert state(again).keys() == state(whole).keys()
    for name, value in state(whole).items():
        assert torch.equal(state(again)[name], value), name


def checkpoint(tmp_path):
    train("masks", tmp_path)
    return tmp_path / CHECKPOINTS / f"epoch-{EPOCHS:04d}"


def test_only_the_last_and_the_best_epoch_stay(tmp_path):
    train("adam", tmp_path / "adam")
    assert [one.name for one in (tmp_path / "adam" / CHECKPOINTS).iterdir()] == [f"epoch-{EPOCHS:04d}"]
    _, figures = train("plateau, best", tmp_path / "best")
    names = {f"epoch-{figures[one]:04d}" for one in ("epochs", "best_epoch")}
    assert {one.name for one in (tmp_path / "best" / CHECKPOINTS).iterdir()} == names


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = checkpoint(tmp_path)
    for file in ("training.json", "training.safetensors", "model/model.safetensors", "model/manifest.json"):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(ArtifactError, match=r"damaged|cannot be read|is not"):
            read_checkpoint(folder)
        (folder / file).write_bytes(content)
    read_checkpoint(folder)
    (folder / "training.json").unlink()
    with pytest.raises(ArtifactError, match="not a demiglace checkpoint"):
        read_checkpoint(folder)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    folder = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="another training: its participants"):
        train("adam", tmp_path / "other", resume=folder)
    with pytest.raises(UsageError, match="another training: its steps"):
        train("cosine, warm-up", tmp_path / "other", resume=folder)


def test_a_state_that_cannot_be_stored_is_named(tmp_path):
    class Unstorable(Kill):
        def state(self):
            return {"rows": [1, {"what": object()}]}

    context = Context(seed=7, device=CPU, data=tensors(), folder=tmp_path)
    trainer = Supervised(SupervisedConfig(epochs=1, checkpoint=True))
    with pytest.raises(ArtifactError, match=r"participants\.0\.1\.rows\.1\.what is a object"):
        trainer.train(net(), context, [Unstorable(Config())])


def test_a_tree_comes_back_as_it_was():
    tree = {
        "a": [1, 2.5, None, True, "x"],
        3: (float("inf"), float("-inf")),
        "t": {"x": torch.arange(3), "y": [torch.tensor(2.0)]},
        "empty": {},
        "float": 0.1 + 0.2,
    }
    plain, tensors = split(copy.deepcopy(tree))
    back = join(json.loads(json.dumps(plain, allow_nan=False)), tensors)
    assert torch.equal(back["t"].pop("x"), tree["t"].pop("x"))
    assert back == tree
    assert math.isnan(join(*split(float("nan"))))


def test_tensors_whose_paths_are_spelt_alike_stay_apart():
    tree = {"a": {"b": torch.zeros(2)}, "a.b": torch.ones(3), 1: torch.zeros(4), "1": torch.ones(5)}
    back = join(*split(tree))
    assert [len(one) for one in (back["a"]["b"], back["a.b"], back[1], back["1"])] == [2, 3, 4, 5]


RECIPE = {
    "name": "kept",
    "model": {"use": "mlp", "widths": [12, 64, 4]},
    "data": {"use": "fake", "shape": [12], "classes": 4, "train": 64, "batch_size": 16},
    "pass": [
        {
            "id": "dense",
            "use": "train.supervised",
            "epochs": 3,
            "checkpoint": True,
            "control": True,
            "with": [{"use": "prune.magnitude", "amount": 0.5}],
        }
    ],
}


def test_a_run_keeps_its_checkpoint_and_the_model_in_it_loads(tmp_path):
    result = demiglace.run(RECIPE, out=tmp_path / "run")
    [folder] = (tmp_path / "run" / "steps" / "01-dense" / CHECKPOINTS).iterdir()
    model = demiglace.load(folder / "model")
    for name, value in result.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert read_checkpoint(folder).state["at"]["epoch"] == 3


def test_a_checkpoint_changes_nothing_and_without_a_directory_is_warned_of(tmp_path):
    with_one, without = demiglace.run(RECIPE), demiglace.run(RECIPE, overrides=["dense.checkpoint=false"])
    assert with_one.steps[0].output == without.steps[0].output
    assert "the run has no directory" in with_one.steps[0].warnings[0]
    assert not without.steps[0].warnings


def train_for_long(out):
    demiglace.run(RECIPE, out=out, overrides=["dense.epochs=100000"])


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    found = 0
    for attempt in range(3):
        out = tmp_path / str(attempt)
        folder = out / "steps" / "01-dense" / CHECKPOINTS
        process = fresh_processes().Process(target=train_for_long, args=(out,))
        process.start()
        until = time.monotonic() + 120
        while not list(folder.glob("epoch-*")):
            assert process.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.037 * attempt)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        whole = list(folder.glob("epoch-*"))
        assert whole
        found += len([read_checkpoint(one) for one in whole])
    assert found >= 3
