"""What a person reads of a quantizer at the end of a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demiglace.passes import Context

_LISTED = 3  # weights that the summary names


def tell(context: Context, returned: Collection[str] = ()) -> None:
    """Say how many layers hold integers now and whose weights err most, the worst first.

    Args:
        context: with the figures that `report_weights` left.
        returned: layers that went back to floating point, which leave the figures.
    """
    figures: dict[str, Any] = context.figures
    rows = [row for row in figures["quantized"] if _layer(row) not in returned]
    figures["quantized"], figures["quantized_layers"] = rows, len(set(map(_layer, rows)))
    for key in ("integer_layers", "folded"):
        if key in figures:
            figures[key] = [name for name in figures[key] if name not in returned]
    dead = sum(row["dead_channels"] for row in rows)
    context.note(
        f"{_counted(figures['quantized_layers'], 'layer')} quantized"
        + (f", {_counted(dead, 'dead channel')}" if dead else "")
        + (", the worst of them:" if len(rows) > _LISTED else ":")
    )
    for row in rows[:_LISTED]:
        context.note("  " + _said(row))


def _layer(row: dict[str, Any]) -> str:
    return str(row["weight"]).rpartition(".")[0] or "."


def _said(row: dict[str, Any]) -> str:
    dead = f", {_counted(row['dead_channels'], 'dead channel')}" if row["dead_channels"] else ""
    return (
        f"{row['weight']}: SQNR {row['sqnr']:.1f} dB, cosine {row['cosine']:.4f}, "
        f"{100 * row['at_ends']:.1f} % saturated{dead}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
