"""What compression during training costs and what a teacher gives, on real digits over several seeds.

Runs the shipped recipes with `seed` 0, 1, ... and prints, for each figure, its mean with the spread between
seeds, paired by seed: the pruned network against the dense one, the distilled student against the same one on
labels alone (the recipe's control).

    python benchmarks/bench_digits.py                  # everything, 5 seeds: half an hour on one core
    python benchmarks/bench_digits.py gradual-95 --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import demiglace
from demiglace.engine.result import Result


def against_dense(result: Result) -> dict[str, float]:
    """Points of accuracy of a gradual pruning against the dense network, and of its control."""
    dense, gradual = result.steps[0].metrics["accuracy"], result.steps[1].metrics["accuracy"]
    figures = {"dense, %": 100 * dense.value, "pruned - dense": 100 * (gradual.value - dense.value)}
    if result.steps[1].control:
        longer = result.steps[1].control["accuracy"].value
        figures["control - dense"] = 100 * (longer - dense.value)
    return figures


def against_labels(result: Result) -> dict[str, float]:
    """Points of accuracy of a distilled student against the same student on labels alone."""
    taught, alone = result.steps[0].metrics["accuracy"].value, result.steps[0].control["accuracy"].value
    return {"labels alone, %": 100 * alone, "distilled - alone": 100 * (taught - alone)}


def fall(result: Result) -> dict[str, float]:
    """How many times the divergence fell from the first epoch's mean to the last's."""
    history = result.steps[0].figures["history"]
    return {"fall, times": history[0]["loss"] / history[-1]["loss"]}


LONG = ("prune.amount=0.98", "gradual.epochs=50")
SELF = (*LONG, "soft.teacher=start", "soft.alpha=0.7")
CASES = {
    "gradual-95": ("gradual-95", (), against_dense),
    "gradual-98": ("gradual-98", (), against_dense),
    "gradual-98 with a better teacher": ("gradual-teacher", LONG, against_dense),
    "gradual-98 from itself": ("gradual-teacher", SELF, against_dense),
    "teacher-student": ("teacher-student", (), against_labels),
    "distill-textbook": ("distill-textbook", (), fall),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of: {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--set", action="append", default=[], help="a further override, for trying things out"
    )
    options = parser.parse_args()
    for case in options.cases:
        recipe, overrides, figures = CASES[case]
        found = []
        for seed in range(options.seeds):
            given = [*overrides, *options.set, f"seed={seed}"]
            found.append(figures(demiglace.run(f"recipe:{recipe}", overrides=given)))
            print(f"  {case}, seed {seed}: {found[-1]}", flush=True)
        for name in found[0]:
            print(f"{case:34} {name:18} {spread([one[name] for one in found])}", flush=True)


def spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation between seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):8.2f} +- {deviation:.2f}  ({len(values)} seeds)"


if __name__ == "__main__":
    main()
