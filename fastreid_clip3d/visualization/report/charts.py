"""Curves as SVG for the page, with the page's own colours and letters for light and dark backgrounds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

from fastreid_clip3d.visualization.report.record import Series

POINTS = 400
"""Longer curves are drawn at every n-th point."""

_INK, _FIRST, _SECOND = "#0a0b0c", "#1a1b1c", "#2a2b2c"
_OF_PAGE = {_INK: "currentColor", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_STYLES = ((_FIRST, "-", 1.6), (_SECOND, (0, (5, 1.5)), 1.6))  # the second is dashed: it leaves an equal first visible


def chart(
    curves: Sequence[tuple[str, Series]], salt: str, size: tuple[float, float] = (3.6, 2.1), logarithmic: bool = False
) -> str:
    """An ``<svg>`` of one or two curves over the training steps.

    Args:
        curves: label and series. The page's legend has the label.
        salt: makes the ids inside this svg different from those of others on the page.
        size: inches at 72 points each.
        logarithmic: a logarithmic axis where all values are positive and their range is wide.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 8.5, "svg.id": None}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for (_, series), (colour, line, width) in zip(curves, _STYLES):
            series = thinned(series)
            marker = "o" if len(series.finite()) == 1 else None
            style: dict[str, Any] = {"color": colour, "linewidth": width, "linestyle": line}
            axes.plot(series.iterations, series.values, marker=marker, markersize=3, **style)
        values = [value for _, series in curves for value in series.finite()]
        if not values:
            axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_INK)
        elif logarithmic and min(values) > 0 and max(values) / min(values) > 20:
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.spines[["left", "bottom"]].set_alpha(0.35)
        axes.tick_params(colors=_INK, which="both", width=0.6, length=2.5)
        axes.grid(True, color=_INK, alpha=0.12, linewidth=0.6)
        axes.locator_params(axis="x", nbins=5, integer=True)
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        stream = StringIO()
        figure.savefig(stream, format="svg", transparent=True)
    return for_page(stream.getvalue())


def thinned(series: Series) -> Series:
    """About POINTS of a curve at most, always with its last one."""
    step = max(1, math.ceil(len(series.values) / POINTS))
    kept = sorted({*range(0, len(series.values), step), *([len(series.values) - 1] if series.values else [])})
    return Series([series.iterations[i] for i in kept], [series.values[i] for i in kept])


def for_page(svg: str) -> str:
    """matplotlib's svg as an element of the page: without header and addresses, with the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(
        r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1), count=1
    )
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = svg.replace("*{stroke-linejoin", "svg *{stroke-linejoin")
    for colour, name in _OF_PAGE.items():
        svg = svg.replace(colour, name)
    return svg.strip()
