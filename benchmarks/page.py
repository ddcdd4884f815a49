"""All results as one HTML page that loads nothing from anywhere, in the design of the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

from onnxpress.compiler.html_page import card, page, table
from onnxpress.compiler.plots import AFTER, BEFORE, INK, SPAN, new_figure, svg

from . import lossless as measuring
from . import peers, store

Results: TypeAlias = dict[str, Any]
_MARKS = "osD^vP*X"


def as_html(found: Mapping[str, Results]) -> str:
    """The page of the suites in ``found``; those that are missing are named."""
    body = ["<h1>onnxpress: what was measured</h1>"]
    missing = [name for name in _PARTS if name not in found]
    if missing:
        body.append(f'<p class="soft">Not measured here: {escape(", ".join(missing))}.</p>')
    cards = "".join(_cards(found))
    body.append(f'<div class="cards">{cards}</div>')
    for name, part in _PARTS.items():
        if name in found:
            body += part(found[name])
            source = f"python -m benchmarks {name}, on {store.machine(found[name])}"
            body.append(f'<p class="soft">{escape(source)}</p>')
    return page("onnxpress: what was measured", body)


def _cards(found: Mapping[str, Results]) -> Iterator[str]:
    if "lossless" in found:
        rows = found["lossless"]["rows"]
        level = max(row["level"] for row in rows)
        mine = measuring.of_level(rows, level)
        mean = measuring.geometric_mean(mine)
        agree = sum(row.get("verified") == "ok" for row in mine)
        slower = sum(row["latency"]["verdict"] == "slower" for row in measuring.timed(mine))
        if mean is not None:
            small = [f"geometric mean of {len(mine)} models at -O {level}", f"{slower} slower"]
            yield card("lossless speedup", f"{mean:.2f}x", small, "good")
        yield card("answers", f"{agree} of {len(mine)} agree", ["with the original's"], "good")
    if "shipped" in found:
        best = max(
            _fine(found["shipped"]["rows"]), key=lambda row: row["latency"].get("speedup", 0)
        )
        change = 100 * (best["top1"][1] - best["top1"][0])
        small = [f"{best['net']}, {best['variant']}", f"top-1 {change:+.2f} points"]
        yield card("with changed answers", f"{best['latency']['speedup']:.2f}x", small, "good")
    for one in found.get("harness", {}).get("summary", []):
        if one["kind"] == "same" and not one["load"]:
            small = ["trials of a model against its own copy", "no significant difference"]
            count = f"{one['as_expected']} of {one['trials']}"
            yield card("statistics", count, small, "good" if one["holds"] else "bad")


def _lossless(results: Results) -> list[str]:
    body = []
    for level in sorted({row["level"] for row in results["rows"]}):
        rows = measuring.of_level(results["rows"], level)
        body += [f"<h2>Lossless, -O {level}</h2>", _figure(_speedups(rows, f"-O {level}"))]
        cells = [
            [
                row["model"],
                f"{row['nodes'][0]:,} → {row['nodes'][1]:,}",
                _cell(row["latency"]),
                row["latency"].get("verdict", "not measured"),
                row["verified"],
            ]
            for row in rows
            if "error" not in row
        ]
        head = [
            ("nodes", "number"),
            ("speedup (95% interval)", "number"),
            ("", ""),
            ("answers", ""),
        ]
        body.append(_folded(f"All {len(cells)} models", table(head, cells)))
        broken = [f"{row['model']}: {row['error']}" for row in rows if "error" in row]
        body += [f'<p class="bad">{escape(one)}</p>' for one in broken]
    if results.get("peers"):
        body += ["<h2>Nodes beside other simplifiers</h2>", _node_counts(results)]
    return body


def _node_counts(results: Results) -> str:
    found = results["peers"]
    names = [name for name in peers.PEERS if any(row["peer"] == name for row in found)]
    rows = []
    for row in measuring.of_level(results["rows"], 1):
        of_model = {one["peer"]: one for one in found if one["model"] == row["model"]}
        counts = [f"{count:,}" for count in row["nodes"]] if "nodes" in row else ["", "fails"]
        rows.append([row["model"], *counts, *(peers.shown(of_model.get(name)) for name in names)])
    head = [(name, "number") for name in ("original", "-O 1", *names)]
    return _folded(f"All {len(rows)} models", table(head, rows))


def _shipped(results: Results) -> list[str]:
    rows = [
        [
            f"{row['net']}, {row['variant']}",
            _cell(row["latency"]),
            f"{row['bytes'][1] / row['bytes'][0]:.2f}",
            f"{100 * row['top1'][0]:.2f} → {100 * row['top1'][1]:.2f}",
        ]
        for row in _fine(results["rows"])
    ]
    head = [(name, "number") for name in ("speedup (95% interval)", "file", "top-1, %")]
    title = "Accuracy against speed: each point is a net, each colour what was done to it"
    return [
        "<h2>Int8, pruning, merging</h2>",
        _figure(_accuracy(_fine(results["rows"])), title),
        _folded(f"All {len(rows)} variants", table(head, rows)),
    ]


def _compile_time(results: Results) -> list[str]:
    title = "Seconds to compile against nodes; each point is a model"
    return ["<h2>Compile time</h2>", _figure(_scaling(_fine(results["rows"])), title)]


def _harness(results: Results) -> list[str]:
    from .harness import title

    rows = [
        [
            title(one),
            f"{one['as_expected']} of {one['trials']}",
            f"{one['needed']:.0%}",
            "" if one["median_width"] is None else f"{one['median_width']:.1%}",
        ]
        for one in results.get("summary", ())
    ]
    head = [(name, "number") for name in ("as expected", "wanted", "median width of interval")]
    return ["<h2>The statistics judged by themselves</h2>", table(head, rows)]


def _ensembles(results: Results) -> list[str]:
    from . import ensembles_suite as suite

    body = ["<h2>Merged models against their members</h2>"]
    body += [f"<p>{escape(line)}</p>" for line in suite.equal_lines(results["equalities"])]
    for head, rows in suite.tables(results):
        columns = [(name, "number") for name in head[1:]]
        body.append(table(columns, rows) if rows else f"<p>{head[-1]}: not measured here.</p>")
    return body


_PARTS: dict[str, Callable[[Results], list[str]]] = {
    "lossless": _lossless,
    "shipped": _shipped,
    "compile-time": _compile_time,
    "harness": _harness,
    "ensembles": _ensembles,
}
SUITES = tuple(_PARTS)
"""The suites that the page tells of."""


def _speedups(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The speedup of every model with its interval, the largest on top."""
    timed = sorted(measuring.timed(rows), key=lambda row: row["latency"]["speedup"])
    drawn = new_figure(height=0.8 + 0.19 * len(timed))
    if drawn is None or not timed:
        return ""
    axes = drawn.subplots()
    for at, row in enumerate(timed):
        one = row["latency"]
        colour = {"faster": AFTER, "slower": SPAN}.get(one["verdict"], BEFORE)
        axes.plot(one["ci95"], [at, at], color=colour, linewidth=3, alpha=0.6)
        axes.plot([one["speedup"]], [at], "o", color=colour, markersize=4)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_ylim(-1, len(timed))
    axes.set_yticks(range(len(timed)), [row["model"] for row in timed], fontsize=7)
    axes.set_xlabel("times as fast as the original, with 95% interval")
    return svg(drawn, axes, f"Speedup of every model at {name}")


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> str:
    drawn = new_figure(height=3.4)
    if drawn is None:
        return ""
    axes = drawn.subplots()
    variants = dict.fromkeys(row["variant"] for row in rows)
    for variant, mark in zip(variants, _MARKS, strict=False):
        mine = [row for row in rows if row["variant"] == variant]
        axes.plot(
            [row["latency"]["speedup"] for row in mine],
            [100 * (row["top1"][1] - row["top1"][0]) for row in mine],
            mark,
            label=variant,
            alpha=0.8,
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("times as fast as the original")
    axes.set_ylabel("top-1, change in points")
    drawn.legend(frameon=False, labelcolor=INK, fontsize=7, loc="outside lower center", ncols=3)
    return svg(drawn, axes, "Accuracy against speed of the nets that ship")


def _scaling(rows: Sequence[Mapping[str, Any]]) -> str:
    drawn = new_figure(height=3.4)
    if drawn is None:
        return ""
    axes = drawn.subplots()
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    for name, mark in zip(names, _MARKS, strict=False):
        mine = [row for row in rows if name in row["seconds"]]
        seconds = [row["seconds"][name] for row in mine]
        axes.plot([row["nodes"] for row in mine], seconds, mark, label=name, alpha=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("nodes")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return svg(drawn, axes, "Compile time against nodes")


def _fine(rows: Sequence[Results]) -> list[Results]:
    return [row for row in rows if "error" not in row]


def _figure(drawn: str, title: str = "Green: faster; grey: no significant difference") -> str:
    if not drawn:
        return "<p>Plots need <code>pip install onnxpress[plots]</code>.</p>"
    return f"<figure>{drawn}<figcaption>{escape(title)}</figcaption></figure>"


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def _cell(latency: Mapping[str, Any]) -> str:
    if latency.get("status", "measured") != "measured":
        return "not measured"
    low, high = latency["ci95"]
    return f"{latency['speedup']:.2f}x ({low:.2f} to {high:.2f})"
