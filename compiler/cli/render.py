"""Reports as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..manager import PassRecord
from ..report import Report
from ..write_report import latency_text, sizes, verified_text

_STYLES = {"ok": "green", "no-change": "dim", "quarantined": "bold red", "skipped": "yellow"}


def warnings(console: Console, report: Report) -> None:
    """Print what the user should know even when nothing else is printed."""
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def report(console: Console, report: Report, *, verbose: bool = False) -> None:
    """Print the passes, the sizes, whether the answers agree and the latency.

    ``verbose`` adds every reason for which something was declined.
    """
    console.print(passes_table(report.passes))
    if verbose:
        for record in report.passes:
            for reason, count in record.declined.most_common():
                console.print(f"  {record.name} declined {count}: {escape(reason)}", style="dim")
    console.print(sizes_table(report))
    console.print(verified_line(report.verified), soft_wrap=True)
    console.print(latency_line(report.latency), soft_wrap=True)
    if report.output:
        console.print(
            f"[bold]wrote[/]    {escape(report.output)} in {report.seconds:.1f} s", soft_wrap=True
        )


def passes_table(records: list[PassRecord]) -> Table:
    """One row a pass: what it rewrote, what it declined, and what became of it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pass")
    for name in ("rewritten", "declined", "nodes", "time"):
        table.add_column(name, justify="right")
    table.add_column("status")
    for record in records:
        before, after = record.nodes
        status = f"[{_STYLES[record.status]}]{record.status}[/]"
        if record.reason:
            status += f": {escape(record.reason)}"
        table.add_row(
            escape(record.name),
            str(record.rewritten or ""),
            str(record.declined.total() or ""),
            f"{before} → {after}" if record.modified else "",
            f"{record.seconds * 1000:.0f} ms",
            status,
        )
    return table


def sizes_table(report: Report) -> Table:
    """Nodes, parameters, multiply-accumulates and bytes, before and after."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    for _ in range(3):
        table.add_column(justify="right")
    for name, before, after, change in sizes(report):
        table.add_row(name, before, f"→ {after}", change)
    return table


def verified_line(verified: dict[str, Any]) -> str:
    """Whether the answers agree, in one line."""
    colour = {"ok": "green", "failed": "bold red"}.get(verified["status"], "yellow")
    return f"[bold]answers[/]  [{colour}]{escape(verified_text(verified))}[/]"


def latency_line(latency: dict[str, Any]) -> str:
    """The measured latency before and after, with its interval, in one line."""
    colour = {"faster": "green", "slower": "bold red"}.get(latency.get("verdict", ""), "yellow")
    return f"[bold]latency[/]  [{colour}]{escape(latency_text(latency))}[/]"
