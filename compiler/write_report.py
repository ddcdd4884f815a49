"""Reports as files: JSON for tools, Markdown and one self-contained HTML page for people."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

from ..backends.errors import OutputError, UsageError
from .plots import latency_plot, operators_plot
from .report import Report

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


def verified_text(verified: dict[str, Any]) -> str:
    """Whether the answers agree, as one plain sentence without a full stop."""
    status, reason = verified["status"], verified.get("reason") or ""
    if status in {"not-run", "not-comparable"}:
        word = "not checked" if status == "not-run" else "not comparable"
        return f"{word}: {reason}" if reason else word
    facts = [f"{verified['cases']} runs"] if verified.get("cases") else []
    if verified.get("max_abs") is not None:
        facts.append(f"largest difference {verified['max_abs']:.2g}")
    if verified.get("sqnr_db") is not None and math.isfinite(verified["sqnr_db"]):
        facts.append(f"SQNR {verified['sqnr_db']:.1f} dB")
    if status != "ok":
        word = "differ"
    else:
        word = "agree" if verified.get("exact", True) else "within the contract"
    text = f"{word} ({', '.join(facts)})" if facts else word
    return f"{text}: {reason}" if reason else text


def latency_text(latency: dict[str, Any]) -> str:
    """The measured latency before and after, with its interval, as one plain sentence."""
    if latency["status"] != "measured":
        return f"not measured: {latency.get('reason', '')}"
    low, high = latency["ci95"]
    threads = latency["threads"] or "ONNX Runtime's choice"
    packing = "" if latency.get("prepacking", True) else "; weights not prepacked, to save memory"
    return (
        f"{latency['before']['median_ms']:.3f} ms → {latency['after']['median_ms']:.3f} ms, "
        f"{latency['speedup']:.2f}x (95% interval {low:.2f} to {high:.2f}): "
        f"{latency['verdict']}; threads: {threads}{packing}"
    )


def sizes(report: Report) -> list[tuple[str, str, str, str]]:
    """Nodes, parameters, MACs and bytes: name, before, after, change in percent."""
    rows: list[tuple[str, list[Any]]] = [
        ("nodes", report.nodes),
        ("parameters", report.parameters),
        ("MACs", report.macs),
        ("bytes", report.bytes),
    ]
    found = []
    for name, (before, after) in rows:
        if before is None or after is None:
            found.append((name, "not known", "not known", ""))
            continue
        change = f"{(after / before - 1) * 100:+.1f}%" if before and before != after else ""
        found.append((name, f"{before:,}", f"{after:,}", change))
    return found


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


_PASS_HEAD = ["pass", "rewritten", "declined", "nodes", "time", "status"]
_SIZE_HEAD = ["", "before", "after", "change"]


def _facts(report: Report) -> list[list[str]]:
    return [
        ["input", report.input],
        ["output", report.output],
        ["target", report.target],
        ["pipeline", report.pipeline or "(empty)"],
        ["answers", verified_text(report.verified)],
        ["latency", latency_text(report.latency)],
        ["compiled in", f"{report.seconds:.2f} s"],
    ]


def _environment(report: Report) -> list[list[str]]:
    return [
        [name, value if isinstance(value, str) else json.dumps(finite(value))]
        for name, value in report.environment.items()
    ]


def as_markdown(report: Report) -> str:
    """The report as Markdown tables."""
    parts = [
        "# onnxpress report",
        _markdown_table(["", ""], _facts(report)),
        "## Sizes",
        _markdown_table(_SIZE_HEAD, [list(row) for row in sizes(report)]),
        "## Passes",
        _markdown_table(_PASS_HEAD, _pass_rows(report)),
    ]
    if report.warnings:
        parts += ["## Warnings", "\n".join(f"- {warning}" for warning in report.warnings)]
    parts += ["## Environment", _markdown_table(["", ""], _environment(report))]
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #1a7f5a; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left;
         vertical-align: top; overflow-wrap: anywhere; min-width: 4rem; }
svg { max-width: 100%; height: auto; }
"""


def as_html(report: Report) -> str:
    """The report as one page that loads nothing from anywhere, with plots where they can be drawn.

    Plots need matplotlib (``pip install onnxpress[plots]``); without it the page says so.
    """
    title = f"onnxpress: {escape(Path(report.output or report.input or 'model').name)}"
    plots = [plot for plot in (latency_plot(report), operators_plot(report)) if plot]
    missing = "<p>Plots need <code>pip install onnxpress[plots]</code>.</p>"
    body = [
        f"<h1>{title}</h1>",
        _html_table(["", ""], _facts(report)),
        "<h2>Sizes</h2>",
        _html_table(_SIZE_HEAD, [list(row) for row in sizes(report)]),
        "<h2>Plots</h2>",
        *(plots or [missing]),
        "<h2>Passes</h2>",
        _html_table(_PASS_HEAD, _pass_rows(report)),
    ]
    if report.warnings:
        body += ["<h2>Warnings</h2>", "<ul>"]
        body += [f"<li>{escape(warning)}</li>" for warning in report.warnings]
        body += ["</ul>"]
    body += ["<h2>Environment</h2>", _html_table(["", ""], _environment(report))]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _html_table(head: list[str], rows: list[list[str]]) -> str:
    lines = ['<div class="scroll"><table>']
    if any(head):
        cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        first, *rest = (escape(cell) for cell in row)
        cells = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)
