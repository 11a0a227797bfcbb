"""The reference page of passes and sources, written from their specs.

python -m demiglace.cli.reference docs/reference
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from demiglace.cli.commands.describe import default_words
from demiglace.plugins import Registry, discover
from demiglace.plugins.describe import Description, described

PAGE = "passes.md"
OWN = "demiglace"
"""The distribution whose passes the page describes: others have pages of their own."""


def passes_page(registry: Registry) -> str:
    """The page as Markdown."""
    names = dict.fromkeys([*registry.passes, *registry.model_sources, *registry.data_sources])
    found = [one for name in names for one in described(name, registry) if one.plugin.distribution == OWN]
    lines = [
        "# Passes and sources",
        "",
        "What `demiglace describe NAME` says of every pass and source that comes with demiglace.",
        "This page is generated: `make reference` writes it again, and a test fails when it is stale.",
        *(line for description in found for line in _section(description)),
    ]
    return "\n".join(lines) + "\n"


def _section(description: Description) -> Iterator[str]:
    yield from ("", f"## `{description.name}` ({description.kind})", "", description.summary)
    if description.details:
        yield from ("", description.details)
    if description.options:
        yield from ("", "| option | type | default | meaning |", "|---|---|---|---|")
    for option in description.options:
        kind = f"{option.type}, {option.range}" if option.range else option.type
        default = default_words(option).removeprefix("default ")
        cells = (f"`{option.name}`", kind, default, option.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    if description.contract is not None:
        yield from _contract(description)
    if description.example:
        yield from ("", "```toml", description.example, "```")


def _contract(description: Description) -> Iterator[str]:
    contract = description.contract
    if contract is None or not (contract.needs or contract.gives or contract.destroys):
        return
    facts = {"needs": contract.needs, "gives": contract.gives, "destroys": contract.destroys}
    quoted = {word: ", ".join(f"`{fact}`" for fact in sorted(held)) for word, held in facts.items() if held}
    text = "; ".join(f"{word} {held}" for word, held in quoted.items())
    yield from ("", f"{text[0].upper()}{text[1:]}.")


def main(folder: str) -> None:
    """Write the page into a folder."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / PAGE).write_text(passes_page(discover()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
