"""Rules for spelled-out normalizations: of layers, of instances, by the mean square."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array
from ..graph import is_op
from .bounds_rules import SHORT
from .patterns import Anything, Computed, Const, Match, Number, OneOf, Op, Pattern, one_of, op
from .reduction_rules import axes_of, one_axis, reduced
from .rules import Rule

X: Final = Anything("x")
_EPSILON: Final = Number(name="epsilon")
_SCALE: Final = Const("scale")
_BIAS: Final = Const("bias")


def _inverse(shifted: Op, spread: OneOf) -> OneOf:
    """One over the root ``spread`` of ``shifted``."""
    return one_of(op("Reciprocal", spread), op("Div", 1, spread), op("Pow", shifted, -0.5))


def _ones(found: Match, facts: Facts) -> Array:
    """A one for each place along the last axis."""
    return _filled(found, facts, -1, 1)


def _gains(found: Match, facts: Facts) -> Array:
    """A one for each channel."""
    return _filled(found, facts, 1, 1)


def _shifts(found: Match, facts: Facts) -> Array:
    """A zero for each channel."""
    return _filled(found, facts, 1, 0)


def _filled(found: Match, facts: Facts, axis: int, number: float) -> Array:
    dims, dtype = facts.dims(found["x"]), facts.dtype(found["x"])
    size = dims[axis] if dims is not None else None
    if not isinstance(size, int):
        raise TypeError("the size is not known: an objection should have said so")
    return np.full(size, number, (dtype or ir.DataType.FLOAT).numpy())


def _along_the_last(found: Match, facts: Facts) -> str:
    axis = one_axis(found)
    facts.follow_to(found["x"])
    dims = facts.dims(found["x"])
    if dims is None or axis not in {-1, len(dims) - 1} or not isinstance(dims[-1], int):
        return "it is not known to go along the last axis, of a size that is known"
    if len(dims) != 3 and any(is_op(node, "GlobalAveragePool") for node in found.nodes.values()):
        return "what it averages is not known to be a row of places"
    return _for_each_place(found, facts)


def _for_each_place(found: Match, facts: Facts) -> str:
    """Why factors and summands are not one for each place along the last axis."""
    facts.follow_to(found["x"])
    dims = facts.dims(found["x"])
    for name in found.values.keys() & {"scale", "factor", "bias"}:
        array = found.array(name)
        if array.ndim == 0 or array.size != array.shape[-1]:
            return "it has no factor for each place along the last axis"
        if array.ndim > 1 and (dims is None or len(dims) < array.ndim):
            return "a constant in it may have more axes than what it meets"
        if "axis" not in found.numbers and (dims is None or array.size != dims[-1]):
            return "it has no factor for each place along the last axis"
    return ""


def _row(name: str) -> Computed:
    """The constant called ``name`` with one axis."""

    def row(found: Match, facts: Facts) -> Array:
        del facts
        array: Array = found.array(name).reshape(-1)
        return array

    return Computed(row)


def _vector(found: Match, name: str) -> Const | Computed:
    """The constant called ``name``, as it is if it has one axis."""
    return Const(name) if found.array(name).ndim == 1 else _row(name)


def _average(inner: Pattern, axes: str) -> OneOf:
    """A mean along an axis; for rows of places some exporters pool."""
    return one_of(reduced("ReduceMean", inner, axes), op("GlobalAveragePool", inner))


_MEAN = _average(X, "axes")
_CENTRED = op("Sub", X, _MEAN)
_CENTRED_AGAIN = op("Sub", X, _average(X, "axes of the mean again"))
_SQUARED = one_of(
    *(op("Mul", one, one) for one in (_CENTRED, _CENTRED_AGAIN)),
    *(op("Pow", one, 2) for one in (_CENTRED, _CENTRED_AGAIN)),
)
_VARIANCE = op("Add", _average(_SQUARED, "axes of the variance"), _EPSILON)
_DEVIATION = one_of(op("Sqrt", _VARIANCE), op("Pow", _VARIANCE, 0.5))
_PER_DEVIATION = _inverse(_VARIANCE, _DEVIATION)
_FACTOR = op("Mul", _PER_DEVIATION, _SCALE)
_NORMAL = (op("Div", _CENTRED, _DEVIATION), op("Mul", _CENTRED, _PER_DEVIATION))
_ENLARGED = op("Mul", X, _FACTOR)
_LOWERED = op("Mul", op("Neg", _MEAN), _FACTOR)
_AFFINE = (
    op("Add", _ENLARGED, op("Sub", _BIAS, op("Mul", _MEAN, _FACTOR))),
    op("Add", _ENLARGED, op("Add", _LOWERED, _BIAS)),
    op("Add", _ENLARGED, _LOWERED),
    op("Mul", _CENTRED, _FACTOR),
)
"""As TensorFlow and Keras write it, and as others do that scale the deviation first."""


def _epsilon(found: Match) -> float | None:
    number = found.numbers["epsilon"]
    return number if number > 0 else None


def _layer_norm(found: Match) -> Op | None:
    epsilon = _epsilon(found)
    if one_axis(found) is None or epsilon is None:
        return None
    named = [name for name in ("scale", "bias") if name in found.values]
    parameters = [_vector(found, name) for name in named] or [Computed(_ones)]
    return op("LayerNormalization", X, *parameters, axis=-1, epsilon=epsilon)


LAYER_NORM: Final = Rule(
    "LayerNormalization",
    patterns=_AFFINE,
    writes=(_layer_norm,),
    objection=_along_the_last,
    dtypes=SHORT,  # the attribute holds an epsilon in single precision
)

PLAIN_LAYER_NORM: Final = Rule(
    "LayerNormalization without parameters",
    patterns=_NORMAL,
    writes=(_layer_norm,),
    objection=_along_the_last,
    dtypes=SHORT,
)


def _instance_norm(found: Match) -> Op | None:
    means = [axes_of(node) for node in found.nodes.values() if is_op(node, "ReduceMean")]
    epsilon = _epsilon(found)
    if epsilon is None or any(axes is None or len(axes) < 2 for axes in means):
        return None
    return op("InstanceNormalization", X, Computed(_gains), Computed(_shifts), epsilon=epsilon)


def _over_all_places(found: Match, facts: Facts) -> str:
    facts.follow_to(found["x"])
    dims = facts.dims(found["x"])
    if dims is None or len(dims) < 3 or not isinstance(dims[1], int):
        return "what it normalizes is not known to have channels, so and so many"
    for node in found.nodes.values():
        if is_op(node, "ReduceMean"):
            over = sorted(axis % len(dims) for axis in axes_of(node) or [])
            if over != list(range(2, len(dims))):
                return "it is not over all places of a channel"
    return ""


INSTANCE_NORM: Final = Rule(
    "InstanceNormalization",
    patterns=_NORMAL,
    writes=(_instance_norm,),
    objection=_over_all_places,
    dtypes=frozenset({ir.DataType.FLOAT}),
)

_MEAN_SQUARE = reduced("ReduceMean", one_of(op("Mul", X, X), op("Pow", X, 2)), "axes")
_SHIFTED = op("Add", _MEAN_SQUARE, _EPSILON)
_ROOT = one_of(op("Sqrt", _SHIFTED), op("Pow", _SHIFTED, 0.5))


def _rms_norm(found: Match) -> Op | None:
    axis, epsilon, centred = one_axis(found), _epsilon(found), found["x"].producer()
    mean = centred.inputs[1] if is_op(centred, "Sub") else None
    if mean is not None and is_op(mean.producer(), "ReduceMean"):
        return None  # the root of its mean square is a deviation: this is a layer's
    if axis is None or epsilon is None:
        return None
    return op("RMSNormalization", X, Computed(_ones), axis=-1, epsilon=epsilon)


def _fusible_rms_norm(found: Match) -> Op | None:
    """The one spelling that ONNX Runtime's fusion knows, before there is an operator."""
    if _epsilon(found) is None or one_axis(found) is None:
        return None
    (mean,) = (node for node in found.nodes.values() if node.op_type == "ReduceMean")
    square = op("Pow", X, 2)
    axes = axes_of(mean)
    by_input = len(mean.inputs) > 1
    reduction = (
        op("ReduceMean", square, Const("axes")) if by_input else op("ReduceMean", square, axes=axes)
    )
    return op("Div", X, op("Sqrt", op("Add", reduction, _EPSILON)))


