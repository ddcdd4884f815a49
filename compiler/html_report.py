"""A report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .html_page import card, facts, page, table
from .manager import PassRecord
from .plots import latency_plot, operators_plot, profile_plot, sensitivity_plot
from .report import Report
from .report_text import (
    accuracy_text,
    change_text,
    dims_text,
    environment_texts,
    options_text,
    plain_lines,
    plural,
    quantity,
    scalar_text,
    search_text,
    session_lines,
    session_text,
    sizes,
    speedup_text,
    threads_text,
    verified_text,
)

_ROWS = 100
"""How many rows of a pass's details the page shows; the JSON report has them all."""


def as_html(report: Report) -> str:
    """The report as one page that loads nothing from anywhere.

    Plots need matplotlib (``pip install onnxpress[plots]``); without it the page says so.
    """
    name = Path(report.output or report.input or "model").name
    return page(
        f"onnxpress: {name}",
        [
            *_head(report),
            *_warnings(report),
            "<h2>Sizes</h2>",
            _sizes(report),
            *_plots(report),
            "<h2>Passes</h2>",
            *_passes(report.passes),
            *_search(report.search),
            *_session(report),
            *_answers(report.verified),
            *_accuracy(report),
            "<h2>Environment</h2>",
            facts(environment_texts(report)),
        ],
    )


def _head(report: Report) -> list[str]:
    inputs = [Path(one).name for one in report.input.split(", ") if one]
    names = [", ".join(inputs), Path(report.output).name]
    pipeline = report.pipeline or "no passes"
    return [
        f"<h1>{escape(' → '.join(filter(None, names)) or 'A model')}</h1>",
        f'<p class="soft">for {escape(report.target)}, compiled in {report.seconds:.1f} s by '
        f"<code>{escape(pipeline)}</code></p>",
        *([f"<p><code>{escape(report.command)}</code></p>"] if report.command else []),
        '<div class="cards">',
        _latency_card(report.latency),
        *_session_card(report.session),
        _answers_card(report.verified),
        _change_card("file size", report.bytes, "B"),
        _change_card("multiply-accumulates", report.macs, ""),
        "</div>",
    ]


def _latency_card(latency: Mapping[str, Any]) -> str:
    if latency["status"] != "measured":
        return card("latency", "not measured", [latency.get("reason", "")], "note")
    style = {"faster": "good", "slower": "bad"}.get(latency["verdict"], "note")
    before, after = (latency[one]["median_ms"] for one in ("before", "after"))
    low, high = latency["ci95"]
    conditions = [f"95% interval {low:.2f} to {high:.2f}", threads_text(latency["threads"])]
    if not latency.get("prepacking", True):
        conditions.append("weights not prepacked")
    lines = [f"{before:.3f} ms → {after:.3f} ms", ", ".join(conditions)]
    return card("latency", f"{latency['speedup']:.2f}x, {latency['verdict']}", lines, style)


def _session_card(session: Mapping[str, Any]) -> list[str]:
    """What session options gain besides; nothing where none were tried."""
    if not session.get("tried"):
        return []
    if not session["options"]:
        return [card("session options", "the default", [session_text(session)], "note")]
    low, high = session["ci95"]
    lines = [f"besides, 95% interval {low:.2f} to {high:.2f}", options_text(session["options"])]
    return [card("session options", f"{session['speedup']:.2f}x, faster", lines, "good")]


def _answers_card(verified: Mapping[str, Any]) -> str:
    style = {"ok": "good", "failed": "bad"}.get(verified["status"], "note")
    mark = ": " if verified["status"] in {"not-run", "not-comparable"} else " ("
    word, _, rest = verified_text(verified).partition(mark)
    return card("answers", word, [rest.removesuffix(")")], style)


def _change_card(name: str, counts: list[Any], unit: str) -> str:
    before, after = counts
    if before is None or after is None:
        return card(name, "not known", ["shapes are not known"], "note")
    style = "good" if after < before else "note" if after > before else ""
    text = f"{quantity(before, unit)} → {quantity(after, unit)}"
    return card(name, change_text(before, after) or "the same", [text], style)


def _warnings(report: Report) -> list[str]:
    if not report.warnings:
        return []
    items = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return [f'<ul class="warnings">{items}</ul>']


def _sizes(report: Report) -> str:
    head = [(one, "number") for one in ("before", "after", "change")]
    known = report.sizes and report.macs[0] is not None
    at = f"Multiply-accumulates (MACs) at {dims_text(report.sizes)}" if known else ""
    return table(head, sizes(report), caption=at)


def _plots(report: Report) -> list[str]:
    if report.latency["status"] != "measured" and not report.operators:
        return []
    plots = {
        "Share of runs that took no longer; the dots are the medians": latency_plot(report),
        "Time of each operator, in the graph that ONNX Runtime makes": profile_plot(report),
        "Nodes of each operator": operators_plot(report),
    }
    drawn = [
        f"<figure>{plot}<figcaption>{title}</figcaption></figure>"
        for title, plot in plots.items()
        if plot
    ]
    missing = "<p>Plots need <code>pip install onnxpress[plots]</code>.</p>"
    return ["<h2>Plots</h2>", '<div class="plots">', *(drawn or [missing]), "</div>"]


