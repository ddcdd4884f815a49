"""Where a model's time goes, operator by operator, as ONNX Runtime's profiler tells it."""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from .base import Array, Feeds, ModelSource, SessionConfig
from .ort import session_of

_WARM_UP: Final = 3
_SUFFIX: Final = "_kernel_time"


@dataclass(frozen=True)
class OperatorTime:
    """One kind of operator in the optimized graph.

    ``calls`` and ``total_ms`` are per run of the model, medians over its runs; ``share`` is the
    fraction of the time of all operators.
    """

    op_type: str
    provider: str
    calls: int
    total_ms: float
    share: float


def profile(
    model: ir.Model | ModelSource,
    feeds: Feeds,
    config: SessionConfig = SessionConfig(),  # noqa: B008
    runs: int = 20,
) -> list[OperatorTime]:
    """The time of each operator over ``runs`` runs after a short warm-up, the longest first.

    The operators are those of the graph that ONNX Runtime made of the model, so that its fusions
    show, and its layout changes as ``ReorderInput`` and ``ReorderOutput``. A body's operators are
    counted for themselves and not for the ``If`` or ``Loop`` that holds them. Profiling slows
    small operators down: the shares count, :mod:`~onnxpress.backends.timing` has the latency. On
    CUDA the times are those of the launches, as the host sees them.

    Raises:
        BackendError: ONNX Runtime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        session = session_of(model, config, profile=Path(folder) / "profile")
        run = session.bind(feeds)
        for _ in range(_WARM_UP + runs):
            run()
        events = json.loads(Path(session.native.end_profiling()).read_bytes())
    return _table(events, runs)


def _table(events: Iterable[dict[str, Any]], runs: int) -> list[OperatorTime]:
    """The profile from trace events (durations and time stamps in microseconds) of the last runs.

    Format: ``onnxruntime/core/common/profiler_common.h``, category ``Node``, ``*_kernel_time``.
    """
    events = list(events)
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")[-runs:]
    nodes = [
        event
        for event in events
        if event["cat"] == "Node" and event["name"].endswith(_SUFFIX) and event["ts"] >= starts[0]
    ]
    calls: defaultdict[tuple[str, str], Array] = defaultdict(lambda: np.zeros(runs))
    spent: defaultdict[tuple[str, str], Array] = defaultdict(lambda: np.zeros(runs))
    for event, own in _own_times(nodes):
        kind = (event["args"]["op_name"], event["args"]["provider"])
        run = bisect_right(starts, event["ts"]) - 1
        calls[kind][run] += 1
        spent[kind][run] += own
    medians = {kind: float(np.median(times)) / 1e3 for kind, times in spent.items()}
    total = sum(medians.values()) or 1.0
    table = [
        OperatorTime(*kind, round(float(np.median(calls[kind]))), ms, ms / total)
        for kind, ms in medians.items()
    ]
    return sorted(table, key=lambda row: (-row.total_ms, row.op_type))


def _own_times(nodes: list[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], float]]:
    """Each event with its duration less that of the events inside it."""
    # Events are written when they end: of two alike the later one is around the earlier.
    outer_first = sorted(
        range(len(nodes)), key=lambda index: (nodes[index]["ts"], -nodes[index]["dur"], -index)
    )
    own = [float(event["dur"]) for event in nodes]
    around: list[int] = []
    for index in outer_first:
        event = nodes[index]
        while around and nodes[around[-1]]["ts"] + nodes[around[-1]]["dur"] <= event["ts"]:
            around.pop()
        if around:
            own[around[-1]] -= event["dur"]
        around.append(index)
    return zip(nodes, (max(time, 0.0) for time in own), strict=True)
