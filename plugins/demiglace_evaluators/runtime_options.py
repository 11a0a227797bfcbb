"""Options of runtimes, as recipes have them."""

from __future__ import annotations

from typing import TypeAlias

RuntimeOptions: TypeAlias = dict[str, bool | int | float | str]
"""Options of one runtime by its own names."""
