"""`demiglace quick`: a goal becomes a recipe, which is written down and run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demiglace.cli import options
from demiglace.cli.output import print_json
from demiglace.errors import EXIT_GATE_MISSED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from demiglace.plugins import Registry
    from demiglace.quick import Draft, Facts, Goal


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--data", metavar="DATA", help="A source of data, an .npz file, or a folder of images.")
@click.option("--goal", "text", required=True, metavar="GOAL", help='Such as "4x smaller, <= 1 point".')
@click.option(
    "--recipe",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    default="quick.toml",
    show_default=True,
    metavar="FILE",
    help="Where to write the recipe.",
)
@options.force
@options.out
@options.overrides
@options.no_plugin
@options.allow_code
@options.as_json
@options.quiet
def command(
    model: str,
    data: str | None,
    text: str,
    file: Path,
    force: bool,
    out: Path | None,
    overrides: Sequence[str],
    block: Sequence[str],
    code: Sequence[Path],
    as_json: bool,
    quiet: bool,
) -> int:
    """Pick a recipe for GOAL by simple rules, write it, run it, and say what was reached.

    MODEL is FILE.py:FACTORY (with --allow-code), a saved model, or a source such as torchvision:resnet18.
    GOAL has bounds between commas: "4x smaller", "2x faster", "2x fewer macs", "<= 1 point" of accuracy.
    --set changes the recipe's [model], [data] and [run] before the rules look at them, such as
    --set data.batch_size=128.

    Exits with 1 when the goal was missed.
    """
    from demiglace.cli.recipe_file import refuse_overwriting, write_recipe
    from demiglace.passes import allowing_code
    from demiglace.plugins import discover
    from demiglace.quick import data_table, draft, model_table, parse_goal
    from demiglace.recipe import written

    goal, registry = parse_goal(text), discover(block)
    if not force:
        refuse_overwriting(file)
    tables: dict[str, Any] = {"model": model_table(model, registry)}
    tables |= {} if data is None else {"data": data_table(data, registry)}
    with allowing_code(code):
        facts, tables = _looked_at(tables, overrides, registry, quiet=quiet)
        _refuse(facts, goal)
        made = draft(facts, goal, tables)
        write_recipe(file, written(made.tables, made.comments), registry)
        _say(made, file, quiet=quiet or as_json)
        return _run(file, goal, registry, out, as_json=as_json, quiet=quiet)


def _looked_at(
    tables: dict[str, Any], overrides: Sequence[str], registry: Registry, *, quiet: bool
) -> tuple[Facts, dict[str, Any]]:
    """What the rules need to know, and the tables with the overrides in them."""
    from demiglace.cli.progress import progress
    from demiglace.engine.check import check
    from demiglace.engine.signals import interruptible
    from demiglace.quick.facts import gather
    from demiglace.recipe import load_recipe

    alone = {"pass": [{"use": "evaluate.sparsity"}]}  # a recipe has at least one pass
    recipe = load_recipe(tables | alone, overrides=overrides)
    kept = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    with interruptible() as interrupt, progress(sys.stderr, quiet=quiet) as listener:
        listener.step_started("quick", 1, 1)
        facts = gather(check(recipe, registry), listener, interrupt.check)
    return facts, {key: kept[key] for key in ("seed", "model", "data", "run") if key in kept}


def _refuse(facts: Facts, goal: Goal) -> None:
    """What a goal asks of this model and data that cannot be judged or done."""
    if goal.points is not None and not facts.labels:
        raise UsageError(
            "the goal bounds the loss of accuracy, and there are no examples labelled with classes",
            hint="give --data with labels, or leave the points out of the goal",
        )
    if (goal.smaller or goal.faster) and not facts.weights:
        raise UsageError(
            "no weight of this model can become integers: none is floating point where they can be",
            hint="start from the floating-point model",
        )


def _say(made: Draft, file: Path, *, quiet: bool) -> None:
    if not quiet:
        click.echo(f"wrote {file}; run it again with: demiglace run {file}")
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)


def _run(file: Path, goal: Goal, registry: Registry, out: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Run the recipe that was written, as `demiglace run` does, and tell what became of the goal."""
    from demiglace.cli.running import executed, speaks, summary
    from demiglace.quick import bounds, packed_file
    from demiglace.recipe import load_recipe

    result = executed(load_recipe(file, find=registry.recipe), registry, out, quiet=quiet)
    found = list(bounds(goal, result.gates))
    if as_json and speaks():
        told = {"path": str(result.path), "recipe_file": str(file), "goal": [asdict(one) for one in found]}
        print_json(result.record.to_json() | told)
    elif not quiet and speaks():
        click.echo(summary(result), nl=False)
        packed = packed_file(result.record)
        click.echo("\n" + "\n".join([*map(str, found), *([packed] if packed else [])]))
    return EXIT_OK if result.passed else EXIT_GATE_MISSED
