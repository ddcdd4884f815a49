"""How long compiling takes: levels 1 and 2 against other simplifiers, and growth with the graph.

Everything is timed inside this process, from a ``ModelProto`` in memory to a ``ModelProto`` in
memory, without verification; the median of interleaved runs after one that is not counted.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxpress.backends.serde import to_proto
from onnxpress.backends.targets import Target
from onnxpress.compiler.api import as_model
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import preset
from onnxpress.passes.base import Context

from .apart import first_line

LEVELS = (1, 2)
Compile: TypeAlias = Callable[[onnx.ModelProto], object]


def ours(level: int) -> str:
    """What results call onnxpress at ``level``."""
    return f"-O {level}"


def onnxpress_at(level: int, proto: onnx.ModelProto) -> onnx.ModelProto:
    """``-O level`` without verification and timing."""
    target = Target("portable" if level == 1 else "cpu")
    manager = PassManager(preset(level, target))
    return to_proto(manager.run(as_model(proto), Context(target=target)).model)


def _onnxsim(proto: onnx.ModelProto) -> object:
    import onnxsim

    return onnxsim.simplify(proto)


def _onnxslim(proto: onnx.ModelProto) -> object:
    import onnxslim

    return onnxslim.slim(proto)


PEERS: dict[str, Compile] = {"onnxsim": _onnxsim, "onnxslim": _onnxslim}


@dataclass
class CompileTimes:
    """Median seconds of each compiler on one model; a peer that failed has its reason instead."""

    model: str
    nodes: int
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(name: str, path: Path, peers: Sequence[str], runs: int = 5) -> CompileTimes:
    """Time onnxpress and ``peers`` on the model at ``path``, interleaved.

    A failure of onnxpress is raised, that of a peer is a result.
    """
    proto = onnx.load(path)
    found = CompileTimes(name, len(proto.graph.node))
    mine: dict[str, Compile] = {ours(level): partial(onnxpress_at, level) for level in LEVELS}
    compilers = mine | {peer: PEERS[peer] for peer in peers}
    times: dict[str, list[float]] = {one: [] for one in compilers}
    for _ in range(runs + 1):
        for one, compiler in compilers.items():
            if one in found.failed:
                continue
            try:
                times[one].append(_seconds(compiler, proto))
            except Exception as error:
                if one in mine:
                    raise
                found.failed[one] = f"{type(error).__name__}: {first_line(error)}"
    for one, spent in times.items():
        if one not in found.failed:
            found.seconds[one] = statistics.median(spent[1:])
    return found


def row(name: str, path: Path, peers: Sequence[str]) -> dict[str, Any]:
    """What :func:`measure` finds, JSON-ready."""
    return asdict(measure(name, path, peers))


def _seconds(compiler: Compile, proto: onnx.ModelProto) -> float:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    gc.collect()
    started = time.perf_counter()
    compiler(copy)
    return time.perf_counter() - started


def ratio(results: Iterable[CompileTimes], level: int, peer: str) -> float | None:
    """Geometric mean of the time of ``-O level`` over ``peer``'s, where both finished."""
    mine = ours(level)
    ratios = [
        one.seconds[mine] / one.seconds[peer]
        for one in results
        if {mine, peer} <= one.seconds.keys()
    ]
    return statistics.geometric_mean(ratios) if ratios else None


def synthetic(nodes: int, seed: int = 0) -> onnx.ModelProto:
    """A convolutional network of about ``nodes`` nodes, with what exporters leave behind.

    A block of ten nodes: Conv, BatchNormalization, Relu, an Identity, a Dropout, and a Reshape to
    a shape that Shape, Gather, Unsqueeze and Concat compute.
    """
    rng = np.random.default_rng(seed)
    graph_nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def constant(name: str, array: Any) -> str:
        initializers.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    constant("zero", np.int64(0))
    constant("axis", np.array([0], np.int64))
    constant("rest", np.array([4, 8, 8], np.int64))
    last = "x"
    node = onnx.helper.make_node
    for block in range(max(1, nodes // 10)):
        p = f"b{block}."
        weight = constant(p + "w", rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6)
        ones = constant(p + "ones", np.ones(4, np.float32))
        zeros = constant(p + "zeros", np.zeros(4, np.float32))
        graph_nodes += [
            node("Conv", [last, weight], [p + "conv"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", [p + "conv", ones, zeros, zeros, ones], [p + "bn"]),
            node("Relu", [p + "bn"], [p + "relu"]),
            node("Identity", [p + "relu"], [p + "same"]),
            node("Dropout", [p + "same"], [p + "drop"]),
            node("Shape", [p + "drop"], [p + "shape"]),
            node("Gather", [p + "shape", "zero"], [p + "batch"]),
            node("Unsqueeze", [p + "batch", "axis"], [p + "first"]),
            node("Concat", [p + "first", "rest"], [p + "target"], axis=0),
            node("Reshape", [p + "drop", p + "target"], [p + "y"]),
        ]
        last = p + "y"
    graph_nodes.append(node("Identity", [last], ["y"]))
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        graph_nodes,
        "synthetic",
        [tensor("x", onnx.TensorProto.FLOAT, ["N", 4, 8, 8])],
        [tensor("y", onnx.TensorProto.FLOAT, ["N", 4, 8, 8])],
        initializers,
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )


@dataclass(frozen=True)
class Growth:
    """Median seconds for a small and a large graph, and how far their ratio is from linear."""

    nodes: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def over_linear(self) -> float:
        """1.0 where time grows exactly as the number of nodes."""
        return self.seconds[1] / self.seconds[0] / (self.nodes[1] / self.nodes[0])


def growth(level: int, small: int = 1_000, large: int = 20_000, runs: int = 5) -> Growth:
    """Time ``-O level`` on :func:`synthetic` graphs of two sizes, interleaved."""
    protos = [synthetic(nodes) for nodes in (small, large)]
    spent: list[list[float]] = [[], []]
    for _ in range(runs + 1):
        for proto, times in zip(protos, spent, strict=True):
            times.append(_seconds(partial(onnxpress_at, level), proto))
    first, second = (statistics.median(times[1:]) for times in spent)
    return Growth((small, large), (first, second))


def growth_row(level: int) -> dict[str, Any]:
    """What :func:`growth` finds, JSON-ready."""
    found = growth(level)
    return asdict(found) | {"over_linear": found.over_linear}


def levels(
    rows: Sequence[Mapping[str, Any]], grown: Sequence[Mapping[str, Any]], peers: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """For each level its ``ratios`` to ``peers``, and its ``growth``, of all rows."""
    timed = [CompileTimes(**row) for row in rows if "error" not in row]
    found = {}
    for row in grown:
        level = row["level"]
        ratios = {name: ratio(timed, level, name) for name in peers}
        growth = {name: value for name, value in row.items() if name != "level"}
        found[str(level)] = {"ratios": ratios, "growth": growth}
    return found
