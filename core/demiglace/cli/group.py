"""The `demiglace` command: its commands by name, each imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from demiglace import __version__

COMMANDS = {
    "init": "Write a commented recipe, or copy a shipped one.",
    "check": "Check a recipe: syntax, names, options, order.",
    "plan": "Say what a recipe will do, checked against its network.",
    "graph": "List what can be removed from a network, and why not.",
    "run": "Run a recipe and save the compressed model.",
    "quick": "Pick a recipe for a goal, write it and run it.",
    "export": "Export the model of a finished run.",
    "inspect": "Say what the tensors of a saved model take.",
    "advise": "Say which formats run fast here, and what to install.",
    "plugins": "List the installed plugins, the broken ones too.",
    "describe": "Describe a pass or source: options, contract, example.",
    "schema": "Print the JSON Schema of recipes, for editors.",
}
"""What `demiglace --help` shows, without importing any of them."""


class LazyGroup(click.Group):
    """Commands that are imported on use, with suggestions for misspelt names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"demiglace.cli.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"demiglace {__version__}")
        context.exit()


_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, context_settings=_SETTINGS, invoke_without_command=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show it."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Compress PyTorch models by recipe: ordered passes, checked before they run, verified after."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
