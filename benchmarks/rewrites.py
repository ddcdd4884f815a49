"""What each exact pass does by itself: where it fires in the corpus, and what that gains.

A pass is run alone, after ``fold-constants,cleanup`` and with both once more behind it, against the
same without it: what it rewrites, the nodes that are left, and the ratio of the latencies, measured
as everywhere, original being the model without the pass. So gains of passes overlap, and those of a
level are not their product. The two passes that all stand upon are held against the model as it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

import onnxpress
from onnxpress.backends.targets import Target
from onnxpress.compiler.latency import latency_before_and_after
from onnxpress.compiler.manager import PassManager
from onnxpress.passes import registry
from onnxpress.passes.analysis.cost import node_count
from onnxpress.passes.base import Context, Pass

from .apart import CallError, apart
from .corpus import load_corpus

FIRST = ("fold-constants", "cleanup")
"""What comes before and after the pass."""


def names() -> list[str]:
    """The built-in passes that keep values and need no data."""
    found = []
    for name in registry.builtin_names():
        kind = registry.find(name)
        if issubclass(kind, Pass) and kind.contract.exact and not kind.needs_data:
            found.append(name)
    return found


def measure(
    model: str, name: str, *, limit: float, cache: Path | None = None, seconds: float = 4.0
) -> dict[str, Any]:
    """The row of the pass ``name`` on ``model``; where something failed, its ``error``."""
    head: dict[str, Any] = {"model": model, "pass": name}
    try:
        return head | apart(_measure, model, name, cache, seconds, limit=limit)
    except CallError as error:
        return head | {"error": str(error)}


def _measure(model: str, name: str, cache: Path | None, seconds: float) -> dict[str, Any]:
    entry = load_corpus(cache)[model]
    original = onnxpress.load(entry.path)
    before = original if name in FIRST else _after(original, ",".join(FIRST))
    rewritten = _rewritten(original, name)
    if not rewritten:
        return {"rewritten": 0}
    pipeline = name if name in FIRST else ",".join([*FIRST, name, *FIRST])
    after = _after(original, pipeline)
    feeds = entry.feeds()[0]
    latency = latency_before_and_after(before, after, feeds, threads=1, seconds=seconds)
    return {
        "rewritten": rewritten,
        "nodes": [node_count(before), node_count(after)],
        "latency": latency,
    }


def _run(model: ir.Model, pipeline: str) -> Any:
    target = Target("cpu")
    return PassManager(pipeline, strict=True).run(model, Context(target=target))


def _after(model: ir.Model, pipeline: str) -> ir.Model:
    after: ir.Model = _run(model, pipeline).model
    return after


def _rewritten(model: ir.Model, name: str) -> int:
    """How much the pass ``name`` rewrites, where it stands in the pipeline."""
    pipeline = name if name in FIRST else ",".join([*FIRST, name])
    return int(_run(model, pipeline).records[-1].rewritten)


def summary(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each pass: the models it fires on, what it rewrites there, nodes, speedups."""
    found: list[dict[str, Any]] = []
    all_rows = list(rows)
    for name in dict.fromkeys(row["pass"] for row in all_rows):
        mine = [row for row in all_rows if row["pass"] == name]
        firing = [row for row in mine if row.get("rewritten")]
        timed = [row for row in firing if row["latency"]["status"] == "measured"]
        best = max(timed, key=lambda row: row["latency"]["speedup"], default=None)
        speedups = [row["latency"]["speedup"] for row in timed]
        found.append(
            {
                "pass": name,
                "models": len(mine),
                "fires": len(firing),
                "rewritten": sum(row["rewritten"] for row in firing),
                "nodes": [sum(row["nodes"][at] for row in firing) for at in (0, 1)],
                "mean": statistics.geometric_mean(speedups) if speedups else None,
                "faster": sum(row["latency"]["verdict"] == "faster" for row in timed),
                "slower": sum(row["latency"]["verdict"] == "slower" for row in timed),
                "best": None if best is None else [best["model"], best["latency"]["speedup"]],
            }
        )
    return found
