"""All networks of one pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import graph_toys_attention
import graph_toys_layers
import graph_toys_modules
import graph_toys_movement
import graph_toys_recurrent

if TYPE_CHECKING:
    from graph_toy import Toy

_FAMILIES = (
    graph_toys_layers,
    graph_toys_movement,
    graph_toys_attention,
    graph_toys_recurrent,
    graph_toys_modules,
)
TOYS: dict[str, Toy] = {name: toy for family in _FAMILIES for name, toy in family.TOYS.items()}
