"""What lossless rewriting does to real models: nodes, checked answers, latency.

Each model and level is a process of its own with a time limit. Latency is measured on the inputs
that ``corpus.toml`` gives, in the first of their sizes, on one thread, in default sessions,
original and result interleaved. The answers are checked on inputs that onnxpress finds by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxpress
from onnxpress.compiler.latency import latency_before_and_after

from .apart import CallError, apart
from .corpus import load_corpus

LEVELS = (1, 2)


def measure(name: str, level: int, *, limit: float, cache: Path | None = None) -> dict[str, Any]:
    """The row of model ``name`` at ``level``; where something failed, its ``error``."""
    head: dict[str, Any] = {"model": name, "level": level}
    try:
        return head | apart(_measure, name, level, cache, limit=limit)
    except CallError as error:
        return head | {"error": str(error)}


def _measure(name: str, level: int, cache: Path | None) -> dict[str, Any]:
    model = load_corpus(cache)[name]
    original = onnxpress.load(model.path)
    outcome = onnxpress.optimize(original, level=level)
    report = outcome.report
    verified = report.verified
    feeds = model.feeds()[0]
    latency = latency_before_and_after(original, outcome.model, feeds, threads=1, seconds=8)
    return {
        "nodes": report.nodes,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "verified": verified["status"],
        "reason": verified.get("reason", ""),
        "max_abs": verified.get("max_abs"),
        "quarantined": {
            record.name: record.reason for record in report.passes if record.status == "quarantined"
        },
        "latency": latency,
    }
