"""Other simplifiers of ONNX graphs: what each leaves of a model, and whether it still is right.

Each call is a process of its own with a time limit. A tool that fails, or whose result does not
load or answers otherwise, has that as its result.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import onnxpress
from onnxpress.backends.errors import OnnxpressError
from onnxpress.compiler.latency import WIDTH, latency_before_and_after

from . import agreement
from .apart import CallError, apart
from .corpus import load_corpus


@dataclass(frozen=True)
class Peer:
    """A tool: the ``distribution`` that brings it, and how it makes a model of the one given."""

    distribution: str
    simplify: Callable[[onnx.ModelProto], onnx.ModelProto]


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified: onnx.ModelProto = onnxsim.simplify(model)[0]
    return simplified


def _onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    slim: onnx.ModelProto = onnxslim.slim(model)
    return slim


def _onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxoptimizer

    optimized: onnx.ModelProto = onnxoptimizer.optimize(model)
    return optimized


def _onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxscript.optimizer

    optimized: onnx.ModelProto = onnxscript.optimizer.optimize(model)
    return optimized


def _ort_basic(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        providers = ["CPUExecutionProvider"]
        ort.InferenceSession(model.SerializeToString(), options, providers=providers)
        return _without_leftovers(model, onnx.load(path))


def _without_leftovers(before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """``after`` without the inputs whose default ONNX Runtime dropped when it folded them away."""
    defaults = {tensor.name for tensor in before.graph.initializer}
    kept = {tensor.name for tensor in after.graph.initializer}
    inputs = [one for one in after.graph.input if one.name not in defaults - kept]
    del after.graph.input[:]
    after.graph.input.extend(inputs)
    return after


PEERS: Mapping[str, Peer] = {
    "onnxsim": Peer("onnxsim", _onnxsim),
    "onnxslim": Peer("onnxslim", _onnxslim),
    "onnxoptimizer": Peer("onnxoptimizer", _onnxoptimizer),
    "onnxscript": Peer("onnxscript", _onnxscript),
    "ort-basic": Peer("onnxruntime", _ort_basic),
}


def measure(
    name: str, peer: str, *, limit: float, cache: Path | None = None, timed: bool = False
) -> dict[str, Any]:
    """The row of ``peer`` on the model ``name``: nodes, answers, seconds; or how it ``failed``.

    With ``timed`` the latency of its result against the original as well.
    """
    head: dict[str, Any] = {"model": name, "peer": peer}
    try:
        return head | apart(_measure, name, peer, cache, timed, limit=limit)
    except CallError as error:
        return head | {"failed": str(error)}


def _measure(name: str, peer: str, cache: Path | None, timed: bool) -> dict[str, Any]:
    model = load_corpus(cache)[name]
    proto = onnx.load(model.path)
    started = time.perf_counter()
    result = PEERS[peer].simplify(proto)
    found: dict[str, Any] = {
        "nodes": node_count(result.graph),
        "seconds": time.perf_counter() - started,
    }
    try:
        after = onnxpress.load(_written(result))
    except OnnxpressError as error:
        return found | {"answers": "failed", "reason": f"it is not valid: {error.message}"}
    original = onnxpress.load(model.path)
    checked = agreement.verifier(model, original).run(after)
    found["answers"], found["reason"] = agreement.verdict(checked)
    if timed and found["answers"] == "ok":
        feeds = model.feeds()[0]
        found["latency"] = latency_before_and_after(
            original, after, feeds, threads=1, seconds=8, width=WIDTH
        )
    return found


def _written(model: onnx.ModelProto) -> Path:
    path = Path(tempfile.mkdtemp()) / "result.onnx"
    onnx.save(model, path)
    return path


def node_count(graph: onnx.GraphProto) -> int:
    """The nodes of ``graph`` and of all subgraphs, without ``Constant``."""
    count = 0
    for node in graph.node:
        count += node.op_type != "Constant"
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else []
            count += sum(node_count(inner) for inner in (*graphs, *attribute.graphs))
    return count


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether the peer came to an end, with a model that answers as the original."""
    return row.get("answers") == "ok"


def shown(row: Mapping[str, Any] | None) -> str:
    """The nodes, ``fails``, or the nodes of what is wrong."""
    if row is None:
        return ""
    if "failed" in row:
        return "fails"
    return f"{row['nodes']:,}" if is_right(row) else f"{row['nodes']:,} wrong"
