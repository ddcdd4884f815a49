"""What the tests of quantization share: samples in memory, and what ONNX Runtime makes of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxpress.backends.base import Array, Feeds
from onnxpress.passes.base import Context

LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass
class Samples:
    """Calibration data in memory; it remembers what it was asked for."""

    arrays: Mapping[str, Array]
    asked: list[int] = field(default_factory=list)
    given: int = 0

    def batches(self, size: int) -> Iterator[Feeds]:
        self.asked.append(size)
        count = len(next(iter(self.arrays.values())))
        for start in range(0, count, size):
            self.given += 1
            yield {name: array[start : start + size] for name, array in self.arrays.items()}


Run = Callable[[ir.Model, Feeds], list[Array]]
Calibrated = Callable[..., Context]
Operators = Callable[[ir.Model], Counter[str]]


@pytest.fixture
def samples() -> type[Samples]:
    return Samples


@pytest.fixture
def calibrated() -> Calibrated:
    """A context with the given arrays as calibration samples."""

    def make(**arrays: Array) -> Context:
        return Context(data=Samples(arrays))

    return make


@pytest.fixture
def run() -> Run:
    """The answers with optimizations off: the arithmetic of Q/DQ, simulated in float."""

    def answers(model: ir.Model, feeds: Feeds) -> list[Array]:
        return list(_session(model, "off").run(None, dict(feeds)))

    return answers


@pytest.fixture
def run_fused() -> Run:
    """The answers of a default session, with its integer kernels."""

    def answers(model: ir.Model, feeds: Feeds) -> list[Array]:
        return list(_session(model, "all").run(None, dict(feeds)))

    return answers


@pytest.fixture
def fused(tmp_path: Path) -> Operators:
    """The operators that are left when a default session has optimized a model."""

    def operators(model: ir.Model) -> Counter[str]:
        path = tmp_path / "optimized.onnx"
        _session(model, "all", path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)

    return operators


def _session(model: ir.Model, level: str, path: Path | None = None) -> ort.InferenceSession:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    if path is not None:
        options.optimized_model_filepath = str(path)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def sqnr(reference: Array, other: Array) -> float:
    """The signal-to-quantization-noise ratio in decibels."""
    signal = reference.astype(np.float64)
    noise = ((signal - other) ** 2).sum()
    return float(10 * np.log10((signal**2).sum() / noise)) if noise else np.inf


@pytest.fixture
def decibels() -> Callable[[Array, Array], float]:
    return sqnr
