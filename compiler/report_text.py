"""What a report says in words and numbers for people, the same on a terminal and on a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .report import Report

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def verified_text(verified: Mapping[str, Any]) -> str:
    """Whether the answers agree, as one plain sentence without a full stop."""
    status, reason = verified["status"], verified.get("reason") or ""
    if status in {"not-run", "not-comparable"}:
        word = "not checked" if status == "not-run" else "not comparable"
        return f"{word}: {reason}" if reason else word
    exact = verified.get("exact", True)
    facts = [] if exact else _top1(verified)
    if verified.get("sqnr_db") is not None and math.isfinite(verified["sqnr_db"]):
        facts.append(f"SQNR {verified['sqnr_db']:.1f} dB")
    if verified.get("max_abs") is not None:
        facts.append(f"largest difference {verified['max_abs']:.2g}")
    if cases := verified.get("cases"):
        facts.append(plural(cases, "run"))
    word = "differ" if status != "ok" else "agree" if exact else "within the contract"
    text = f"{word} ({', '.join(facts)})" if facts else word
    return f"{text}: {reason}" if reason else text


def _top1(verified: Mapping[str, Any]) -> list[str]:
    """How often the largest element stays where it was, in the output where it does so least."""
    shares = [one.get("top1_agreement") for one in verified.get("outputs", {}).values()]
    known = [share for share in shares if share is not None]
    return [f"same top-1 in {min(known):.1%}"] if known else []


def latency_text(latency: Mapping[str, Any]) -> str:
    """The measured latency before and after, with its interval, as one plain sentence."""
    if latency["status"] != "measured":
        return f"not measured: {latency.get('reason', '')}"
    packing = "" if latency.get("prepacking", True) else ", weights not prepacked, to save memory"
    return (
        f"{latency['verdict']}: "
        f"{latency['before']['median_ms']:.3f} ms → {latency['after']['median_ms']:.3f} ms, "
        f"{speedup_text(latency['speedup'], latency['ci95'])}, "
        f"{threads_text(latency['threads'])}{packing}"
    )


def search_text(search: Mapping[str, Any]) -> str:
    """Which rewrites did not pay, and what is gained without them, as one plain sentence."""
    if search["status"] != "measured":
        return f"not measured: {search.get('reason', '')}"
    left_out = [one["pass"] for one in search["tried"] if one["left_out"]]
    tried = f"{len(left_out) or 'none'} of {plural(len(search['tried']), 'group')} of rewrites"
    if "speedup" not in search:
        return f"{tried} better left out"
    ratio = speedup_text(search["speedup"], search["ci95"])
    names = ", ".join(dict.fromkeys(left_out))
    return f"{search['verdict']} without {tried} ({names}), {ratio}"


def session_text(session: Mapping[str, Any]) -> str:
    """What other session options gain over the default ones, as one plain sentence."""
    if session["status"] != "measured":
        return f"not measured: {session.get('reason', '')}"
    if not session["options"]:
        return f"{plural(len(session['tried']), 'option')} tried, none is faster than the default"
    return (
        f"{session['verdict']}: "
        f"{session['before']['median_ms']:.3f} ms → {session['after']['median_ms']:.3f} ms, "
        f"{speedup_text(session['speedup'], session['ci95'])} with "
        f"{options_text(session['options'])}"
    )


def accuracy_text(accuracy: Mapping[str, Any]) -> str:
    """What answers are worth after quantization or pruning, and what had to stay for that."""
    number = accuracy["value"]
    value = f"{accuracy['metric']} {'without end' if number is None else f'{number:.4g}'}"
    if accuracy["reference"] is not None:
        value += f" of {accuracy['reference']:.4g}"
    if accuracy["status"] == "not-worth-it":
        return str(accuracy["reason"])
    if "fraction" in accuracy:
        return f"{value} on samples held out, at {accuracy['fraction']:.3g} of the work"
    left = len(accuracy["in_float"])
    kept = f"{left} of {plural(len(accuracy['layers']), 'layer')} in float" if left else "all int8"
    return f"{value} on samples held out, {kept}"


def session_lines(model: str) -> str:
    """Python that runs ``model`` with the options of its session file."""
    return (
        "import onnxpress\n"
        f"session = onnxpress.session({json.dumps(model)})\n"
        "answers = session.run(None, inputs)"
    )


def plain_lines(model: str, options: Mapping[str, Any]) -> str:
    """Python that makes a session with ``options`` by ONNX Runtime alone."""
    lines = ["import onnxruntime as ort", "options = ort.SessionOptions()"]
    for name, value in options.items():
        if name == "graph_optimization_level":
            lines.append(f"options.{name} = ort.GraphOptimizationLevel.{value}")
        elif name == "config_entries":
            lines += [f'options.add_session_config_entry("{k}", "{v}")' for k, v in value.items()]
        else:
            lines.append(f"options.{name} = {value}")
    lines.append(f"session = ort.InferenceSession({json.dumps(model)}, options)")
    return "\n".join(lines)


def options_text(options: Mapping[str, Any]) -> str:
    """Session options in one line, entries by their own names: ``intra_op_num_threads=1, …``."""
    flat = {name: value for name, value in options.items() if name != "config_entries"}
    flat |= options.get("config_entries", {})
    return ", ".join(f"{name}={value}" for name, value in flat.items())


def speedup_text(speedup: float, interval: tuple[float, float] | list[float]) -> str:
    """A ratio of latencies with its interval."""
    low, high = interval
    return f"{speedup:.2f}x (95% interval {low:.2f} to {high:.2f})"


def threads_text(threads: int) -> str:
    """How many threads a measurement was allowed."""
    return plural(threads, "thread") if threads else "default threads"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {one}" if count == 1 else f"{count:,} {many or one + 's'}"


def quantity(value: float, unit: str = "") -> str:
    """``value`` to four digits with a decimal prefix, ``716.4 kB``; whole below a thousand."""
    for factor, prefix in _PREFIXES:
        if value >= factor * 0.99995:
            return f"{value / factor:#.4g} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def sizes(report: Report) -> list[tuple[str, str, str, str]]:
    """Nodes, parameters, MACs and file size: name, before, after, change in percent."""
    rows: list[tuple[str, list[int] | list[int | None], str | None]] = [
        ("nodes", report.nodes, None),
        ("parameters", report.parameters, ""),
        ("MACs", report.macs, ""),
        ("file size", report.bytes, "B"),
    ]
    found = []
    for name, (before, after), unit in rows:
        if before is None or after is None:
            found.append((name, "not known", "not known", ""))
            continue
        first, second = (f"{n:,}" if unit is None else quantity(n, unit) for n in (before, after))
        found.append((name, first, second, change_text(before, after)))
    return found


def change_text(before: float, after: float) -> str:
    """The change from ``before`` to ``after`` in percent; empty where there is none."""
    if not before or before == after:
        return ""
    percent = (after / before - 1) * 100
    if abs(percent) < 0.01:
        return "<0.01%"
    return f"{percent:+.1f}%" if abs(percent) >= 0.1 else f"{percent:+.2f}%"


def dims_text(dims: Mapping[str, int]) -> str:
    """``batch=1, width=32``."""
    return ", ".join(f"{name}={size}" for name, size in dims.items())


def detail_texts(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a pass reports besides its counts: name and value, long ones as how many there are."""
    return [(name.replace("_", " "), _detail(value)) for name, value in details.items()]


def _detail(value: Any) -> str:
    if isinstance(value, Mapping) and (len(value) > 8 or any(map(_nested, value.values()))):
        return plural(len(value), "entry", "entries")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {scalar_text(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(scalar_text, value)) if len(value) <= 8 else f"{len(value):,} values"
    return scalar_text(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def scalar_text(value: Any) -> str:
    """One value as a person writes it: floats to four digits, counts with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def environment_texts(report: Report) -> list[tuple[str, str]]:
    """The machine and what is installed, name and text."""
    found = []
    for name, value in report.environment.items():
        if isinstance(value, Mapping):
            entries = [(key, one) for key, one in value.items() if one is not None]
            text = ", ".join(f"{key} {_joined(one)}" for key, one in entries)
        else:
            text = _joined(value)
        found.append((name.replace("_mb", ", MB"), text or "none"))
    return found


def _joined(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {one}" for key, one in value.items())
    return " ".join(map(_joined, value)) if isinstance(value, list | tuple) else str(value)
