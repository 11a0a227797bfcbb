"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demiglace.passes import Metric

_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def counted(value: float | None) -> str:
    """A count with three significant digits: `235 k`, `1.82 G`."""
    if value is None:
        return "-"
    for scale, letter in _SCALES:
        # 999,600 would round to 1000 k: it is 1.00 M.
        if abs(value) >= scale * 0.9995:
            return f"{value / scale:#.3g} {letter}".replace(". ", " ")
    return f"{value:.0f}"


def data_size(value: float | None) -> str:
    """A number of bytes, decimal: `941 kB`."""
    text = counted(value)
    return text if text == "-" else f"{text}B" if text[-1].isalpha() else f"{text} B"


def percentage(share: float | None) -> str:
    """A share of 1 with one decimal: `30.0 %`."""
    return "-" if share is None else f"{share * 100:.1f} %"


def shown(metric: Metric) -> str:
    """A metric in its unit."""
    if metric.unit == "share":
        return f"{metric.value * 100:.2f} %"
    if metric.unit == "count":
        return counted(metric.value)
    if metric.unit == "bytes":
        return data_size(metric.value)
    return f"{metric.value:.4g}"
