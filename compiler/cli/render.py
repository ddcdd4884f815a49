"""Reports as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..bisect import BisectReport
from ..compare import Comparison
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


def comparison(console: Console, found: Comparison) -> None:
    """Print how far each output is from the reference's."""
    facts = found.to_json()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("output")
    heads = {
        "max_abs": "largest difference",
        "max_rel": "relative",
        "sqnr_db": "SQNR dB",
        "cosine": "cosine",
        "top1_agreement": "same top-1",
    }
    for head in heads.values():
        table.add_column(head, justify="right")
    for name, one in facts["outputs"].items():
        table.add_row(escape(name), *(_number(one.get(key)) for key in heads))
    console.print(table)
    for note in (*facts["notes"], *facts["not_run"]):
        console.print(f"[yellow]note:[/] {escape(str(note))}", soft_wrap=True)
    colour, word = ("green", "equal") if found.equal else ("bold red", "not equal")
    reason = f": {escape(found.reason)}" if found.reason else ""
    console.print(
        f"[{colour}]{word} within the tolerance of the type[/]{reason}, {facts['cases']} runs",
        soft_wrap=True,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def facts(console: Console, found: dict[str, Any]) -> None:
    """Print what :func:`~..inspect.inspect` found in a model."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    macs = "not known" if found["macs"] is None else f"{found['macs']:,}"
    rows = [
        ("nodes", f"{found['nodes']:,}"),
        ("parameters", f"{found['parameters']:,}"),
        ("MACs", macs),
        ("bytes", f"{found['bytes']:,}"),
        ("opset", f"{found['opset']} (IR version {found['ir_version']})"),
        ("producer", found["producer"] or "not said"),
        *(("input", _value_text(one)) for one in found["inputs"]),
        *(("output", _value_text(one)) for one in found["outputs"]),
        ("operators", ", ".join(f"{name} {count}" for name, count in found["operators"].items())),
    ]
    for name, text in rows:
        table.add_row(name, escape(text))
    console.print(table)
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def _value_text(value: dict[str, Any]) -> str:
    shape = value["shape"]
    if shape is None:
        return f"{value['name']}: {value['type']}"
    dims = ", ".join("?" if dim is None else str(dim) for dim in shape)
    return f"{value['name']}: {value['type']} [{dims}]"


def bisection(console: Console, found: BisectReport) -> None:
    """Print which pass is guilty, if any."""
    console.print(f"[bold]steps that changed the model:[/] {escape(', '.join(found.steps))}")
    if found.status == "found":
        console.print(f"[bold red]guilty:[/] {escape(found.guilty)}", soft_wrap=True)
        console.print(f"[bold]reason:[/] {escape(found.reason)}", soft_wrap=True)
    elif found.status == "not-run":
        console.print(f"[yellow]not checked:[/] {escape(found.reason)}", soft_wrap=True)
    else:
        console.print("[green]no pass changes the answers[/]")
    if found.reduced is not None:
        before, after = found.reduced.nodes
        console.print(
            f"[bold]reduced:[/] {before} → {after} nodes, {escape(', '.join(found.files))}",
            soft_wrap=True,
        )
