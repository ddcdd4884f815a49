"""Combine the answers of several models inside the graph, with standard operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from ...backends.errors import UsageError
from .align import described
from .members import Member, unused

Combine: TypeAlias = Literal["mean", "weighted", "vote", "none"]

LEAST_OPSET: Final[dict[Combine, int]] = {"mean": 7, "weighted": 7, "vote": 11, "none": 7}
"""The first version of the standard domain in which each combiner can be written."""

_FLOATS = {
    ir.DataType.FLOAT: ir.DataType.FLOAT,
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.DOUBLE: ir.DataType.DOUBLE,
}
"""The types that can be combined, each with the one that its sum is computed in."""


def check_combinable(
    members: Sequence[Member], answers: Sequence[Sequence[ir.Value]], combine: Combine
) -> None:
    """Check that the answers can be combined, position by position.

    Args:
        members: Whose answers they are, for messages.
        answers: Per output of the first member, the values of all members.
        combine: Anything but ``none``.

    Raises:
        UsageError: An answer has a type that cannot be averaged, or a shape that does not fit.
    """
    for values in answers:
        for member, value in zip(members, values, strict=True):
            if reason := _unfit(value, values[0], combine):
                raise UsageError(
                    f"the output {described(value)} of member {member.name!r} cannot be combined "
                    f"by {combine}: {reason}",
                    hint="drop that output from every member, or keep them all apart with 'none'",
                )


def _unfit(value: ir.Value, first: ir.Value, combine: Combine) -> str:
    if not isinstance(value.type, ir.TensorType):
        return "it is not a tensor"
    if value.dtype not in _FLOATS:
        return "labels, indices and text have no mean; only float outputs do"
    if value.shape is None:
        return ""
    if first.shape is not None and (
        len(value.shape) != len(first.shape)
        or any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(value.shape, first.shape, strict=True)
        )
    ):
        return f"the first member's is {described(first)}"
    if combine == "vote" and (
        not len(value.shape) or (len(value.shape) == 1 and not isinstance(value.shape[0], int))
    ):
        return "it has no class axis to vote along"
    return ""


def mixture(members: Sequence[Member], answers: Sequence[Sequence[ir.Value]]) -> list[str]:
    """A sentence for each output that some members end in Softmax or Sigmoid and others do not."""
    notes = []
    for values in answers:
        ends = [node.op_type if (node := value.producer()) else "" for value in values]
        raw = [m.name for m, end in zip(members, ends, strict=True) if end not in _PROBABILITIES]
        if 0 < len(raw) < len(members):
            notes.append(
                f"{values[0].name!r} may mix probabilities with raw scores ({', '.join(raw)}): "
                "raw scores have more weight in a mean; 'vote' is not affected"
            )
    return notes


_PROBABILITIES = frozenset({"Softmax", "Sigmoid"})


def add_combiner(
    graph: ir.Graph,
    values: Sequence[ir.Value],
    weights: Sequence[float] | None,
    *,
    vote: bool,
    name: str,
    scope: str,
) -> ir.Value:
    """Append nodes that combine ``values`` to one value called ``name``.

    Without weights the result is ``sum(values) / n``, else ``sum(weight * value)``, computed in
    float64 if any value is, else in float32, and cast to the type of the first. A vote puts in
    place of each value the one-hot vector of its largest entry along the last axis, the first of
    equals: the result is the share of votes of each class.

    Args:
        graph: Where the values are; nodes are appended.
        values: Float tensors of one shape.
        weights: One for each value, with sum 1.
        vote: Count votes.
        name: The name of the result.
        scope: Goes before the names of new nodes, values and initializers, with a ``/``.
    """
    return _Combiner(graph, f"{scope}/{name}").run(values, weights, vote, name)


class _Combiner:
    """Writes the nodes of one combined output."""

    def __init__(self, graph: ir.Graph, scope: str) -> None:
        self._tape = ir.tape.Tape(graph)
        self._scope = scope
        self._taken: set[str] = set()

    def run(
        self, values: Sequence[ir.Value], weights: Sequence[float] | None, vote: bool, name: str
    ) -> ir.Value:
        first = values[0]
        kinds = {ir.DataType.FLOAT if vote else _FLOATS[_dtype(value)] for value in values}
        kind = ir.DataType.DOUBLE if ir.DataType.DOUBLE in kinds else ir.DataType.FLOAT
        terms = [self._vote(value) if vote else self._cast(value, kind) for value in values]
        if weights is None:
            total = self._op("Sum", *terms)
            result = self._op("Mul", total, self._constant("share", 1 / len(terms), kind))
        else:
            scaled = [
                self._op("Mul", term, self._constant("weight", weight, kind))
                for term, weight in zip(terms, weights, strict=True)
            ]
            result = self._op("Sum", *scaled)
        if kind != _dtype(first):
            result = self._op("Cast", result, to=int(_dtype(first)))
        result.name, result.type = name, ir.TensorType(_dtype(first))
        result.shape = None if first.shape is None else first.shape.copy()
        return result

    def _vote(self, value: ir.Value) -> ir.Value:
        # ONNX Runtime has no ArgMax of float16; float32 holds its values and keeps ties.
        scores = self._cast(value, _FLOATS[_dtype(value)])
        choice = self._op("ArgMax", scores, axis=-1, keepdims=1)
        chosen = self._op("Equal", choice, self._classes(value))
        return self._op("Cast", chosen, to=int(ir.DataType.FLOAT))

    def _classes(self, value: ir.Value) -> ir.Value:
        """``0, 1, ..`` as far as the last axis of ``value`` goes."""
        length = value.shape[-1] if value.shape is not None else None
        if isinstance(length, int):
            return self._constant("classes", list(range(length)), ir.DataType.INT64)
        bounds = {"zero": 0, "last": -1, "one": 1}
        zero, last, one = (self._constant(n, i, ir.DataType.INT64) for n, i in bounds.items())
        count = self._op("Gather", self._op("Shape", value), last)
        return self._op("Range", zero, count, one)

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        return value if value.dtype == kind else self._op("Cast", value, to=int(kind))

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = unused(f"{self._scope}/{op_type}", self._taken)
        return self._tape.op(op_type, inputs, attributes, name=name, output=ir.Value(name=name))

    def _constant(self, role: str, content: float | list[int], kind: ir.DataType) -> ir.Value:
        array = np.array(content, dtype=kind.numpy())
        return self._tape.initializer(
            ir.tensor(array, name=unused(f"{self._scope}/{role}", self._taken))
        )


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.UNDEFINED
