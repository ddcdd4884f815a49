"""The plots of a report, as inline SVG drawn by matplotlib, where it is installed."""

from __future__ import annotations

import io
from typing import Any

from .report import Report

_INK = "#888888"  # readable on white and on black


def latency_plot(report: Report) -> str:
    """Median, and the span from the 10th to the 90th percentile, before and after, in ms.

    Empty where nothing was measured or matplotlib is missing.
    """
    if report.latency["status"] != "measured":
        return ""
    figure = _figure(height=1.6)
    if figure is None:
        return ""
    axes = figure.subplots()
    for row, name in enumerate(("after", "before")):
        one = report.latency[name]
        axes.barh(row, one["median_ms"], color="#1a7f5a" if name == "after" else _INK, height=0.6)
        axes.plot([one["p10_ms"], one["p90_ms"]], [row, row], color="#d97706", linewidth=3)
    axes.set_yticks([0, 1], ["after", "before"])
    axes.set_xlabel("latency in ms: median, and 10th to 90th percentile")
    return _svg(figure, axes, "Latency before and after")


def operators_plot(report: Report, most: int = 12) -> str:
    """How many nodes of each operator there were before and are after, the ``most`` frequent.

    Empty where there is nothing to show or matplotlib is missing.
    """
    if not report.operators:
        return ""
    before, after = report.operators
    names = sorted(
        {*before, *after}, key=lambda name: -max(before.get(name, 0), after.get(name, 0))
    )
    shown = names[:most][::-1]
    figure = _figure(height=0.8 + 0.32 * len(shown))
    if figure is None or not shown:
        return ""
    axes = figure.subplots()
    rows = range(len(shown))
    axes.barh([row + 0.2 for row in rows], [before.get(one, 0) for one in shown], 0.4, color=_INK)
    axes.barh(
        [row - 0.2 for row in rows], [after.get(one, 0) for one in shown], 0.4, color="#1a7f5a"
    )
    axes.set_yticks(list(rows), shown)
    axes.set_xlabel("nodes: grey before, green after")
    return _svg(figure, axes, "Operators before and after")


def _figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(8, height), layout="constrained")


def _svg(figure: Any, axes: Any, title: str) -> str:
    axes.tick_params(colors=_INK)
    axes.xaxis.label.set_color(_INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(_INK)
    page = io.StringIO()
    figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    svg = page.getvalue()
    drawn = svg[svg.index("<svg") :]
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
