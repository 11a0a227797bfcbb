"""The rules by which `demiglace quick` picks a recipe. Pure: facts and a goal in, tables out.

1. A model that is hardly better than guessing is trained first, where the data has labels.
2. Fewer multiply-accumulates come from removing channels, which training then repairs (without labels: least
   squares on examples).
3. A smaller size comes from the mildest of `WAYS` whose size, counted beforehand, reaches the goal:
   bfloat16, then integers of 8, 6, 4, 3 and 2 bits. Down to 4 bits weights are rounded; with fewer they are
   trained, where the data has labels.
4. Where no number of bits is small enough, channels go too, and 4-bit integers follow.
5. A shorter time comes from computing on integers of 8 bits: in networks with convolutions and examples
   by `quantize.static` and `quantize.edges`, else by `quantize.dynamic`. The file is exported for the first
   of `RUNTIMES` that is installed here, and timed in it. Where that is not small enough, channels go too.
6. The goal's bounds become the recipe's gates; the last step writes the packed file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from demiglace.quick.facts import Facts, Weight
from demiglace.quick.goal import Goal
from demiglace.recipe import ORIGINAL

Table = dict[str, Any]

GROUP = 32
"""Weights that share a scale at 4 bits, where that is small enough."""
TRAINING_STEPS, MOST_EPOCHS = 1000, 30
"""How long a training is, in optimizer steps and at most in epochs."""
RATE = 1e-3
"""The learning rate of Adam at the start of a training."""
LEAST_LEFT = 0.02
"""The least share of a model's parameters that removing channels leaves."""

RUNTIMES = {True: ("openvino", "onnx"), False: ("onnx", "openvino")}
"""Which runtime comes first, by whether integers have fixed ranges: where inputs are rounded as they come,
ONNX Runtime is the faster one."""

_SCALE = 2  # bytes of a scale
_TRAINED_ROW = 12  # bytes that a row of a layer that computes holds beside: a scale of four, sums, a bias
_EARLIEST_TRAINED = 3  # bits: with as many or fewer, weights are trained


@dataclass(frozen=True)
class Way:
    """One way to store weights."""

    bits: Literal[16, 8, 6, 4, 3, 2]
    group: int | None = None
    #: Whether layers compute on the integers too.
    computes: bool = False

    def trains(self, facts: Facts) -> bool:
        """Whether weights are trained as these integers."""
        return self.bits <= _EARLIEST_TRAINED and facts.trainable

    def bytes(self, facts: Facts) -> float:
        """What the model's tensors take, counted without running anything."""
        if self.bits == 16:
            return facts.bytes - facts.float_bytes / 2
        row = _TRAINED_ROW if self.computes or self.trains(facts) else 0
        return facts.bytes + sum(self._stored(one, row) - one.bytes for one in facts.weights)

    def _stored(self, weight: Weight, row: int) -> float:
        if self.group is not None and weight.columns % self.group:
            return weight.bytes  # left alone
        groups = 1 if self.group is None else weight.columns // self.group
        codes = _packed(weight.columns, self.bits) + _packed(groups, self.bits)  # weights, zero points
        return weight.rows * (codes + _SCALE * groups + row)

    def words(self) -> str:
        """What it is, in a comment."""
        return "16-bit floating point" if self.bits == 16 else f"integers of {self.bits} bits"


def _packed(count: int, bits: int) -> int:
    """Bytes of `count` integers: as many as fill whole bytes make a unit, and units stay whole."""
    unit = math.lcm(bits, 8)
    return math.ceil(count * bits / unit) * unit // 8


WAYS = (Way(16), Way(8), Way(6), Way(4, GROUP), Way(4), Way(3), Way(2))
"""From what costs least accuracy to what is smallest."""
BESIDE_CHANNELS = Way(4)
FAST = Way(8, computes=True)