RMS_NORM: Final = Rule(
    "RMSNormalization",
    patterns=(op("Div", X, _ROOT), op("Mul", X, _inverse(_SHIFTED, _ROOT))),
    writes=(_rms_norm,),
    on_cpu=(_rms_norm, _fusible_rms_norm),
    objection=_along_the_last,
    dtypes=SHORT,
)


def _normalized(op_type: str) -> Op:
    return op(op_type, X, _SCALE, axis=Number(name="axis"), epsilon=_EPSILON)


def _scaled(op_type: str) -> Rule:
    """A normalization and the factors behind it."""

    def product(found: Match, facts: Facts) -> Array:
        del facts
        return found.array("scale") * found.array("factor").reshape(-1)

    def tree(found: Match) -> Op | None:
        scale, factor = found.array("scale"), found.array("factor")
        if scale.ndim != 1 or factor.size != scale.size or found.numbers["axis"] != -1:
            return None
        alone = (scale == 1).all()
        return op(
            op_type,
            X,
            _vector(found, "factor") if alone else Computed(product),
            axis=-1,
            epsilon=found.numbers["epsilon"],
        )

    patterns = (op("Mul", _normalized(op_type), Const("factor")),)
    name = f"factor of a {op_type}"
    return Rule(name, patterns=patterns, writes=(tree,), objection=_for_each_place)


