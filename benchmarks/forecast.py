"""How well the static cost model of level 2 foretells what was measured.

Nothing is timed here: the latencies are those of ``results/lossless.jsonl``, on whose machine the
model is asked as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import onnxpress
from onnxpress.passes.analysis.latency_model import predicted_latency

from . import cli, store
from .apart import CallError, apart
from .corpus import load_corpus
from .printing import Limit, Results, say, table, there

LEVEL = 2


def forecast(
    models: cli.Names = None,
    cache: cli.Cache = None,
    limit: Limit = 300,
    results: Results = store.RESULTS,
) -> None:
    """Hold predicted latencies and speedups of -O 2 against the measured ones."""
    rows = {
        row["model"]: row["latency"]
        for row in store.load("lossless", results)["rows"]
        if row["level"] == LEVEL and row.get("latency", {}).get("status") == "measured"
    }
    shown = table(
        "model", "before ms", "predicted", "after ms", "predicted", "speedup", "predicted"
    )
    pairs = []
    for model in there(cli.select(models, cache)):
        if model.name not in rows:
            say(f"{model.name}: not measured")
            continue
        try:
            before, after = apart(predict, model.name, cache, limit=limit)
        except CallError as error:
            say(f"{model.name}: {error}")
            continue
        measured = [rows[model.name][side]["median_ms"] for side in ("before", "after")]
        if before is None or after is None:
            shown.add_row(model.name, *cells(measured, [None, None]))
            continue
        predicted = [before / 1e3, after / 1e3]
        shown.add_row(model.name, *cells(measured, predicted))
        pairs.append((measured, predicted))
    console = Console(width=140, highlight=False)
    console.print(shown)
    if len(pairs) > 2:
        console.print(summary(pairs))


def predict(name: str, cache: Path | None) -> tuple[float | None, float | None]:
    """Predicted microseconds of the corpus model ``name`` and of what -O 2 makes of it."""
    model = load_corpus(cache)[name]
    original = onnxpress.load(model.path)
    result = onnxpress.optimize(original, level=LEVEL, verify=False, time=False).model
    dims = model.sizes()[0]
    return predicted_latency(original, dims), predicted_latency(result, dims)


def cells(measured: Sequence[float], predicted: Sequence[float | None]) -> list[str]:
    """The columns of one model: latencies before and after, and their ratio."""
    before, after = predicted
    known = before is not None and after is not None
    return [
        f"{measured[0]:.2f}",
        f"{before:.2f}" if known else "",
        f"{measured[1]:.2f}",
        f"{after:.2f}" if known else "",
        f"{measured[0] / measured[1]:.2f}x",
        f"{before / after:.2f}x" if before is not None and after is not None else "not predicted",
    ]


def summary(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> str:
    """Rank correlations of latencies and of speedups."""
    measured, predicted = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    latency = rank_correlation(measured[:, 0], predicted[:, 0])
    speedup = rank_correlation(measured[:, 0] / measured[:, 1], predicted[:, 0] / predicted[:, 1])
    return (
        f"rank correlation over {len(pairs)} models: {latency:.2f} of latencies, "
        f"{speedup:.2f} of speedups"
    )


def rank_correlation(first: Any, second: Any) -> float:
    """Spearman's rank correlation of two vectors; equal values share their mean rank."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(vector: Any) -> Any:
    _, place, counts = np.unique(np.asarray(vector), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]
