"""How a sweep over batch sizes and numbers of threads looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from ...backends.timing import Speedup
from ..report_text import speedup_text, threads_text
from ..sweep import SweepReport
from . import terminal


def show_sweep(console: Console, report: SweepReport, names: Sequence[str]) -> None:
    """Print a line for each point and model, and each model's single-stream and offline result."""
    first = report.points[0].report
    heads = ["threads", "batch", "median, ms", "p90", "p99", "samples/s"]
    table = terminal.columns("model", *heads, *(["against the first"] if first.pairs else []))
    for point in report.points:
        against = ["", *(_against(pair) for pair in point.report.pairs)]
        for name, model, pair in zip(names, point.report.models, against, strict=True):
            rate = point.samples_per_second(model)
            found = model.latency
            table.add_row(
                escape(name),
                str(point.threads or "auto"),
                "" if point.batch is None else str(point.batch),
                *(f"{ms:.3f}" for ms in (found.median_ms, found.p90_ms, found.p99_ms)),
                "" if rate is None else f"{rate:,.0f}",
                *([pair] if first.pairs else []),
            )
    console.print(table)
    for name, modes in zip(names, report.modes(), strict=True):
        single, offline = modes["single_stream"], modes.get("offline")
        told = [f"single-stream p90 {single['p90_ms']:.3f} ms ({_where(single)})"]
        if offline is not None:
            rate = offline["samples_per_second"]
            told.append(f"offline {rate:,.0f} samples/s ({_where(offline)})")
        console.print(f"{escape(name)}: {', '.join(told)}")
    console.print(f"\n{first.provider}", style="dim")


def _against(pair: Speedup) -> str:
    return f"{pair.verdict}, {speedup_text(pair.speedup, pair.ci95)}"


def _where(mode: dict[str, Any]) -> str:
    batch = [] if mode["batch"] is None else [f"batch {mode['batch']}"]
    return ", ".join([*batch, threads_text(mode["threads"])])