def _passes(records: list[PassRecord]) -> list[str]:
    numbers = [(one, "number") for one in ("rewritten", "declined", "nodes", "weights", "time")]
    rows = [
        [
            f"{number}. {record.name}",
            record.status,
            f"{record.rewritten:,}" if record.modified else "",
            f"{record.declined.total():,}" if record.declined else "",
            f"{record.nodes[0]:,} → {record.nodes[1]:,}" if record.modified else "",
            change_text(*record.bytes) if record.modified else "",
            f"{record.seconds * 1000:,.0f} ms",
        ]
        for number, record in enumerate(records, 1)
    ]
    idle = [record.status == "no-change" and not record.declined for record in records]
    details = [_details(number, record) for number, record in enumerate(records, 1)]
    return [table([("status", ""), *numbers], rows, idle=idle), *filter(None, details)]


def _details(number: int, record: PassRecord) -> str:
    """What there is to say of one pass besides its row, folded away; empty if nothing."""
    if not (record.declined or record.details or record.reason or record.reproduction):
        return ""
    parts = [f"<p>{escape(record.status)}: {escape(record.reason)}</p>"] if record.reason else []
    if record.options:
        options = [[name, _value(value)] for name, value in record.options.items()]
        parts.append(facts(options, caption="Options"))
    if record.declined:
        reasons = [[f"{n:,}", reason] for reason, n in record.declined.most_common()]
        parts.append(facts(reasons, caption="Declined"))
    plain = {k: v for k, v in record.details.items() if not isinstance(v, Mapping)}
    if plain:
        found = [[_spaced(name), _value(value)] for name, value in plain.items()]
        parts.append(facts(found, caption="Found"))
    for name, value in record.details.items():
        if isinstance(value, Mapping) and value:
            parts.append(_mapping(_spaced(name).capitalize(), value))
    if record.reproduction:
        path = f"<code>{escape(record.reproduction)}</code>"
        parts.append(f"<p>The model it was wrong on: {path}</p>")
    title = f"{number}. {escape(record.name)} in detail"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _search(search: Mapping[str, Any]) -> list[str]:
    """The rewrites that were measured one by one; nothing where none were."""
    if not search.get("tried"):
        return []
    rows = []
    for one in search["tried"]:
        name = one["pass"] if one["rewrites"] is None else f"{one['pass']}, {one['rewrites']} of it"
        ratio = speedup_text(one["speedup"], one["ci95"]) if "speedup" in one else ""
        rows.append([name, ratio, "left out" if one["left_out"] else "stays"])
    head = [("the model without it", "number"), ("", "")]
    return ["<h2>Rewrites one by one</h2>", table(head, rows, caption=search_text(search))]


def _session(report: Report) -> list[str]:
    """The options that were tried, and Python that uses those that won."""
    session = report.session
    if not session.get("tried"):
        return []
    rows = []
    for one in session["tried"]:
        ratio = speedup_text(one["speedup"], one["ci95"]) if "speedup" in one else ""
        verdict = f"{one['verdict']}: {one['reason']}" if "reason" in one else one["verdict"]
        rows.append([one["option"], ratio, verdict, "kept" if one["kept"] else ""])
    head = [("against the best before", "number"), ("verdict", "text"), ("", "")]
    parts = ["<h2>Session options</h2>", table(head, rows)]
    if session["options"]:
        name = Path(report.output).name
        both = session_lines(name), plain_lines(name, session["options"])
        parts += [f"<pre><code>{escape(lines)}</code></pre>" for lines in both]
    return parts


def _mapping(name: str, values: Mapping[str, Any]) -> str:
    rows = [[key, _value(value)] for key, value in list(values.items())[:_ROWS]]
    rest = len(values) - _ROWS
    more = f'<p class="soft">and {rest:,} more in the JSON report</p>' if rest > 0 else ""
    return facts(rows, caption=name) + more


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_value(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return scalar_text(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _accuracy(report: Report) -> list[str]:
    """What each layer costs by itself, and which stay in float; nothing where none were weighed."""
    layers = report.accuracy.get("layers")
    if not layers:
        return []
    rows = [
        [
            one["layer"],
            one["operator"],
            "" if one["sqnr_db"] is None else f"{one['sqnr_db']:.1f}",
            "" if one["macs"] is None else quantity(one["macs"]),
            "float" if one["float"] else "int8",
        ]
        for one in layers
    ]
    head = [("operator", "text"), ("SQNR, dB", "number"), ("MACs", "number"), ("", "text")]
    plot = sensitivity_plot(report)
    title = "What is left of the signal if that layer alone is quantized"
    drawn = f"<figure>{plot}<figcaption>{title}</figcaption></figure>" if plot else ""
    text = accuracy_text(report.accuracy)
    return ["<h2>Sensitivity</h2>", drawn, table(head, rows, caption=text)]


def _answers(verified: Mapping[str, Any]) -> list[str]:
    outputs = verified.get("outputs") or {}
    if not outputs:
        return []
    keys = {
        "largest difference": "max_abs",
        "relative": "max_rel",
        "SQNR, dB": "sqnr_db",
        "cosine": "cosine",
    }
    rows = []
    for name, one in outputs.items():
        numbers = ["" if one.get(key) is None else f"{one[key]:.4g}" for key in keys.values()]
        share = one.get("top1_agreement")
        numbers.append("" if share is None else f"{share:.1%}")
        status = f"{one['status']}: {one['reason']}" if one.get("reason") else one["status"]
        rows.append([name, *numbers, status])
    runs = f"Over {plural(verified.get('cases', 0), 'run')}"
    head = [*((key, "number") for key in (*keys, "same top-1")), ("status", "text")]
    return ["<h2>Answers</h2>", table(head, rows, caption=runs)]