@dataclass
class Draft:
    """A recipe in the making, with a comment for each table."""

    tables: Table
    #: By the table's place, as `demiglace.recipe.written` takes them.
    comments: dict[str, str] = field(default_factory=dict)
    #: What cannot be reached or checked, told before the run.
    warnings: list[str] = field(default_factory=list)

    def add(self, comment: str, **table: Any) -> None:
        """Add a pass."""
        self.comments[f"pass.{len(self.tables['pass'])}"] = comment
        self.tables["pass"].append(table)


def draft(facts: Facts, goal: Goal, sources: Mapping[str, Any]) -> Draft:
    """The recipe that the rules give.

    Args:
        facts: of the model and the data.
        goal: what to reach.
        sources: the recipe's `model`, `data` and whatever else was said beforehand.
    """
    made = Draft({"name": "quick", **sources, "pass": []})
    start = _train(made, facts)
    way, left = _storage(made, facts, goal)
    _remove_channels(made, facts, goal, left)
    _store(made, facts, way)
    made.add("The whole model as one file: demiglace.load opens it.", id="packed", use="export.packed")
    _judge(made, facts, goal, start)
    made.comments[""] = f"Written by `demiglace quick` for the goal: {goal}. Change it and run it again."
    return made


def _storage(made: Draft, facts: Facts, goal: Goal) -> tuple[Way | None, float]:
    """How to store weights, and the share of parameters that may be left for the size that is asked."""
    ways, beside = ((FAST,), FAST) if goal.faster else (WAYS, BESIDE_CHANNELS)
    if goal.smaller is None:
        return FAST if goal.faster else None, 1.0
    allowed = facts.bytes / goal.smaller
    fitting = next((way for way in ways if way.bytes(facts) <= allowed), None)
    if fitting is not None:
        return fitting, 1.0
    if facts.prunable:
        # Cutting both sides of a layer removes more than is counted here, never less.
        return beside, max(LEAST_LEFT, allowed / beside.bytes(facts))
    smallest = min(ways, key=lambda way: way.bytes(facts))
    factor = facts.bytes / smallest.bytes(facts)
    made.warnings.append(
        f"the rules know no way to {goal.smaller:g}x smaller: about {factor:.1f}x is the most"
    )
    return smallest, 1.0


def _train(made: Draft, facts: Facts) -> str:
    """A training of a model that has none behind it; gives the id that gates on accuracy compare with."""
    if not facts.untrained:
        return ORIGINAL
    if not facts.trainable:
        made.warnings.append("the model is hardly better than guessing, and there is nothing to train it on")
        return ORIGINAL
    known = f"{facts.accuracy:.1%} right, {facts.guessing:.1%} by always guessing the most frequent class"
    made.add(f"The model came untrained ({known}).", id="dense", **_training(facts))
    return "dense"


def _training(facts: Facts) -> Table:
    steps = facts.steps_per_epoch
    length = (
        {"epochs": min(MOST_EPOCHS, math.ceil(TRAINING_STEPS / steps))}
        if steps
        else {"steps": TRAINING_STEPS}
    )
    optimizer = {"name": "Adam", "lr": RATE}
    return {"use": "train.supervised", **length, "optimizer": optimizer, "scheduler": "CosineAnnealingLR"}


def _remove_channels(made: Draft, facts: Facts, goal: Goal, left: float) -> None:
    """Cut channels for fewer multiply-accumulates, for the size, or for both, and repair the rest."""
    if goal.fewer_macs is not None:
        share = 1 - 1 / goal.fewer_macs
        made.add("Whole channels go: what is left computes less.", **_channels("macs", share))
    if left < 1:
        made.add("Bits alone are not small enough: channels go too.", **_channels("parameters", 1 - left))
    if goal.fewer_macs is None and left == 1:
        return
    if not facts.prunable:
        made.warnings.append("no channels of this model can be removed; `demiglace graph` says why")
    if facts.trainable:
        made.add("What is left learns to do without the rest.", id="fine-tune", **_training(facts))
    elif "train" in facts.splits or "calibration" in facts.splits:
        made.add(
            "Without labels: fit what is left to the old outputs.", id="repair", use="repair.least_squares"
        )


def _channels(of: str, share: float) -> Table:
    return {"use": "prune.channels", "of": of, "amount": math.ceil(share * 1e4) / 1e4}


