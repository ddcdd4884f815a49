"""Reports as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ..bisect import BisectReport
from ..compare import Comparison
from ..layouts import layout_text
from ..manager import PassRecord
from ..report import Report
from ..report_text import (
    accuracy_text,
    detail_texts,
    dims_text,
    latency_text,
    quantity,
    search_text,
    session_lines,
    session_text,
    sizes,
    verified_text,
)
from . import terminal
from .job import Job

_STYLES = {
    "ok": "green",
    "no-change": "dim",
    "quarantined": "bold red",
    "withdrawn": "yellow",
    "skipped": "yellow",
}
_HEADS = ("pass", "rewritten", "declined", "nodes", "time")
_NARROW = 80
_EQUALITY = {
    "ok": "[green]equal[/]",
    "failed": "[bold red]not equal[/]",
    "not-comparable": "[yellow]not comparable[/]",
}
_VERDICTS = {"faster": "green", "slower": "bold red"}


def report(console: Console, found: Report, job: Job) -> None:
    """Print the passes, the sizes, whether the answers agree and the latency.

    A verbose job shows every pass, every reason for which something was declined, and what
    passes report besides.
    """
    verbose = job.volume == "verbose"
    records = [one for one in found.passes if verbose or _told(one)]
    if records:
        console.print(passes_table(records, narrow=console.width < _NARROW))
    told = {one.name for one in records}
    idle = list(dict.fromkeys(one.name for one in found.passes if one.name not in told))
    if idle:
        console.print(f"no change: {escape(', '.join(idle))}", style="dim")
    if verbose:
        _print_details(console, found.passes)
    console.print()
    console.print(sizes_table(found))
    if found.sizes and found.macs[0] is not None:
        console.print(f"MACs at {escape(dims_text(found.sizes))}", style="dim")
    console.print()
    rows = [
        ("answers", verified_line(found.verified)),
        ("latency", latency_line(found.latency)),
        ("wrote", f"{escape(found.output)} in {found.seconds:.1f} s"),
    ]
    if found.search.get("tried"):
        rows.insert(-1, ("search", escape(search_text(found.search))))
    if found.accuracy.get("layers"):
        rows.append(("accuracy", escape(accuracy_text(found.accuracy))))
    if found.session.get("tried"):
        rows.insert(-1, ("session", session_line(found.session)))
    if found.layout:
        rows.insert(-1, ("layout", escape(layout_text(found.layout))))
    if file := found.session.get("file"):
        rows.append(("", f"{escape(file)}, which this reads:"))
        rows.append(("", escape(session_lines(found.output))))
    if job.reports:
        rows.append(("report", escape(", ".join(map(str, job.reports)))))
    console.print(terminal.facts(rows))


def _told(record: PassRecord) -> bool:
    """Whether there is anything to tell of a pass but that it found nothing to do."""
    return record.status != "no-change" or bool(record.declined)


def _print_details(console: Console, records: list[PassRecord]) -> None:
    for record in records:
        rows: list[tuple[str, str]] = [
            (f"declined {count}", escape(reason)) for reason, count in record.declined.most_common()
        ]
        rows += [(name, escape(text)) for name, text in detail_texts(record.details)]
        if rows:
            console.print(f"\n{escape(record.name)}", style="bold")
            console.print(Padding(terminal.facts(rows, style=""), (0, 0, 0, 2)), style="dim")


def passes_table(records: list[PassRecord], *, narrow: bool = False) -> Table:
    """One row a pass: what it rewrote, what it declined, and what became of it.

    A ``narrow`` table has room for what was rewritten only.
    """
    heads = ("pass", "rewritten", "nodes") if narrow else _HEADS
    table = terminal.columns(*heads, wide="status")
    for record in records:
        before, after = record.nodes
        status = f"[{_STYLES[record.status]}]{record.status}[/]"
        if record.status == "skipped":
            status += f": {escape(record.reason)}"
        cells = {
            "pass": escape(record.name),
            "rewritten": str(record.rewritten or "") if record.modified else "",
            "declined": str(record.declined.total() or ""),
            "nodes": f"{before:,} → {after:,}" if record.modified else "",
            "time": f"{record.seconds * 1000:,.0f} ms",
        }
        style = "dim" if record.status == "no-change" else ""
        table.add_row(*(cells[head] for head in heads), status, style=style)
    return table


def sizes_table(found: Report) -> Table:
    """Nodes, parameters, multiply-accumulates and bytes, before and after."""
    table = terminal.columns("", "before", "after", "change")
    table.columns[0].style = "bold"
    for row in sizes(found):
        table.add_row(*row)
    return table


def verified_line(verified: dict[str, Any]) -> str:
    """Whether the answers agree, in one line."""
    colour = {"ok": "green", "failed": "bold red"}.get(verified["status"], "yellow")
    return f"[{colour}]{escape(verified_text(verified))}[/]"


def latency_line(latency: dict[str, Any]) -> str:
    """The measured latency before and after, with its interval, in one line."""
    colour = _VERDICTS.get(latency.get("verdict", ""), "yellow")
    return f"[{colour}]{escape(latency_text(latency))}[/]"


def session_line(session: dict[str, Any]) -> str:
    """What other session options gain, in one line."""
    colour = _VERDICTS.get(session.get("verdict", ""), "yellow")
    return f"[{colour}]{escape(session_text(session))}[/]"


def comparison(console: Console, found: Comparison, *, verbose: bool = False) -> None:
    """Print how far each output is from the reference's; ``verbose`` adds what was run."""
    checked = found.to_json()
    heads = {"max. abs.": "max_abs", "SQNR, dB": "sqnr_db"}
    if console.width >= _NARROW:
        heads |= {"max. rel.": "max_rel", "cosine": "cosine"}
    table = terminal.columns("output", *heads, "same top-1", wide="")
    for name, one in checked["outputs"].items():
        ran = found.verification.outputs[name].fidelity.elements
        numbers = [_number(one[key]) if ran else "" for key in heads.values()]
        share = one["top1_agreement"]
        status = _EQUALITY[one["status"]] if ran else "[yellow]not run[/]"
        table.add_row(escape(name), *numbers, "" if share is None else f"{share:.1%}", status)
    console.print(table)
    console.print()
    colour, word = ("green", "equal") if found.equal else ("bold red", "not equal")
    reason = f": {escape(found.reason)}" if found.reason else ""
    rows = [
        ("verdict", f"[{colour}]{word}[/] within the tolerance of the type{reason}"),
        *(("note", escape(str(note))) for note in checked["notes"]),
        *(("not run", escape(str(note))) for note in checked["not_run"]),
        *(("only in A", escape(name)) for name in checked["only_first"]),
        *(("only in B", escape(name)) for name in checked["only_second"]),
        ("runs", str(checked["cases"])),
    ]
    if verbose:
        runs = dict.fromkeys(dims_text(one) for one in checked["sizes"])
        rows += [("at", escape(text or "fixed sizes")) for text in runs]
        rows.append(("B's optimizations", escape(", ".join(checked["sessions"]))))
    console.print(terminal.facts(rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def facts(console: Console, found: dict[str, Any], *, verbose: bool = False) -> None:
    """Print what :func:`~..inspect.inspect` found; ``verbose`` adds opsets and metadata."""
    macs = "not known: shapes do not follow from those of the inputs"
    counts = [f"{name} {count}" for name, count in found["operators"].items()]
    rows: list[tuple[str, RenderableType]] = [
        ("nodes", f"{found['nodes']:,}"),
        ("parameters", quantity(found["parameters"])),
        ("MACs", macs if found["macs"] is None else quantity(found["macs"])),
        ("file size", quantity(found["bytes"], "B")),
        ("opset", f"{found['opset']} (IR version {found['ir_version']})"),
        ("producer", escape(found["producer"] or "not said")),
        *(("input", escape(_value_text(one))) for one in found["inputs"]),
        *(("output", escape(_value_text(one))) for one in found["outputs"]),
        ("dynamic", escape(", ".join(found["dynamic"]) or "none, all sizes are fixed")),
        ("operators", Columns(map(escape, counts), padding=(0, 3))),
    ]
    if found["functions"]:
        rows.append(("functions", escape(", ".join(found["functions"]))))
    if verbose:
        opsets = [f"{name or 'ai.onnx'} {n}" for name, n in found["opset_imports"].items()]
        rows.append(("opsets", escape(", ".join(opsets))))
        rows += [("metadata", escape(f"{k}: {v}")) for k, v in found["metadata"].items()]
    console.print(terminal.facts(rows))
    if "security" in found:
        console.print()
        console.print(_security(found["security"]))


def _security(found: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, RenderableType]] = [
        ("sha256", f"{digest}  {escape(name)}") for name, digest in found["sha256"].items()
    ]
    rows += [("provenance", escape(f"{key}: {text}")) for key, text in found["provenance"].items()]
    styles = {"high": "bold red", "medium": "yellow", "low": "dim"}
    rows += [
        (
            f"[{styles[one['severity']]}]{one['severity']}[/]",
            escape(f"{one['what']}: {one['where']}\n{one['advice']}"),
        )
        for one in found["findings"]
    ]
    if not found["findings"]:
        rows.append(("findings", "[green]none[/]"))
    return terminal.facts(rows)


def _value_text(value: dict[str, Any]) -> str:
    shape = value["shape"]
    if shape is None:
        return f"{value['name']}: {value['type']}"
    dims = ", ".join("?" if dim is None else str(dim) for dim in shape)
    return f"{value['name']}: {value['type']} [{dims}]"


def bisection(console: Console, found: BisectReport, *, verbose: bool = False) -> None:
    """Print which pass is guilty, if any; ``verbose`` adds how many models were compared."""
    rows = [("changed by", escape(", ".join(found.steps) or "none"))]
    if found.status == "found":
        rows += [
            ("guilty", f"[bold red]{escape(found.guilty)}[/]"),
            ("reason", escape(found.reason)),
        ]
    elif found.status == "not-run":
        rows.append(("not checked", f"[yellow]{escape(found.reason)}[/]"))
    else:
        rows.append(("guilty", "[green]none, no pass changes the answers[/]"))
    if found.reduced is not None:
        before, after = found.reduced.nodes
        files = escape(", ".join(found.files))
        rows.append(("reduced", f"{before:,} → {after:,} nodes, in {files}"))
    if verbose:
        rows.append(("comparisons", str(found.checks)))
    console.print(terminal.facts(rows))
