"""Write the nodes that combine the answers of several models, with standard operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..base import Array
from .combine import FLOATS, Combine, has_classes
from .logistic import LEAST, Logistic
from .members import unused


@dataclass(frozen=True)
class Linear:
    """A fitted combination ``[y_1 .. y_n] @ weight + bias`` along the last axis, for ``stack``."""

    weight: Array
    bias: Array


def add_combiner(
    graph: ir.Graph,
    values: Sequence[ir.Value],
    combine: Combine,
    *,
    name: str,
    scope: str,
    weights: Sequence[float] | None = None,
    linear: Linear | Logistic | None = None,
) -> ir.Value:
    """Append nodes that combine ``values`` to one value called ``name``.

    All is computed in float64 if any value is, else in float32, and cast to the type of the first.

    Args:
        graph: Where the values are; nodes are appended.
        values: Float tensors of one shape.
        combine: Anything but ``none``; see :class:`~.merge.Merge` for what each computes.
        name: The name of the result.
        scope: Goes before the names of new nodes, values and initializers, with a ``/``.
        weights: One for each value, with sum 1, for ``weighted``.
        linear: For ``stack`` and ``logistic``.
    """
    writer = Writer(graph, f"{scope}/{name}", values)
    rules: dict[str, Callable[[], ir.Value]] = {
        "mean": lambda: writer.mean(writer.terms),
        "weighted": lambda: writer.weighted(weights or ()),
        "vote": writer.shares,
        "softmax-mean": lambda: writer.mean(
            [writer.op("Softmax", term, axis=-1) for term in writer.terms]
        ),
        "geometric": writer.geometric,
        "max": lambda: writer.op("Max", *writer.terms),
        "median": writer.median,
    }
    if isinstance(linear, Logistic):
        result = writer.logistic(linear)
    else:
        result = writer.linear(linear) if linear is not None else rules[combine]()
    return writer.named(result, name)


def add_uncertainty(
    graph: ir.Graph, values: Sequence[ir.Value], *, name: Callable[[str], str], scope: str
) -> list[ir.Value]:
    """Append nodes that say how far ``values`` are from each other.

    The variance has the shape of the values. The disagreement is the share of members that do not
    rank first what most rank first; it lacks the last axis, and is left out where there is none.

    Args:
        graph: Where the values are.
        values: Float tensors of one shape.
        name: Gives the result called ``variance`` or ``disagreement`` its name in the graph.
        scope: Goes before the names of everything else that is new, with a ``/``.
    """
    writer = Writer(graph, scope, values)
    found = [writer.named(writer.variance(), name("variance"))]
    if has_classes(values[0]):
        answer = writer.named(writer.disagreement(), name("disagreement"))
        if values[0].shape is not None:
            answer.shape = ir.Shape(list(values[0].shape)[:-1])
        found.append(answer)
    return found


class Writer:
    """Writes the nodes that combine ``values``, in :attr:`kind`."""

    def __init__(self, graph: ir.Graph, scope: str, values: Sequence[ir.Value]) -> None:
        self._tape = ir.tape.Tape(graph)
        self._scope = scope
        self._taken: set[str] = set()
        self._opset = graph.opset_imports[""]
        self._values = values
        kinds = {FLOATS[_dtype(value)] for value in values}
        self.kind = ir.DataType.DOUBLE if ir.DataType.DOUBLE in kinds else ir.DataType.FLOAT
        self.terms = [self._cast(value, self.kind) for value in values]

    def named(self, result: ir.Value, name: str) -> ir.Value:
        """``result`` in the type of the first value and with its shape, as ``name``."""
        first = self._values[0]
        if result.producer() is None or result in self._values:
            result = self.op("Identity", result)
        if self._kind_of(result) != _dtype(first):
            result = self.op("Cast", result, to=int(_dtype(first)))
        result.name, result.type = name, ir.TensorType(_dtype(first))
        result.shape = None if first.shape is None else first.shape.copy()
        return result

    def mean(self, terms: Sequence[ir.Value]) -> ir.Value:
        share = self.constant("share", 1 / len(terms), self.kind)
        return self.op("Mul", self.op("Sum", *terms), share)

    def weighted(self, weights: Sequence[float]) -> ir.Value:
        scaled = [
            self.op("Mul", term, self.constant("weight", weight, self.kind))
            for term, weight in zip(self.terms, weights, strict=True)
        ]
        return self.op("Sum", *scaled)

    def shares(self) -> ir.Value:
        """The share of votes of each class, each value voting for its first largest entry."""
        return self.mean([self._vote(term) for term in self.terms])

    def geometric(self) -> ir.Value:
        return self.op("Exp", self.mean([self.op("Log", term) for term in self.terms]))

    def median(self) -> ir.Value:
        """The middle of the values, or the mean of the two in the middle."""
        count = len(self.terms)
        ahead = self.integers("first", [0])
        stacked = self.op(
            "Concat", *(self.op("Unsqueeze", term, ahead) for term in self.terms), axis=0
        )
        half = self.integers("half", [count // 2 + 1])
        upper = self.op("TopK", stacked, half, outputs=2, axis=0)
        middle = [count // 2] if count % 2 else [count // 2 - 1, count // 2]
        picked = [self.op("Gather", upper, self.integers("middle", at), axis=0) for at in middle]
        return picked[0] if len(picked) == 1 else self.mean(picked)

    def logistic(self, fitted: Logistic) -> ir.Value:
        """Of logarithms of probabilities; those of raw scores are their ``LogSoftmax``."""
        least = self.constant("least", LEAST, self.kind)
        logs = [
            self.op("LogSoftmax", term, axis=-1)
            if raw
            else self.op("Log", self.op("Max", term, least))
            for term, raw in zip(self.terms, fitted.raw, strict=True)
        ]
        return self.op("Softmax", self._map(logs, fitted.weight, fitted.bias), axis=-1)

    def linear(self, linear: Linear) -> ir.Value:
        return self._map(self.terms, linear.weight, linear.bias)

    def _map(self, terms: Sequence[ir.Value], slope: Array, shift: Array) -> ir.Value:
        weight = self.constant("stack.weight", slope, self.kind)
        bias = self.constant("stack.bias", shift, self.kind)
        return self.op("Add", self.op("MatMul", self.op("Concat", *terms, axis=-1), weight), bias)

    def variance(self) -> ir.Value:
        mean = self.mean(self.terms)
        apart = [self.op("Sub", term, mean) for term in self.terms]
        return self.mean([self.op("Mul", one, one) for one in apart])

    def disagreement(self) -> ir.Value:
        shares, last = self.shares(), [-1]
        if self._opset < 18:
            most = self.op("ReduceMax", shares, axes=last, keepdims=0)
        else:
            most = self.op("ReduceMax", shares, self.integers("last", last), keepdims=0)
        return self.op("Sub", self.constant("one", 1.0, self.kind), most)

    def _vote(self, scores: ir.Value) -> ir.Value:
        choice = self.op("ArgMax", scores, axis=-1, keepdims=1)
        chosen = self.op("Equal", choice, self._classes(scores))
        return self.op("Cast", chosen, to=int(self.kind))

    def _classes(self, scores: ir.Value) -> ir.Value:
        """``0, 1, ..`` as far as the last axis of ``scores`` goes."""
        shapes = [value.shape for value in self._values]
        lengths = [shape[-1] for shape in shapes if shape is not None and len(shape)]
        known = [length for length in lengths if isinstance(length, int)]
        if known:
            return self.integers("classes", list(range(known[0])))
        zero, last, one = (self.integers(n, i) for n, i in (("zero", 0), ("last", -1), ("one", 1)))
        count = self.op("Gather", self.op("Shape", scores), last)
        return self.op("Range", zero, count, one)

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        return value if value.dtype == kind else self.op("Cast", value, to=int(kind))

    def _kind_of(self, value: ir.Value) -> ir.DataType:
        return self.kind if value.dtype is None else value.dtype

    def op(self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: Any) -> ir.Value:
        """A new node; its first output."""
        name = unused(f"{self._scope}/{op_type}", self._taken)
        values = [ir.Value(name=name if not at else f"{name}.{at}") for at in range(outputs)]
        return self._tape.op_multi_out(op_type, inputs, attributes, outputs=values, name=name)[0]

    def constant(self, role: str, content: float | Array, kind: ir.DataType) -> ir.Value:
        """An initializer of float type."""
        return self._initializer(role, np.asarray(content, dtype=kind.numpy()))

    def integers(self, role: str, content: int | list[int]) -> ir.Value:
        """An initializer of type int64."""
        return self._initializer(role, np.array(content, np.int64))

    def _initializer(self, role: str, array: Array) -> ir.Value:
        name = unused(f"{self._scope}/{role}", self._taken)
        return self._tape.initializer(ir.tensor(array, name=name))


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.UNDEFINED
