"""The plots of a report, as inline SVG drawn by matplotlib, where it is installed."""

from __future__ import annotations

import io
from typing import Any

from .report import Report

_INK = "#012345"  # stands for the colour of the page's text, which only the page knows
_BEFORE, _AFTER, _SPAN = "#8b959e", "#2f9e74", "#d97706"  # told apart on white and on black

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def latency_plot(report: Report) -> str:
    """Median, and the span from the 10th to the 90th percentile, before and after, in ms.

    Empty where nothing was measured or matplotlib is missing.
    """
    if report.latency["status"] != "measured":
        return ""
    figure = _figure(height=1.7)
    if figure is None:
        return ""
    axes = figure.subplots()
    for row, name in enumerate(("after", "before")):
        one = report.latency[name]
        axes.barh(row, one["median_ms"], color=_AFTER if name == "after" else _BEFORE, height=0.6)
        axes.plot([one["p10_ms"], one["p90_ms"]], [row, row], color=_SPAN, linewidth=2.5)
        text = f" {one['median_ms']:.3f}"
        axes.text(max(one["median_ms"], one["p90_ms"]), row, text, va="center", color=_INK)
    axes.margins(x=0.18)
    axes.set_yticks([0, 1], ["after", "before"])
    axes.set_xlabel("ms")
    return _svg(figure, axes, "Latency before and after")


def operators_plot(report: Report, most: int = 12) -> str:
    """How many nodes of each operator there were before and are after, the ``most`` frequent.

    Empty where there is nothing to show or matplotlib is missing.
    """
    if not report.operators:
        return ""
    before, after = report.operators
    names = sorted(
        {*before, *after}, key=lambda name: (-max(before.get(name, 0), after.get(name, 0)), name)
    )
    shown = names[:most][::-1]
    figure = _figure(height=0.9 + 0.36 * len(shown))
    if figure is None or not shown:
        return ""
    axes = figure.subplots()
    for offset, colour, label, counts in (
        (0.2, _BEFORE, "before", before),
        (-0.2, _AFTER, "after", after),
    ):
        rows = [row + offset for row in range(len(shown))]
        values = [counts.get(one, 0) for one in shown]
        bars = axes.barh(rows, values, 0.4, color=colour, label=label)
        axes.bar_label(bars, padding=3, color=_INK, fontsize=8)
    axes.margins(x=0.12)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_xlabel("nodes")
    axes.legend(frameon=False, labelcolor=_INK, loc="lower right")
    return _svg(figure, axes, "Operators before and after")


def sensitivity_plot(report: Report, most: int = 24) -> str:
    """What rounding each layer alone leaves of the signal, in dB, the ``most`` sensitive ones.

    Layers that stay in float have the colour of spans. Empty where nothing was weighed or
    matplotlib is missing.
    """
    layers = [one for one in report.accuracy.get("layers", ()) if one["sqnr_db"] is not None]
    shown = layers[:most][::-1]
    figure = _figure(height=0.9 + 0.22 * len(shown))
    if figure is None or not shown:
        return ""
    axes = figure.subplots()
    colours = [_SPAN if one["float"] else _AFTER for one in shown]
    bars = axes.barh(range(len(shown)), [one["sqnr_db"] for one in shown], 0.7, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3, color=_INK, fontsize=8)
    axes.margins(x=0.12)
    axes.set_yticks(range(len(shown)), [one["layer"][-28:] for one in shown], fontsize=7)
    axes.set_xlabel("SQNR, dB")
    return _svg(figure, axes, "What each layer costs by itself")


def _figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(5.2, height), layout="constrained")


def _svg(figure: Any, axes: Any, title: str) -> str:
    axes.tick_params(colors=_INK)
    axes.xaxis.label.set_color(_INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(_INK)
    page = io.StringIO()
    figure.savefig(page, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = page.getvalue()
    drawn = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