def _store(made: Draft, facts: Facts, way: Way | None) -> None:
    if way is None:
        return
    if way.computes:
        _compute_on_integers(made, facts)
    elif way.bits == 16:
        made.add("Half the bytes.", use="quantize.cast", dtype="bfloat16")
    elif way.trains(facts):
        _learn_integers(made, facts, way)
    else:
        comment = f"The mildest way that is small enough: {way.words()}."
        made.add(comment, id=f"int{way.bits}", use="quantize.weight_only", **_rounding(facts, way))


def _compute_on_integers(made: Draft, facts: Facts) -> None:
    """Integers that a runtime is fast with, the file for it, and the time that it takes."""
    if _fixed_ranges(facts):
        made.add("Layers compute on integers of 8 bits.", id="int8", use="quantize.static")
        made.add("So does what lies between them.", use="quantize.edges")
    else:
        made.add("Linear layers compute on integers of 8 bits.", id="int8", use="quantize.dynamic")
    runtime = _runtime(facts)
    if runtime in facts.runtimes:
        made.add(f"The file that ships, for {runtime}.", id="file", use=facts.runtimes[runtime])
    else:
        made.warnings.append(
            "no runtime of exported files is installed: `demiglace advise` says what to install"
        )
    timing = {"use": "evaluate.latency", "runtimes": [runtime], "batch_sizes": [1]}
    made.add("The time of a call, against eager float32.", id="time", **timing)


def _fixed_ranges(facts: Facts) -> bool:
    """Whether integers have ranges that were fixed by examples, between layers too."""
    return facts.convolutions and bool({"train", "calibration"} & facts.splits)


def _runtime(facts: Facts) -> str:
    """Where integers are fast here."""
    installed = (one for one in RUNTIMES[_fixed_ranges(facts)] if one in facts.runtimes)
    return next(installed, "inductor" if facts.compiles else "eager")


def _rounding(facts: Facts, way: Way) -> Table:
    """The options of rounding: below 6 bits by examples, where there are any."""
    group = {} if way.group is None else {"group_size": way.group}
    examples = bool({"train", "calibration"} & facts.splits)
    careful = {"method": "gptq" if examples else "hqq"} if way.bits <= BESIDE_CHANNELS.bits else {}
    return {"bits": way.bits, **group, **careful}


def _learn_integers(made: Draft, facts: Facts, way: Way) -> None:
    """A training whose weights are integers all along, taught by the model as it was."""
    at = len(made.tables["pass"])
    made.comments[f"pass.{at}.with.0"] = "The model as it was teaches beside."
    made.comments[f"pass.{at}.with.1"] = f"Weights become {way.words()}."
    made.add(
        "So few bits have to be learned.",
        id=f"int{way.bits}",
        **_training(facts),
        **{
            "with": [
                {"use": "distill.logits", "teacher": "start", "alpha": 0.7},
                {"use": "quantize.qat", "bits": way.bits, "inputs": "float"},
            ]
        },
    )


def _judge(made: Draft, facts: Facts, goal: Goal, start: str) -> None:
    """Evaluators and gates."""
    gates: Table = {}
    if facts.labels:
        split = next(name for name in ("test", "validation", "train", *facts.splits) if name in facts.splits)
        made.tables["evaluate"] = [{"use": "evaluate.classification", "split": split}]
    if goal.points is not None:
        gates["accuracy"] = {"max_drop": round(goal.points / 100, 6), "against": start}
    # Rounded down: a ratio that keeps the gate reaches the goal.
    for name, factor in (("bytes", goal.smaller), ("macs", goal.fewer_macs)):
        if factor is not None:
            gates[name] = {"max_ratio": math.floor(1e4 / factor) / 1e4, "against": ORIGINAL}
    if goal.faster is not None:
        gates[f"speedup_{_runtime(facts)}_b1"] = {"min": goal.faster}
    made.tables["gate"] = gates
    made.comments["gate"] = "The goal: `demiglace run` exits with 1 when one of these is missed."
