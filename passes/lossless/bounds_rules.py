"""Rules for operators that keep values within constant bounds, and for what they are part of."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir

from .patterns import Anything, Match, Number, Op, Pattern, one_of, op, product
from .rules import Rule

X: Final = Anything("x")
A, B, C, R = (Number(name=name) for name in "abcr")
_UNBOUNDED: Final = float(np.finfo(np.float32).max)
"""What exporters write, and what ``Clip`` has as its default, where there is no bound."""
SHORT: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
"""Types of which attributes hold every number: attributes are single precision."""


def clips(inner: Pattern, low: Pattern | float, high: Pattern | float) -> tuple[Op, Op]:
    """``Clip`` with its bounds as inputs, and as attributes as before opset 11."""
    return op("Clip", inner, low, high), op(
        "Clip", inner, min=_as_number(low), max=_as_number(high)
    )


def _as_number(bound: Pattern | float) -> Pattern | float:
    return float(bound) if isinstance(bound, int | float) else bound


def _bounding(inner: Pattern, suffix: str) -> tuple[Op, ...]:
    """Every operator that keeps ``inner`` within constant bounds."""
    low, high = Number(name=f"low{suffix}"), Number(name=f"high{suffix}")
    return (
        op("Relu", inner),
        op("Max", inner, low),
        op("Min", inner, high),
        *clips(inner, low, high),
        op("Clip", inner, low),
        op("Clip", inner, None, high),
    )


def _bounded(found: Match) -> Op | None:
    """One ``Clip`` or ``Relu`` for all the bounds of a match, the inner ones first."""
    low, high = -math.inf, math.inf
    nodes = list(found.nodes.values())[::-1]
    for node, suffix in zip(nodes, ("1", "2")[-len(nodes) :], strict=True):
        # Clip has the largest number for a bound that it is not given, Min and Max have none.
        none = _UNBOUNDED if node.op_type == "Clip" else math.inf
        lower = found.numbers.get(f"low{suffix}", -none)
        upper = found.numbers.get(f"high{suffix}", none)
        if node.op_type == "Relu":
            lower = 0.0
        if not (lower < math.inf and upper > -math.inf and lower <= upper):
            return None
        low, high = (min(max(bound, lower), upper) for bound in (low, high))
    made = _within(low, high)
    if made is None or (len(nodes) == 1 and made.op_type == found.root.op_type):
        return None
    return made


def _within(low: float, high: float) -> Op | None:
    """What keeps its input between bounds; ``None`` where ``Clip`` would not keep infinity."""
    if math.isinf(high) and low == 0:
        return op("Relu", X)
    if math.isinf(low) != math.isinf(high):
        return None
    if high < _UNBOUNDED:
        return op("Clip", X, low if low > -_UNBOUNDED else None, high)
    if low > -_UNBOUNDED:
        return op("Relu", X) if low == 0 else op("Clip", X, low)
    return op("Identity", X)


BOUNDS: Final = Rule(
    "Clip",
    patterns=(*_bounding(one_of(*_bounding(X, "1")), "2"), *_bounding(X, "2")),
    writes=(_bounded,),
    dtypes=SHORT,
)


def _hard_sigmoid(found: Match) -> Op | None:
    numbers = found.numbers
    if "c" in numbers:
        scale = 1 / numbers["c"] if numbers["c"] > 0 else 0.0
        if abs(numbers.get("r", scale) - scale) > 1e-3 * scale:
            return None
    else:
        scale = numbers.get("a", numbers.get("r", 0.0))
    shift = numbers["b"] if "a" in numbers else numbers["b"] * scale
    return op("HardSigmoid", X, alpha=scale, beta=shift) if scale > 0 else None


_SHIFTED = op("Add", X, B)

HARD_SIGMOID: Final = Rule(
    "HardSigmoid",
    patterns=(
        op("Div", one_of(*clips(_SHIFTED, 0, C)), C),
        op("Mul", one_of(*clips(_SHIFTED, 0, C)), R),
        *clips(one_of(op("Div", _SHIFTED, C), op("Mul", _SHIFTED, R)), 0, 1),
        *clips(op("Add", op("Mul", X, A), B), 0, 1),
    ),
    writes=(_hard_sigmoid,),
    dtypes=SHORT,
)

_GATE = op("HardSigmoid", X, alpha=1 / 6, beta=0.5)
_CLIPPED = one_of(*clips(op("Add", X, 3), 0, 6))

HARD_SWISH: Final = Rule(
    "HardSwish",
    patterns=(
        op("Mul", X, _GATE),
        op("Div", op("Mul", X, _CLIPPED), 6),
        op("Mul", op("Mul", X, _CLIPPED), 1 / 6),
        op("Mul", one_of(op("Div", X, 6), op("Mul", X, 1 / 6)), _CLIPPED),
    ),
    writes=(op("HardSwish", X), op("Mul", X, _GATE)),
    dtypes=SHORT,
)

_NEGATIVE = op("Relu", op("Neg", X))
_BELOW = one_of(op("Clip", X, None, 0), op("Min", X, 0))


def _leaky(found: Match) -> Op | None:
    """``a`` is the slope, ``b`` its negative; ``a * x + c * |x|`` has the slope ``a - c``."""
    numbers = found.numbers
    slope = numbers["a"] if "a" in numbers else -numbers["b"]
    if "c" in numbers:
        if abs(slope + numbers["c"] - 1) > 1e-6:
            return None
        slope -= numbers["c"]
    if found.root.op_type == "Max" and not 0 <= slope <= 1:
        return None
    return op("LeakyRelu", X, alpha=slope)


LEAKY_RELU: Final = Rule(
    "LeakyRelu",
    patterns=(
        op("Max", X, op("Mul", X, A)),
        op("Sub", op("Relu", X), op("Mul", _NEGATIVE, A)),
        op("Add", op("Relu", X), op("Mul", _NEGATIVE, B)),
        op("Add", op("Relu", X), op("Mul", _BELOW, A)),
        op("Add", op("Relu", X), product(A, op("Sub", X, op("Abs", X)), 0.5)),
        op("Add", op("Mul", X, A), op("Mul", op("Abs", X), C)),
        op("Where", one_of(op("Greater", X, 0), op("GreaterOrEqual", X, 0)), X, op("Mul", X, A)),
        op("Where", one_of(op("Less", X, 0), op("LessOrEqual", X, 0)), op("Mul", X, A), X),
    ),
    writes=(_leaky,),
    dtypes=SHORT,
)
