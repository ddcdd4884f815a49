"""Rules for what exporters spell out with reductions: softmax, layer normalization, pooling."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..analysis.values import Facts
from ..graph import is_op
from .bounds_rules import SHORT
from .constants import resolved_constant
from .patterns import Anything, Const, Match, Number, OneOf, Op, Pattern, one_of, op
from .rules import Rule

X: Final = Anything("x")
_BLOCKED: Final = ("Conv", "MaxPool", "AveragePool")
_KEEP_LAYOUT: Final = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Mul", "Add")
_STEPS: Final = 4
"""So many operators are looked back through for one that ONNX Runtime runs in blocks."""


def _reduced(kind: str, inner: Pattern, axes: str) -> OneOf:
    """A reduction with its axes as an attribute, or as an input."""
    return one_of(op(kind, inner), op(kind, inner, Const(axes)))


def _axes(node: ir.Node) -> list[int] | None:
    """The axes that ``node`` reduces and keeps as ones, if they are constant."""
    attributes = node.attributes
    if any(attribute.is_ref() for attribute in attributes.values()):
        return None
    if attributes.get_int("keepdims", 1) != 1:
        return None
    if len(node.inputs) > 1:
        array = resolved_constant(node.inputs[1])
        return None if array is None else [int(axis) for axis in array.flat]
    return list(attributes.get_ints("axes", ()))


def _one_axis(found: Match) -> int | None:
    """The axis that every reduction of a match goes along, if it is one and the same."""
    reductions = [node for node in found.nodes.values() if node.op_type.startswith("Reduce")]
    axes = [_axes(node) for node in reductions]
    first = axes[0]
    same = first is not None and len(first) == 1 and all(one == first for one in axes)
    return first[0] if same and first is not None else None


_EXP = op("Exp", one_of(op("Sub", X, _reduced("ReduceMax", X, "axes")), X))


def _softmax(found: Match) -> Op | None:
    axis = _one_axis(found)
    return None if axis is None else op("Softmax", X, axis=axis)


SOFTMAX: Final = Rule(
    "Softmax",
    patterns=(op("Div", _EXP, _reduced("ReduceSum", _EXP, "axes of the sum")),),
    writes=(_softmax,),
    since=13,  # before, all axes from the given one on were taken as one
)

_CENTRED = op("Sub", X, _reduced("ReduceMean", X, "axes"))
_SQUARED = one_of(op("Mul", _CENTRED, _CENTRED), op("Pow", _CENTRED, 2))
_VARIANCE = _reduced("ReduceMean", _SQUARED, "axes of the variance")
_SHIFTED = op("Add", _VARIANCE, Number(name="epsilon"))
_SPREAD = one_of(op("Sqrt", _SHIFTED), op("Pow", _SHIFTED, 0.5))
_INVERSE = one_of(op("Reciprocal", _SPREAD), op("Div", 1, _SPREAD), op("Pow", _SHIFTED, -0.5))
_SCALE = Const("scale")


def _layer_norm(found: Match) -> Op | None:
    axis, scale = _one_axis(found), found.array("scale")
    if axis is None or scale.ndim != 1 or found.numbers["epsilon"] <= 0:
        return None
    return op("LayerNormalization", X, _SCALE, axis=axis, epsilon=found.numbers["epsilon"])


def _along_the_last(found: Match, facts: Facts) -> str:
    axis, size = _one_axis(found), found.array("scale").size
    facts.follow_to(found["x"])
    dims = facts.dims(found["x"])
    if dims is None or axis not in {-1, len(dims) - 1} or dims[-1] != size:
        return "it is not known to go along the last axis, with a factor for each place there"
    return ""


LAYER_NORM: Final = Rule(
    "LayerNormalization",
    patterns=(
        op("Mul", op("Div", _CENTRED, _SPREAD), _SCALE),
        op("Mul", op("Mul", _CENTRED, _INVERSE), _SCALE),
        op("Mul", _CENTRED, op("Mul", _INVERSE, _SCALE)),
    ),
    writes=(_layer_norm,),
    objection=_along_the_last,
    dtypes=SHORT,  # the attribute holds an epsilon in single precision
)

_BIAS = Const("bias")
_NORMALIZED = op(
    "LayerNormalization",
    X,
    _SCALE,
    axis=Number(name="axis"),
    epsilon=Number(name="epsilon"),
)


def _with_bias(found: Match) -> Op | None:
    axis, epsilon = int(found.numbers["axis"]), found.numbers["epsilon"]
    if found.array("bias").shape != found.array("scale").shape or axis != -1:
        return None
    return op("LayerNormalization", X, _SCALE, _BIAS, axis=-1, epsilon=epsilon)


LAYER_NORM_BIAS: Final = Rule(
    "bias of a LayerNormalization",
    patterns=(op("Add", _NORMALIZED, _BIAS),),
    writes=(_with_bias,),
)


def _pooling(found: Match) -> Op | None:
    """Where ``x`` is in blocks: elsewhere ``ReduceMean`` is faster."""
    value: ir.Value | None = found["x"]
    for _ in range(_STEPS):
        node = None if value is None else value.producer()
        if is_op(node, *_BLOCKED):
            return op("GlobalAveragePool", X) if _axes(found.root) else None
        if node is None or not is_op(node, *_KEEP_LAYOUT):
            return None
        value = node.inputs[0]
    return None


def _over_an_image(found: Match, facts: Facts) -> str:
    facts.follow_to(found["x"])
    dims, axes = facts.dims(found["x"]), _axes(found.root) or []
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
