"""Which values of a graph are views of one memory, so that what is written to one is seen in all."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx


class Memory:
    """The values that share memory, as one exported graph is walked."""

    def __init__(self) -> None:
        self._base: dict[fx.Node, fx.Node] = {}

    def note(self, node: fx.Node) -> None:
        """Note whether a call's result is a view of its first argument."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and _is_view(node):
            self._base[node] = self._base.get(source, source)

    def sharing(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values that share a value's memory, the value itself included."""
        base = self._base.get(node, node)
        yield base
        yield from (other for other, its in self._base.items() if its is base)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        # One of several results: a piece of a split tensor is a view of it.
        return True
    # At inference dropout hands on its input itself.
    return "dropout" in schema.name or any(one.alias_info is not None for one in schema.returns)
