"""Reports as files: JSON for tools, Markdown and one self-contained HTML page for people."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..backends.errors import OutputError, UsageError
from .html_report import as_html
from .layouts import layout_text
from .report import Report
from .report_text import (
    environment_texts,
    latency_text,
    plain_lines,
    search_text,
    session_text,
    sizes,
    verified_text,
)

FORMATS = (".json", ".md", ".html")


def write_report(report: Report, path: Path) -> None:
    """Write ``report`` to ``path`` in the format that its ending names.

    Raises:
        UsageError: The ending is none of :data:`FORMATS`.
        OutputError: The file cannot be written.
    """
    writers = {".json": as_json, ".md": as_markdown, ".html": as_html}
    if path.suffix not in writers:
        raise UsageError(f"a report's name ends in {', '.join(FORMATS)}, not {path.name}")
    try:
        path.write_text(writers[path.suffix](report), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error


def as_json(report: Report) -> str:
    """The report with the keys that other tools rely on."""
    return json.dumps(finite(report.to_json()), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinity, which it has no word for, become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def as_markdown(report: Report) -> str:
    """The report as Markdown tables."""
    facts = [
        ["input", report.input],
        ["output", report.output],
        *([["command", f"`{report.command}`"]] if report.command else []),
        ["target", report.target],
        ["pipeline", report.pipeline or "(empty)"],
        ["answers", verified_text(report.verified)],
        ["latency", latency_text(report.latency)],
        ["rewrites one by one", search_text(report.search)],
        ["session options", session_text(report.session)],
        *([["layout", layout_text(report.layout)]] if report.layout else []),
        ["compiled in", f"{report.seconds:.2f} s"],
    ]
    parts = [
        "# onnxpress report",
        _table(["", ""], facts),
        "## Sizes",
        _table(["", "before", "after", "change"], [list(row) for row in sizes(report)]),
        "## Passes",
        _table(["pass", "rewritten", "declined", "nodes", "time", "status"], _pass_rows(report)),
    ]
    if report.session.get("options"):
        lines = plain_lines(report.output, report.session["options"])
        parts += ["## Session", f"```python\n{lines}\n```"]
    if report.warnings:
        parts += ["## Warnings", "\n".join(f"- {warning}" for warning in report.warnings)]
    parts += ["## Environment", _table(["", ""], [list(row) for row in environment_texts(report)])]
    return "\n\n".join(parts) + "\n"


def _pass_rows(report: Report) -> list[list[str]]:
    return [
        [
            record.name,
            str(record.rewritten or ""),
            "; ".join(
                f"{count} times: {reason}" for reason, count in record.declined.most_common()
            ),
            f"{record.nodes[0]} → {record.nodes[1]}" if record.modified else "",
            f"{record.seconds * 1000:.0f} ms",
            f"{record.status}: {record.reason}" if record.reason else record.status,
        ]
        for record in report.passes
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )
