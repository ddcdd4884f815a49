"""Rules for what exporters spell out with reductions: softmax, pooling."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..analysis.values import Facts
from ..graph import is_op
from .constants import resolved_constant
from .patterns import Anything, Const, Match, OneOf, Op, Pattern, one_of, op
from .rules import Rule

X: Final = Anything("x")
_BLOCKED: Final = ("Conv", "MaxPool", "AveragePool")
_KEEP_LAYOUT: Final = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Mul", "Add")
_STEPS: Final = 4
"""So many operators are looked back through for one that ONNX Runtime runs in blocks."""


def reduced(kind: str, inner: Pattern, axes: str) -> OneOf:
    """A reduction with its axes as an attribute, or as an input."""
    return one_of(op(kind, inner), op(kind, inner, Const(axes)))


def axes_of(node: ir.Node) -> list[int] | None:
    """The axes that ``node`` reduces and keeps as ones, if they are constant.

    A pool is taken for one of rows of places: the last axis.
    """
    if is_op(node, "GlobalAveragePool"):
        return [-1]
    attributes = node.attributes
    if any(attribute.is_ref() for attribute in attributes.values()):
        return None
    if attributes.get_int("keepdims", 1) != 1:
        return None
    if len(node.inputs) > 1:
        array = resolved_constant(node.inputs[1])
        return None if array is None else [int(axis) for axis in array.flat]
    return list(attributes.get_ints("axes", ()))


_REDUCE: Final = ("Reduce", "GlobalAveragePool")


def one_axis(found: Match) -> int | None:
    """The axis that every reduction of a match goes along, if it is one and the same."""
    reductions = [node for node in found.nodes.values() if node.op_type.startswith(_REDUCE)]
    axes = [axes_of(node) for node in reductions]
    first = axes[0]
    same = first is not None and len(first) == 1 and all(one == first for one in axes)
    return first[0] if same and first is not None else None


_EXP = op("Exp", one_of(op("Sub", X, reduced("ReduceMax", X, "axes")), X))


def _softmax(found: Match) -> Op | None:
    axis = one_axis(found)
    return None if axis is None else op("Softmax", X, axis=axis)


SOFTMAX: Final = Rule(
    "Softmax",
    patterns=(op("Div", _EXP, reduced("ReduceSum", _EXP, "axes of the sum")),),
    writes=(_softmax,),
    since=13,  # before, all axes from the given one on were taken as one
)


def _pooling(found: Match) -> Op | None:
    """Where ``x`` is in blocks: elsewhere ``ReduceMean`` is faster."""
    value: ir.Value | None = found["x"]
    for _ in range(_STEPS):
        node = None if value is None else value.producer()
        if is_op(node, *_BLOCKED):
            return op("GlobalAveragePool", X) if axes_of(found.root) else None
        if node is None or not is_op(node, *_KEEP_LAYOUT):
            return None
        value = node.inputs[0]
    return None


def _over_an_image(found: Match, facts: Facts) -> str:
    facts.follow_to(found["x"])
    dims, axes = facts.dims(found["x"]), axes_of(found.root) or []
    if dims is None or len(dims) != 4:
        return "its input is not known to have four axes"
    places = sorted(axis % 4 for axis in axes)
    return "" if places == [2, 3] else "it is not over height and width"


GLOBAL_AVERAGE: Final = Rule(
    "GlobalAveragePool",
    patterns=(op("ReduceMean", X), op("ReduceMean", X, Const("axes"))),
    writes=(),
    on_cpu=(_pooling,),
    objection=_over_an_image,
)
