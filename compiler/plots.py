"""The plots of a report, as inline SVG drawn by matplotlib, where it is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from .report import Report

INK = "#012345"  # stands for the colour of the page's text, which only the page knows
BEFORE, AFTER, SPAN = "#8b959e", "#2f9e74", "#d97706"  # told apart on white and on black

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def latency_plot(report: Report) -> str:
    """The share of runs that took no longer than so many ms, before and after, with the medians.

    What the slowest tenth took is cut off where it would hide the rest. Empty where nothing was
    measured or matplotlib is missing.
    """
    latency = report.latency
    if latency["status"] != "measured":
        return ""
    figure = new_figure(height=2.6)
    if figure is None:
        return ""
    axes = figure.subplots()
    most = 0.0
    for name, colour in (("before", BEFORE), ("after", AFTER)):
        one = latency[name]
        times = latency.get("distribution", {}).get(name)
        shares = [5 * (at + 1) for at in range(19)]
        if not times:
            times, shares = [one["p10_ms"], one["median_ms"], one["p90_ms"]], [10, 50, 90]
        axes.plot(times, shares, color=colour, linewidth=2, label=name)
        axes.plot([one["median_ms"]], [50], "o", color=colour)
        most = max(most, min(one["p90_ms"], 2.5 * one["median_ms"]))
    axes.annotate(
        f"{latency['before']['median_ms']:.3f} → {latency['after']['median_ms']:.3f} ms",
        (0.5, 1.02),
        xycoords="axes fraction",
        ha="center",
        color=INK,
    )
    axes.set_xlim(0, 1.1 * most)
    axes.set_ylim(0, 100)
    axes.set_xlabel("ms")
    axes.set_ylabel("% of runs")
    axes.legend(frameon=False, labelcolor=INK, loc="upper left")
    return svg(figure, axes, "Distribution of latency before and after")


def operators_plot(report: Report, most: int = 12) -> str:
    """How many nodes of each operator there were before and are after, the ``most`` frequent.

    Empty where there is nothing to show or matplotlib is missing.
    """
    return _pairs(report.operators, most, "nodes", "{:g}", "Operators before and after")


def profile_plot(report: Report, most: int = 12) -> str:
    """What the operators of a run take before and after, in ms, the ``most`` costly.

    Empty where nothing was profiled or matplotlib is missing.
    """
    times = [{row["op_type"]: 0.0 for row in rows} for rows in report.profile]
    for one, rows in zip(times, report.profile, strict=True):
        for row in rows:
            one[row["op_type"]] += row["total_ms"]
    return _pairs(times, most, "ms of one run", "{:.3g}", "Time of operators before and after")


def _pairs(both: Sequence[Mapping[str, float]], most: int, unit: str, form: str, title: str) -> str:
    """A pair of bars for each name in ``both``, the largest first."""
    if not both:
        return ""
    before, after = both
    names = sorted(
        {*before, *after}, key=lambda name: (-max(before.get(name, 0), after.get(name, 0)), name)
    )
    shown = names[:most][::-1]
    figure = new_figure(height=0.9 + 0.36 * len(shown))
    if figure is None or not shown:
        return ""
    axes = figure.subplots()
    for offset, colour, label, counts in (
        (0.2, BEFORE, "before", before),
        (-0.2, AFTER, "after", after),
    ):
        rows = [row + offset for row in range(len(shown))]
        values = [counts.get(one, 0) for one in shown]
        bars = axes.barh(rows, values, 0.4, color=colour, label=label)
        axes.bar_label(bars, fmt=form, padding=3, color=INK, fontsize=8)
    axes.margins(x=0.12)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_xlabel(unit)
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    return svg(figure, axes, title)


def sensitivity_plot(report: Report, most: int = 24) -> str:
    """What rounding each layer alone leaves of the signal, in dB, the ``most`` sensitive ones.

    Layers that stay in float have the colour of spans. Empty where nothing was weighed or
    matplotlib is missing.
    """
    layers = [one for one in report.accuracy.get("layers", ()) if one["sqnr_db"] is not None]
    shown = layers[:most][::-1]
    figure = new_figure(height=0.9 + 0.22 * len(shown))
    if figure is None or not shown:
        return ""
    axes = figure.subplots()
    colours = [SPAN if one["float"] else AFTER for one in shown]
    bars = axes.barh(range(len(shown)), [one["sqnr_db"] for one in shown], 0.7, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3, color=INK, fontsize=8)
    axes.margins(x=0.12)
    axes.set_yticks(range(len(shown)), [one["layer"][-28:] for one in shown], fontsize=7)
    axes.set_xlabel("SQNR, dB")
    return svg(figure, axes, "What each layer costs by itself")


def new_figure(height: float) -> Any:
    """An empty figure as wide as all, in inches; ``None`` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(5.2, height), layout="constrained")


def svg(figure: Any, axes: Any, title: str) -> str:
    """``figure`` as SVG for a page of any colours; ``title`` is what a screen reader says."""
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(INK)
    import matplotlib as mpl

    page = io.StringIO()
    # The same figure is the same text: names of its parts come from what they are, not by chance.
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(page, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = page.getvalue()
    drawn = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
