"""`demiglace describe`: what a pass or a source does, and what it can be told."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from demiglace.cli import options
from demiglace.cli.output import print_json
from demiglace.errors import UsageError

if TYPE_CHECKING:
    from demiglace.passes import Contract
    from demiglace.plugins import Registry
    from demiglace.plugins.describe import Description
    from demiglace.plugins.options import Option


@click.command()
@click.argument("name", metavar="PASS")
@options.no_plugin
@options.as_json
def command(name: str, block: Sequence[str], as_json: bool) -> None:
    """Describe a pass or a source: options with types, ranges and defaults, contract, example."""
    from demiglace.plugins import discover

    found = _found(name, discover(block))
    if as_json:
        things = [description.to_json() for description in found]
        print_json(things[0] if len(things) == 1 else things)
        return
    click.echo("\n\n".join("\n".join(_lines(description)) for description in found))


def _found(name: str, registry: Registry) -> list[Description]:
    from demiglace.plugins.describe import described

    found = described(name, registry)
    if found:
        return found
    known = [*registry.passes, *registry.model_sources, *registry.data_sources]
    raise UsageError(f"there is no pass or source {name!r}", hint=registry.absent_hint(name, known))


def _lines(description: Description) -> Iterator[str]:
    yield f"{description.name}: {description.summary}"
    yield f"{description.kind} of plugin {description.plugin}"
    if description.details:
        yield f"\n{description.details}"
    yield "\nOptions" if description.options else "\nNo options."
    for option in description.options:
        yield from _option(option)
    if description.contract is not None:
        yield from _contract(description.contract)
    if description.example:
        yield f"\nExample\n{textwrap.indent(description.example, '  ')}"


def _option(option: Option) -> Iterator[str]:
    kind = f"{option.type}, {option.range}" if option.range else option.type
    yield f"  {option.name}: {kind}; {default_words(option)}"
    if option.meaning:
        yield textwrap.fill(option.meaning, 100, initial_indent="      ", subsequent_indent="      ")


def default_words(option: Option) -> str:
    """What holds when the option is not given."""
    if option.required:
        return "required"
    return "not set by default" if option.default is None else f"default {json.dumps(option.default)}"


def _contract(contract: Contract) -> Iterator[str]:
    facts = {"needs": contract.needs, "gives": contract.gives, "destroys": contract.destroys}
    told = [f"  {word} {', '.join(sorted(names))}" for word, names in facts.items() if names]
    if told:
        yield "\nContract, with the options of the example"
        yield from told
