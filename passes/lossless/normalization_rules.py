"""Rules for spelled-out normalizations: of layers, of instances, by the mean square."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array
from ..graph import is_op
from .bounds_rules import SHORT
from .patterns import Anything, Computed, Const, Match, Number, OneOf, Op, one_of, op
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
    scale = found.array("scale").size if "scale" in found.values else None
    if dims is None or axis not in {-1, len(dims) - 1} or not isinstance(dims[-1], int):
        return "it is not known to go along the last axis, of a size that is known"
    return (
        "" if scale in {None, dims[-1]} else "it has no factor for each place along the last axis"
    )


_MEAN = reduced("ReduceMean", X, "axes")
_CENTRED = op("Sub", X, _MEAN)
_CENTRED_AGAIN = op("Sub", X, reduced("ReduceMean", X, "axes of the mean again"))
_SQUARED = one_of(
    *(op("Mul", one, one) for one in (_CENTRED, _CENTRED_AGAIN)),
    *(op("Pow", one, 2) for one in (_CENTRED, _CENTRED_AGAIN)),
)
_VARIANCE = op("Add", reduced("ReduceMean", _SQUARED, "axes of the variance"), _EPSILON)
_DEVIATION = one_of(op("Sqrt", _VARIANCE), op("Pow", _VARIANCE, 0.5))
_PER_DEVIATION = _inverse(_VARIANCE, _DEVIATION)
_FACTOR = op("Mul", _PER_DEVIATION, _SCALE)
_NORMAL = (op("Div", _CENTRED, _DEVIATION), op("Mul", _CENTRED, _PER_DEVIATION))


def _epsilon(found: Match) -> float | None:
    number = found.numbers["epsilon"]
    return number if number > 0 else None


def _plain_layer_norm(found: Match) -> Op | None:
    axis, epsilon = one_axis(found), _epsilon(found)
    if axis is None or epsilon is None:
        return None
    return op("LayerNormalization", X, Computed(_ones), axis=axis, epsilon=epsilon)


def _layer_norm(found: Match) -> Op | None:
    axis, epsilon = one_axis(found), _epsilon(found)
    parameters = [found.array(name) for name in ("scale", "bias") if name in found.values]
    if axis is None or epsilon is None or any(array.ndim != 1 for array in parameters):
        return None
    if len({array.size for array in parameters}) > 1:
        return None
    inputs = (X, _SCALE, _BIAS)[: 1 + len(parameters)]
    return op("LayerNormalization", *inputs, axis=axis, epsilon=epsilon)


LAYER_NORM: Final = Rule(
    "LayerNormalization",
    patterns=(
        op("Add", op("Mul", X, _FACTOR), op("Sub", _BIAS, op("Mul", _MEAN, _FACTOR))),
        op("Mul", _CENTRED, _FACTOR),
    ),
    writes=(_layer_norm,),
    objection=_along_the_last,
    dtypes=SHORT,  # the attribute holds an epsilon in single precision
)

PLAIN_LAYER_NORM: Final = Rule(
    "LayerNormalization without parameters",
    patterns=_NORMAL,
    writes=(_plain_layer_norm,),
    objection=_along_the_last,
    dtypes=SHORT,
)


def _plain_instance_norm(found: Match) -> Op | None:
    epsilon, first = _epsilon(found), None
    for node in found.nodes.values():
        if is_op(node, "ReduceMean"):
            axes = axes_of(node) or []
            if len(axes) < 2 or (first is not None and axes != first):
                return None
            first = axes
    if epsilon is None:
        return None
    return op("InstanceNormalization", X, Computed(_gains), Computed(_shifts), epsilon=epsilon)


def _over_all_places(found: Match, facts: Facts) -> str:
    facts.follow_to(found["x"])
    dims = facts.dims(found["x"])
    reduction = next(node for node in found.nodes.values() if is_op(node, "ReduceMean"))
    axes = axes_of(reduction) or []
    if dims is None or not isinstance(dims[1], int):
        return "what it normalizes is not known to have channels, so and so many"
    over = sorted(axis % len(dims) for axis in axes)
    return "" if over == list(range(2, len(dims))) else "it is not over all places of a channel"


INSTANCE_NORM: Final = Rule(
    "InstanceNormalization",
    patterns=_NORMAL,
    writes=(_plain_instance_norm,),
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
    return op("RMSNormalization", X, Computed(_ones), axis=axis, epsilon=epsilon)


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
        return found.array("scale") * found.array("factor")

    def tree(found: Match) -> Op | None:
        scale, factor = found.array("scale"), found.array("factor")
        if scale.ndim != 1 or factor.shape != scale.shape or found.numbers["axis"] != -1:
            return None
        alone = (scale == 1).all()
        return op(
            op_type,
            X,
            Const("factor") if alone else Computed(product),
            axis=-1,
            epsilon=found.numbers["epsilon"],
        )

    patterns = (op("Mul", _normalized(op_type), Const("factor")),)
    return Rule(f"factor of a {op_type}", patterns=patterns, writes=(tree,))


SCALED: Final = (_scaled("LayerNormalization"), _scaled("RMSNormalization"))


def _with_bias(found: Match) -> Op | None:
    axis, epsilon = int(found.numbers["axis"]), found.numbers["epsilon"]
    if found.array("bias").shape != found.array("scale").shape or axis != -1:
        return None
    return op("LayerNormalization", X, _SCALE, _BIAS, axis=-1, epsilon=epsilon)


LAYER_NORM_BIAS: Final = Rule(
    "bias of a LayerNormalization",
    patterns=(op("Add", _normalized("LayerNormalization"), _BIAS),),
    writes=(_with_bias,),
)

NORMALIZATIONS: Final = (
    *(LAYER_NORM, PLAIN_LAYER_NORM, INSTANCE_NORM, RMS_NORM),
    *(*SCALED, LAYER_NORM_BIAS),
)
