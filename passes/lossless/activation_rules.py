"""Smooth activation functions as exporters spell them, and the operators that they are."""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from ..analysis.values import Facts
from .bounds_rules import BOUNDS, HARD_SIGMOID, HARD_SWISH, LEAKY_RELU
from .normalization_rules import NORMALIZATIONS
from .patterns import Anything, Match, one_of, op, product
from .reduction_rules import GLOBAL_AVERAGE, SOFTMAX
from .rules import Rule, Rules, contrib

X: Final = Anything("x")

_DECAY = op("Exp", one_of(op("Neg", X), op("Mul", X, -1)))

SIGMOID: Final = Rule(
    "Sigmoid",
    patterns=(op("Div", 1, op("Add", _DECAY, 1)), op("Reciprocal", op("Add", _DECAY, 1))),
    writes=(op("Sigmoid", X),),
)

SILU: Final = Rule(
    "SiLU",
    patterns=(op("Div", X, op("Add", _DECAY, 1)),),
    writes=(op("Mul", X, op("Sigmoid", X)),),
)

_ROOT_2: Final = math.sqrt(2)
_ERF = op("Erf", one_of(op("Div", X, _ROOT_2), op("Mul", X, 1 / _ROOT_2)))
_NEGATIVE_ERF = op(
    "Erf",
    one_of(
        op("Mul", X, -1 / _ROOT_2),
        op("Div", X, -_ROOT_2),
        op("Mul", op("Neg", X), 1 / _ROOT_2),
        op("Div", op("Neg", X), _ROOT_2),
        op("Neg", one_of(op("Mul", X, 1 / _ROOT_2), op("Div", X, _ROOT_2))),
    ),
)
_TAIL = one_of(op("Add", _ERF, 1), op("Sub", 1, _NEGATIVE_ERF))
"""Twice the probability that a normal variable is below ``x``."""
_HALVED = one_of(op("Add", op("Mul", _ERF, 0.5), 0.5), op("Div", _TAIL, 2))


GELU: Final = Rule(
    "Gelu",
    patterns=(
        product(X, _TAIL, 0.5),
        op("Mul", X, _HALVED),
        op("Mul", op("Div", X, 2), _TAIL),
        op("Div", op("Mul", X, _TAIL), 2),
    ),
    writes=(
        op("Gelu", X),
        contrib("Gelu", X),
        op("Mul", op("Mul", X, op("Add", op("Erf", op("Div", X, _ROOT_2)), 1)), 0.5),
    ),
)

_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715
_SQUARE = one_of(op("Mul", X, X), op("Pow", X, 2))
_CUBE = one_of(op("Pow", X, 3), op("Mul", X, _SQUARE))
_CUBED = one_of(op("Mul", _CUBE, _CUBIC), product(X, X, X, _CUBIC))
_ONE_MORE = op("Add", one_of(op("Mul", _SQUARE, _CUBIC), product(X, X, _CUBIC)), 1)
_TANH = op("Tanh", one_of(op("Mul", op("Add", X, _CUBED), _SLOPE), product(X, _ONE_MORE, _SLOPE)))
_BELL = op("Add", _TANH, 1)


def _has_axes(found: Match, facts: Facts) -> str:
    """FastGelu fails for a tensor without axes."""
    facts.follow_to(found["x"])
    return "" if facts.dims(found["x"]) else "what it computes on is not known to have an axis"


TANH_GELU: Final = Rule(
    "tanh Gelu",
    patterns=(
        product(X, _BELL, 0.5),
        op("Mul", X, one_of(op("Add", op("Mul", _TANH, 0.5), 0.5), op("Div", _BELL, 2))),
        op("Mul", op("Div", X, 2), _BELL),
        op("Div", op("Mul", X, _BELL), 2),
    ),
    writes=(
        op("Gelu", X, approximate="tanh"),
        contrib("FastGelu", X),
        # (1 + tanh(z)) / 2 is sigmoid(2 z)
        op(
            "Mul",
            X,
            op(
                "Sigmoid",
                op(
                    "Mul",
                    X,
                    op("Add", op("Mul", op("Mul", X, X), 2 * _SLOPE * _CUBIC), 2 * _SLOPE),
                ),
            ),
        ),
    ),
    objection=_has_axes,
)

_EXP = op("Exp", op("Clip", X, None, 20))
_ODDS = op("Mul", _EXP, op("Add", _EXP, 2))

MISH_ON_CPU: Final = Rule(
    "Mish in exponentials",
    patterns=(
        op("Mul", X, op("Tanh", one_of(op("Softplus", X), op("Log", op("Add", op("Exp", X), 1))))),
        op("Mish", X),
    ),
    # tanh(log(1 + e)) is n / (n + 2) with n = e (e + 2), and 1 in single precision from 20 on.
    writes=(),
    on_cpu=(op("Mul", X, op("Div", _ODDS, op("Add", _ODDS, 2))),),
    dtypes=frozenset({ir.DataType.FLOAT}),
)

MISH: Final = Rule(
    "Mish",
    patterns=(op("Mul", X, op("Tanh", op("Softplus", X))),),
    writes=(op("Mish", X),),
)

ACTIVATIONS: Final = Rules.of(
    *(BOUNDS, HARD_SIGMOID, HARD_SWISH, LEAKY_RELU),
    *(SIGMOID, SILU, GELU, TANH_GELU, MISH_ON_CPU, MISH),
    *(SOFTMAX, *NORMALIZATIONS, GLOBAL_AVERAGE),
)
