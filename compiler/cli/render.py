"""Reports as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..manager import PassRecord
from ..report import Report

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
    rows: list[tuple[str, list[Any]]] = [
        ("nodes", report.nodes),
        ("parameters", report.parameters),
        ("MACs", report.macs),
        ("bytes", report.bytes),
    ]
    for name, (before, after) in rows:
        if before is None or after is None:
            table.add_row(name, "not known", "", "")
            continue
        change = f"{(after / before - 1) * 100:+.1f}%" if before and before != after else ""
        table.add_row(name, f"{before:,}", f"→ {after:,}", change)
    return table


def verified_line(verified: dict[str, Any]) -> str:
    """Whether the answers agree, in one line."""
    status = verified["status"]
    if status == "not-run":
        return f"[yellow]answers  not checked[/]: {escape(str(verified.get('reason', '')))}"
    if status == "not-comparable":
        return f"[yellow]answers  not comparable[/]: {escape(str(verified.get('reason', '')))}"
    colour = "green" if status == "ok" else "bold red"
    facts = [f"{verified['cases']} runs"] if verified.get("cases") else []
    if verified.get("max_abs") is not None:
        facts.append(f"largest difference {verified['max_abs']:.2g}")
    if verified.get("sqnr_db") is not None:
        facts.append(f"SQNR {verified['sqnr_db']:.1f} dB")
    word = {"ok": "agree"}.get(status, "differ")
    if status == "ok" and not verified.get("exact", True):
        word = "within the contract"
    reason = f": {escape(str(verified['reason']))}" if verified.get("reason") else ""
    return f"[{colour}]answers  {word}[/] ({', '.join(facts)}){reason}"


def latency_line(latency: dict[str, Any]) -> str:
    """The measured latency before and after, with its interval, in one line."""
    if latency["status"] != "measured":
        return f"[yellow]latency  not measured[/]: {escape(str(latency.get('reason', '')))}"
    low, high = latency["ci95"]
    colour = {"faster": "green", "slower": "bold red"}.get(latency["verdict"], "default")
    threads = latency["threads"] or "default"
    return (
        f"[{colour}]latency  {latency['before']['median_ms']:.3f} ms → "
        f"{latency['after']['median_ms']:.3f} ms, {latency['speedup']:.2f}x "
        f"(95% interval {low:.2f} to {high:.2f}): {latency['verdict']}[/], threads: {threads}"
    )
