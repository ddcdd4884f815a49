"""What lossless rewriting does to real models: nodes, checked answers, latency.

Each model and level is a process of its own with a time limit. Models are compiled as users do,
with everything checked and timed; then the result's answers are compared once more, on the inputs
of ``corpus.toml``, and its latency is measured on the first of their sizes, on one thread, in
default sessions, original and result interleaved.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import onnxpress
from onnxpress.compiler.latency import WIDTH, latency_before_and_after

from . import agreement, peers
from .apart import CallError, apart
from .corpus import load_corpus

LEVELS = (1, 2, 3)
Row: TypeAlias = Mapping[str, Any]


def measure(
    name: str,
    level: int,
    *,
    limit: float,
    cache: Path | None = None,
    budget: float | None = None,
) -> dict[str, Any]:
    """The row of model ``name`` at ``level``; where something failed, its ``error``.

    ``budget`` is what ``-O 3`` may take for its search, in seconds; by default what it takes.
    """
    head: dict[str, Any] = {"model": name, "level": level}
    if level == max(LEVELS) and budget is not None:
        head["budget"] = budget
    try:
        return head | apart(_measure, name, level, cache, head.get("budget"), limit=limit)
    except CallError as error:
        return head | {"error": str(error)}


def _measure(name: str, level: int, cache: Path | None, budget: float | None) -> dict[str, Any]:
    model = load_corpus(cache)[name]
    original = onnxpress.load(model.path)
    outcome = onnxpress.optimize(original, level=level, time=True, threads=1, budget=budget)
    report = outcome.report
    checked = agreement.verifier(model, original).check(outcome.model)
    verified, reason = agreement.verdict(checked)
    if report.verified["status"] != "ok":
        verified, reason = report.verified["status"], report.verified["reason"]
    feeds = model.feeds()[0]
    latency = latency_before_and_after(
        original, outcome.model, feeds, threads=1, seconds=8, width=WIDTH
    )
    return {
        "nodes": report.nodes,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "verified": verified,
        "reason": reason,
        "max_abs": checked.max_abs,
        "inputs": checked.cases,
        "quarantined": _reasons(report, "quarantined"),
        "withdrawn": _reasons(report, "withdrawn"),
        "latency": latency,
        "session": report.session,
    }


def _reasons(report: Any, status: str) -> dict[str, str]:
    return {record.name: record.reason for record in report.passes if record.status == status}


def timed(rows: Iterable[Row]) -> list[Row]:
    """The rows that have a latency."""
    return [row for row in rows if row.get("latency", {}).get("status") == "measured"]


def of_level(rows: Iterable[Row], level: int) -> list[Row]:
    """The rows of one level."""
    return [row for row in rows if row["level"] == level]


def geometric_mean(rows: Iterable[Row]) -> float | None:
    """The geometric mean of the speedups, if there are any."""
    found = [row["latency"]["speedup"] for row in timed(rows)]
    return statistics.geometric_mean(found) if found else None


def sessions(rows: Iterable[Row]) -> list[float]:
    """What other session options gain on top, for the models that are faster with some."""
    found = [row.get("session", {}) for row in rows]
    return [one["speedup"] for one in found if one.get("verdict") == "faster"]


def smallest(found: Sequence[Row], model: str) -> Row | None:
    """The row of the peer that leaves the fewest nodes of ``model`` and is right."""
    right = [row for row in found if row["model"] == model and peers.is_right(row)]
    return min(right, key=lambda row: row["nodes"], default=None)


def larger(rows: Sequence[Row], found: Sequence[Row]) -> list[tuple[str, int, Row]]:
    """The models of which ``-O 1`` leaves more nodes than a peer that is right: how many, whose."""
    behind = []
    for row in of_level(rows, 1):
        best = smallest(found, row["model"])
        if best is not None and "nodes" in row and row["nodes"][1] > best["nodes"]:
            behind.append((row["model"], row["nodes"][1], best))
    return behind
