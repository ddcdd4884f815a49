"""Answers of random models, compared without any of the code that is being tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort

from onnxpress.backends.base import Array, Feeds
from tests.graphs import Case

_ROUNDINGS = 64
"""How many roundings of the largest number it is computed from an answer may be off by."""


def run(model: onnx.ModelProto, *feeds: Feeds) -> list[dict[str, Array]]:
    """What ONNX Runtime answers without optimizations, by name, for each of ``feeds``."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, dict(one)), strict=True)) for one in feeds]


class Expected:
    """The answers of an original, and how far off those of another model may be.

    A rewrite changes how numbers are rounded, and each answer carries the roundings of all that it
    is computed from. So the tolerance is a number of roundings of the largest magnitude among
    those, in the coarsest of their formats.
    """

    def __init__(self, case: Case, feeds: Iterable[Feeds] | None = None) -> None:
        self.case = case
        self.feeds = list(case.feeds if feeds is None else feeds)
        self.names = list(dict.fromkeys(value.name for value in case.model.graph.output))
        self.answers = run(case.model, *self.feeds)

    def problems(self, model: onnx.ModelProto) -> list[str]:
        """What ``model`` answers otherwise."""
        found = []
        for at, answers in enumerate(run(model, *self.feeds)):
            for name in self.names:
                tolerance = _tolerance(self._origins[at][name])
                if problem := _problem(self.answers[at][name], answers[name], tolerance):
                    found.append(f"{name} {problem}")
        return found

    def differs(self, model: onnx.ModelProto) -> bool:
        """Whether ``model`` answers otherwise by far: or by more than four times what the verifier
        documents to let pass, the root of a rounding, as a share of the largest element.
        """
        for at, feeds in enumerate(self.feeds):
            try:
                (answers,) = run(model, feeds)
            except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no base of their own
                return True
            for name in self.names:
                right = self.answers[at][name]
                share = 4 * _eps(self._origins[at][name]) ** 0.5
                if _problem(right, answers[name], share * _largest([right])):
                    return True
        return False

    @cached_property
    def _origins(self) -> list[dict[str, list[Array]]]:
        """For each of the feeds, all arrays that each output is computed from, itself included."""
        inner = onnx.ModelProto.FromString(self.case.model.SerializeToString())
        nodes = [node for node in inner.graph.node if node.op_type != "SequenceConstruct"]
        names = list(dict.fromkeys(name for node in nodes for name in node.output if name))
        del inner.graph.output[:]
        inner.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        weights = {one.name: onnx.numpy_helper.to_array(one) for one in inner.graph.initializer}
        sources = _sources(inner.graph)
        computed = run(inner, *self.feeds) if names else [{} for _ in self.feeds]
        found = []
        for feeds, tensors in zip(self.feeds, computed, strict=True):
            values = {**weights, **feeds, **tensors}
            found.append(
                {
                    name: [values[one] for one in sources.get(name, {name}) if one in values]
                    for name in self.names
                }
            )
        return found


def _problem(right: Array, answer: Array, tolerance: float) -> str:
    if right.dtype != answer.dtype or right.shape != answer.shape:
        return f"is {answer.dtype}{answer.shape}, not {right.dtype}{right.shape}"
    if right.dtype.kind != "f":
        return "" if np.array_equal(right, answer) else "is different"
    with np.errstate(invalid="ignore"):
        off = np.abs(right.astype(np.float64) - answer.astype(np.float64))
    same = (off <= tolerance) | (right == answer) | (np.isnan(right) & np.isnan(answer))
    return "" if same.all() else f"is off by {off[~same].max()}, allowed are {tolerance}"


def _tolerance(origins: list[Array]) -> float:
    if len(origins) < 2:
        return 0.0
    return _ROUNDINGS * _eps(origins) * max(_largest(origins), 1.0)


def _eps(origins: list[Array]) -> float:
    formats = {one.dtype for one in origins if one.dtype.kind == "f"}
    return max((float(np.finfo(one).eps) for one in formats), default=0.0)


def _largest(origins: list[Array]) -> float:
    floats = [np.abs(one.astype(np.float64)) for one in origins if one.dtype.kind == "f"]
    return max((float(one[np.isfinite(one)].max(initial=0.0)) for one in floats), default=0.0)


def _sources(graph: onnx.GraphProto) -> Mapping[str, set[str]]:
    """The names that a value of the main graph is computed from, its own included."""
    found: dict[str, set[str]] = {}
    for node in graph.node:
        names = {name for inner in with_inner([node]) for name in inner.input}
        for name in list(names):
            names |= found.get(name, set())
        found |= dict.fromkeys(node.output, names.union(node.output))
    return found


def with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """``nodes`` and those in their subgraphs."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node