SCALED: Final = (_scaled("LayerNormalization"), _scaled("RMSNormalization"))


def _with_bias(found: Match) -> Op | None:
    axis, epsilon = int(found.numbers["axis"]), found.numbers["epsilon"]
    if found.array("bias").size != found.array("scale").size or axis != -1:
        return None
    return op("LayerNormalization", X, _SCALE, _vector(found, "bias"), axis=-1, epsilon=epsilon)


LAYER_NORM_BIAS: Final = Rule(
    "bias of a LayerNormalization",
    patterns=(op("Add", _normalized("LayerNormalization"), _BIAS),),
    writes=(_with_bias,),
    objection=_for_each_place,
)


def _sum(found: Match) -> Op | None:
    """Where nothing but a layer normalization reads it."""
    uses = found.root.outputs[0].uses()
    if len(uses) != 1 or found.root.outputs[0].is_graph_output():
        return None
    ((reader, index),) = uses
    alone = index == 0 and is_op(reader, "LayerNormalization")
    return op("Sum", X, Anything("y")) if alone else None


def _of_equal_sizes(found: Match, facts: Facts) -> str:
    for name in "xy":
        facts.follow_to(found[name])
    one, other = (facts.dims(found[name]) for name in "xy")
    return "" if one is not None and one == other else "it may add tensors of different sizes"


SUM: Final = Rule(
    "Sum before a LayerNormalization",
    patterns=(op("Add", X, Anything("y")),),
    writes=(),
    on_cpu=(_sum,),  # ONNX Runtime makes one slow operator of an Add and the normalization
    objection=_of_equal_sizes,
    dtypes=frozenset({ir.DataType.FLOAT}),
)

NORMALIZATIONS: Final = (
    *(LAYER_NORM, PLAIN_LAYER_NORM, INSTANCE_NORM, RMS_NORM),
    *(*SCALED, LAYER_NORM_BIAS, SUM),
)
