"""Results as Markdown: each part of the READMEs from the result files that it needs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from . import lossless as measuring
from . import peers, store
from .compile_time import ours

Results: TypeAlias = dict[str, Any]
_VERDICTS = ("faster", "no significant difference", "slower")
_MOST = 8
"""How many models the short table of lossless rewriting names."""


def transcript(results: Results) -> str:
    """What the first command prints."""
    return "\n".join(["```text", f"$ {results['command']}", *results["output"], "```"])


def shipped(results: Results) -> str:
    """Every variant of every net."""
    rows = [
        [
            row["net"].removeprefix("mnist_"),
            row["variant"],
            _speed(row["latency"]),
            _change(row["bytes"], 1e3, "kB"),
            _change(row["macs"], 1e6, "M"),
            f"{100 * row['top1'][0]:.2f} → {100 * row['top1'][1]:.2f}",
        ]
        for row in results["rows"]
        if "error" not in row
    ]
    head = ["net", "what was done", "speedup (95% interval)", "file", "MACs", "top-1, %"]
    return _with_source(_table(head, rows, right=(2, 3, 4, 5)), results)


def lossless(results: Results) -> str:
    """All models in two lines, and those on which it does most."""
    summary = [
        [
            f"`-O {level}`",
            f"{len(rows)}",
            f"{sum(row.get('verified') == 'ok' for row in rows)}",
            f"{sum(len(row.get('quarantined', ())) for row in rows)}",
            *(str(sum(_verdict(row) == verdict for row in rows)) for verdict in _VERDICTS),
            f"{_mean(row['latency']['speedup'] for row in _timed(rows)):.2f}x",
        ]
        for level, rows in _levels(results).items()
    ]
    head = ["level", "models", "answers agree", "passes undone", *_VERDICTS, "geometric mean"]
    highest = _levels(results)[max(_levels(results))]
    faster = [row for row in _timed(highest) if _verdict(row) == _VERDICTS[0]]
    faster.sort(key=lambda row: -row["latency"]["speedup"])
    short = _models(faster[:_MOST])
    return _with_source(_table(head, summary, right=range(1, 8)), results) + f"\n\n{short}"


def lossless_models(results: Results) -> str:
    """Every model at every level."""
    parts = [
        f"`-O {level}`:\n\n{_models(rows)}" for level, rows in sorted(_levels(results).items())
    ]
    return _with_source("\n\n".join(parts), results)


def node_counts(results: Results) -> str:
    """The nodes that ``-O 1`` and other simplifiers leave of every model."""
    found = results.get("peers", [])
    names = [name for name in peers.PEERS if any(row["peer"] == name for row in found)]
    rows = []
    for row in measuring.of_level(results["rows"], 1):
        of_model = {one["peer"]: one for one in found if one["model"] == row["model"]}
        counts = [f"{count:,}" for count in row["nodes"]] if "nodes" in row else ["", "fails"]
        shown = (peers.shown(of_model.get(name)) for name in names)
        rows.append([row["model"], *counts, *shown])
    head = ["model", "original", "`-O 1`", *names]
    return _with_source(_table(head, rows, right=range(1, len(head))), results)


def compile_time(results: Results) -> str:
    """The geometric means and the growth."""
    packages = results["environment"]["packages"]
    rows = [
        [
            f"`-O {level}`",
            f"{peer} {packages[peer]}",
            f"{value:.2f}",
            str(_finished(results, int(level), peer)),
        ]
        for level, found in results["levels"].items()
        for peer, value in found["ratios"].items()
    ]
    head = ["onnxpress", "against", "time, geometric mean of ratios", "models both finish"]
    table = _table(head, rows, right=(2, 3))
    notes = []
    for level, found in results["levels"].items():
        growth = found["growth"]
        if "error" in growth:
            continue
        small, large = growth["nodes"]
        notes.append(
            f"From {small:,} to {large:,} nodes the time of `-O {level}` grows "
            f"{growth['over_linear']:.2f} times as fast as the graph "
            f"({growth['seconds'][0]:.2f} s to {growth['seconds'][1]:.1f} s)."
        )
    return _with_source("\n\n".join([table, *notes]), results)


def compile_times(results: Results) -> str:
    """Every model."""
    timed = [row for row in results["rows"] if "error" not in row]
    names = list(dict.fromkeys(name for row in timed for name in row["seconds"]))
    rows = [
        [
            row["model"],
            f"{row['nodes']:,}",
            *(
                f"{row['seconds'][name] * 1000:.0f}" if name in row["seconds"] else "fails"
                for name in names
            ),
        ]
        for row in timed
    ]
    head = ["model", "nodes", *(f"{name}, ms" for name in names)]
    return _with_source(_table(head, rows, right=range(1, len(head))), results)


def merged(results: Results) -> str:
    """What merged models answer, what they are worth, how large and how fast they are."""
    from . import ensembles_suite as suite

    parts = ["\n".join(f"- {line}" for line in suite.equal_lines(results["equalities"]))]
    for head, rows in suite.tables(results):
        right = range(1, len(head))
        parts.append(_table(head, rows, right) if rows else f"{head[-1]}: not measured here.")
    return _with_source("\n\n".join(parts), results)


def glance(shipped: Results, lossless: Results, compiling: Results) -> str:
    """A line for each family of rewrites."""
    lines = [
        *_families([row for row in shipped["rows"] if "error" not in row]),
        *(_level(level, rows) for level, rows in _levels(lossless).items()),
        *(
            f"**Compile time** at `-O {level}`: "
            + ", ".join(f"{value:.2f} times {peer}'s" for peer, value in found["ratios"].items())
            + " (geometric means)."
            for level, found in compiling["levels"].items()
        ),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _families(rows: Sequence[Results]) -> Iterator[str]:
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        speed = [row["latency"]["speedup"] for row in mine]
        size = [row["bytes"][0] / row["bytes"][1] for row in mine]
        drop = max(100 * (row["top1"][0] - row["top1"][1]) for row in mine)
        span = _span(size)
        files = "files as large" if span == "1.00" else f"files {span} times smaller"
        worst = f"at most {drop:.2f} points lower" if drop > 0 else "not lower"
        yield (
            f"**{variant[0].upper()}{variant[1:]}**: {_span(speed)} times as fast, "
            f"{files}, top-1 {worst}."
        )


def _level(level: int, rows: Sequence[Results]) -> str:
    agree = sum(row.get("verified") == "ok" for row in rows)
    speeds = [row["latency"]["speedup"] for row in _timed(rows)]
    return (
        f"**Lossless, `-O {level}`**: answers agree on {agree} of {len(rows)} models, "
        f"{_span(speeds)} times as fast, {_mean(speeds):.2f} in the geometric mean."
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def losses(lossless: Results, shipped: Results, compiling: Results) -> str:
    """Everything in the results in which onnxpress is behind."""
    return "\n".join(f"- {line}" for line in _losses(lossless, shipped, compiling))


def _losses(lossless: Results, shipped: Results, compiling: Results) -> Iterator[str]:
    for level, rows in _levels(lossless).items():
        timed = _timed(rows)
        same = sum(_verdict(row) == _VERDICTS[1] for row in timed)
        yield f"`-O {level}` makes no significant difference on {same} of {len(rows)} models."
        for row in timed:
            if _verdict(row) == "slower":
                yield f"`-O {level}` makes {row['model']} slower: {_speed(row['latency'])}."
        for row in rows:
            if "error" in row:
                yield f"`-O {level}` fails on {row['model']}: {row['error']}."
    for model, nodes, best in measuring.larger(lossless["rows"], lossless.get("peers", [])):
        yield f"`-O 1` leaves {nodes} nodes of {model}, {best['peer']} {best['nodes']}."
    for row in shipped["rows"]:
        net, done = row["net"].removeprefix("mnist_"), row["variant"]
        if "error" in row:
            yield f"{net}, {done}: fails, {row['error']}."
            continue
        if row["latency"]["verdict"] == "slower":
            yield f"{net}, {done}: slower, {_speed(row['latency'])}."
        drop = 100 * (row["top1"][0] - row["top1"][1])
        if drop > 0.5:
            yield f"{net}, {done}: loses {drop:.2f} points of top-1."
    for level, found in compiling["levels"].items():
        for peer in found["ratios"]:
            yield from _longer(compiling["rows"], int(level), peer)


def _longer(rows: Sequence[Results], level: int, peer: str) -> Iterator[str]:
    mine = ours(level)
    pairs = [
        row["seconds"][mine] / row["seconds"][peer]
        for row in rows
        if {mine, peer} <= row.get("seconds", {}).keys()
    ]
    slower = [one for one in pairs if one > 1]
    if slower:
        yield (
            f"Compiling at `-O {level}` takes longer than {peer} does on {len(slower)} of "
            f"{len(pairs)} models, {max(slower):.1f} times as long at worst."
        )


PARTS: Mapping[str, tuple[Sequence[str], Callable[..., str]]] = {
    "transcript": (["transcript"], transcript),
    "glance": (["shipped", "lossless", "compile-time"], glance),
    "shipped": (["shipped"], shipped),
    "lossless": (["lossless"], lossless),
    "lossless-models": (["lossless"], lossless_models),
    "node-counts": (["lossless"], node_counts),
    "compile-time": (["compile-time"], compile_time),
    "compile-times": (["compile-time"], compile_times),
    "ensembles": (["ensembles"], merged),
    "losses": (["lossless", "shipped", "compile-time"], losses),
}
"""What can be marked: the suites that a part needs, and how it is written."""


def everything(found: Mapping[str, Results]) -> str:
    """A page of all parts whose results are in ``found``."""
    parts = [
        f"## {name.replace('-', ' ').capitalize()}\n\n{write(*(found[one] for one in suites))}"
        for name, (suites, write) in PARTS.items()
        if found.keys() >= set(suites)
    ]
    return "\n\n".join(["# What was measured", *parts]) + "\n"


def _levels(results: Results) -> dict[int, list[Results]]:
    levels: dict[int, list[Results]] = {}
    for row in results["rows"]:
        levels.setdefault(row["level"], []).append(row)
    return dict(sorted(levels.items()))


def _timed(rows: Iterable[Results]) -> list[Results]:
    return [row for row in rows if row.get("latency", {}).get("status") == "measured"]


def _verdict(row: Results) -> str:
    return str(row.get("latency", {}).get("verdict", "not measured"))


def _models(rows: Iterable[Results]) -> str:
    cells = [
        [row["model"], row["error"], "", "", ""]
        if "error" in row
        else [
            row["model"],
            f"{row['nodes'][0]:,} → {row['nodes'][1]:,}",
            _speed(row["latency"]),
            _verdict(row),
            row["verified"],
        ]
        for row in rows
    ]
    head = ["model", "nodes", "speedup (95% interval)", "verdict", "answers"]
    return _table(head, cells, right=(1, 2))


def _finished(results: Results, level: int, peer: str) -> int:
    return sum({ours(level), peer} <= row.get("seconds", {}).keys() for row in results["rows"])


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)


def _speed(latency: Results) -> str:
    if latency.get("status") != "measured":
        return "not measured"
    low, high = latency["ci95"]
    return f"{latency['speedup']:.2f}x ({low:.2f} to {high:.2f})"


def _change(pair: Sequence[float | None], unit: float, name: str) -> str:
    if None in pair:
        return "not known"
    before, after = (f"{(one or 0) / unit:,.{1 if unit > 1e3 else 0}f}" for one in pair)
    return f"{before} → {after} {name}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    aligned = set(right)
    rule = ["---:" if index in aligned else "---" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def _with_source(text: str, results: Results) -> str:
    command = f"python -m benchmarks {results['suite']}"
    return f"{text}\n\n<sub>Measured by `{command}` on {store.machine(results)}.</sub>"
