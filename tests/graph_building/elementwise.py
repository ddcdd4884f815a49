"""Activations, arithmetic with broadcasting, comparisons and choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.graph_building.arithmetic import joined
from tests.graph_building.builder import BOOL, DOUBLE, FLOAT, INT64, UINT8, Dim, Scope, Tensor
from tests.graph_building.registry import operator

# name: (since, whether double works, attributes); their answers are no larger than their input, + 1
_ACTIVATIONS: dict[str, tuple[int, bool, dict[str, Any]]] = {
    "Relu": (9, True, {}),
    "Sigmoid": (9, True, {}),
    "Tanh": (9, True, {}),
    "Neg": (9, True, {}),
    "Abs": (9, True, {}),
    "Identity": (9, True, {}),
    "LeakyRelu": (9, False, {"alpha": 0.2}),
    "Elu": (9, False, {"alpha": 0.5}),
    "Selu": (9, False, {}),
    "Softplus": (9, False, {}),
    "Softsign": (9, False, {}),
    "HardSigmoid": (9, False, {"alpha": 0.25, "beta": 0.4}),
    "Erf": (9, False, {}),
    "Sin": (9, True, {}),
    "Cos": (9, False, {}),
    "Atan": (9, False, {}),
    "Celu": (12, False, {"alpha": 2.0}),
    "HardSwish": (14, False, {}),
    "Mish": (18, False, {}),
    "Gelu": (20, False, {}),
}
_AWAY_FROM_ZERO = ("Log", "Sqrt", "Reciprocal")
_JUMPING = ("Floor", "Ceil", "Sign", "Round")


@operator(weight=3)
def activation(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or s.floats()
    known = [
        kind
        for kind, (since, double, _) in _ACTIVATIONS.items()
        if since <= s.style.opset and (double or x.dtype == FLOAT)
    ]
    kind = s.choices.of(known)
    _, _, attributes = _ACTIVATIONS[kind]
    if s.choices.flag():
        attributes = {}
    return s.add(kind, [x], x, bound=x.bound + 1, **attributes)


@operator()
def away_from_zero(s: Scope) -> Tensor:
    x = s.floats()
    size = s.add("Abs", [x], x)
    shifted = s.add("Add", [size, s.scalar(1.0, x.dtype)], x, bound=x.bound + 1)
    return s.add(s.choices.of(_AWAY_FROM_ZERO), [shifted], x, bound=x.bound + 1)


@operator()
def exponential(s: Scope) -> Tensor:
    x = s.floats(most=8.0)
    return s.add("Exp", [x], x, bound=float(np.exp(x.bound)))


@operator()
def jumping(s: Scope) -> Tensor:
    x = s.floats(exact=True)
    kind = s.choices.of(_JUMPING[: 4 if s.style.opset >= 11 else 3])
    return s.add(kind, [x], x, bound=x.bound + 1)


@operator(weight=2)
def clip(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or s.floats()
    if x.dtype == DOUBLE:  # ONNX Runtime cannot fuse a Relu into one of these
        return s.add("Relu", [x], x)
    low, high = s.choices.of([(0.0, 6.0), (-1.0, 1.0), (None, 2.0), (0.0, None)])
    if s.style.opset < 11:
        given = {"min": low, "max": high}
        return s.add("Clip", [x], x, **{k: v for k, v in given.items() if v is not None})
    bounds = [None if one is None else s.scalar(one, x.dtype) for one in (low, high)]
    return s.add("Clip", [x, *bounds[: 1 if high is None else 2]], x)


@operator(double=False)
def prelu(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(1) is not None, (2, 4, 5))
    (channels,) = x.fixed(1) or (1,)
    slope = s.choices.of([s.weights(channels, *[1] * (x.rank - 2)), s.scalar(0.25, x.dtype)])
    return s.add("PRelu", [x, slope], x, bound=4 * x.bound)


def _partner(s: Scope, x: Tensor, most: float = 1e3) -> tuple[Tensor, tuple[Dim, ...]]:
    """What can be broadcast with ``x``, and the shape that comes out."""
    form = s.choices.below(5)
    if form == 1:
        return s.scalar(0.75, x.dtype), x.shape
    if form == 2:
        others = [
            one
            for one in s.visible()
            if one.dtype == x.dtype and one.bound <= most and joined(x.shape, one.shape)
        ]
        if others:
            other = s.choices.of(others[:4])
            return other, joined(x.shape, other.shape) or x.shape
    if form == 3 and x.rank > 1 and (sizes := x.fixed(1)):
        return s.weights(*sizes, *[1] * (x.rank - 2)), x.shape
    if form == 4:  # a constant with more axes than x
        return s.weights(*[1] * (x.rank + 1)), (1, *x.shape)
    last = x.shape[-1:] if x.rank else ()
    return s.weights(*[size if isinstance(size, int) else 1 for size in last]), x.shape


_BOUNDS: dict[str, Callable[[float, float], float]] = {
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Sub": lambda a, b: a + b,
    "Max": max,
    "Min": max,
    "Mean": lambda a, b: a + b,
    "Sum": lambda a, b: a + b,
}


@operator(weight=5)
def arithmetic(s: Scope) -> Tensor:
    x = s.floats(most=100.0)
    other, shape = _partner(s, x, 100.0)
    kinds = [kind for kind in _BOUNDS if kind != "Mean" or x.dtype != DOUBLE]
    kind = s.choices.of(kinds)
    pair = [x, other] if s.choices.below(3) < 2 else [other, x]
    bound = _BOUNDS[kind](x.bound, other.bound)
    return s.emit(kind, pair, [(x.dtype, shape)], bound=bound)[0]


@operator(weight=2)
def scale_and_shift(s: Scope) -> Tensor:
    x = s.floats(most=100.0)
    sizes = x.fixed(1) if x.rank > 1 else None
    shape = (*sizes, *[1] * (x.rank - 2)) if sizes else ()
    scaled = s.add("Mul", [x, s.weights(*shape)], x, bound=4 * x.bound)
    return s.add("Add", [scaled, s.weights(*shape)], x, bound=4 * x.bound + 4)


@operator()
def division(s: Scope) -> Tensor:
    x = s.floats(most=100.0)
    return s.add(
        "Div", [x, s.positive(*[1] * s.choices.below(min(x.rank, 2)))], x, bound=2 * x.bound
    )


@operator()
def power(s: Scope) -> Tensor:
    x = s.floats(most=30.0)
    exponent = s.constant(np.array(s.choices.of([2.0, 3.0])), x.dtype, plain=True)
    return s.add("Pow", [x, exponent], x, bound=x.bound**3)


@operator()
def neutral(s: Scope) -> Tensor:
    """What changes nothing and is likely to be taken out, along axes that may matter."""
    x = s.floats()
    wide = s.choices.flag()
    shape = (1,) * (x.rank + wide)
    kind = s.choices.of(["Add", "Mul", "Sub", "Div"])
    same = s.constant(np.full(shape, 0.0 if kind in {"Add", "Sub"} else 1.0), x.dtype)
    out = (1, *x.shape) if wide else x.shape
    return s.emit(kind, [x, same], [(x.dtype, out)])[0]


@operator()
def comparison(s: Scope) -> Tensor:
    x = s.floats(exact=True)
    kinds = ["Less", "Greater", "LessOrEqual", "GreaterOrEqual"][: 4 if s.style.opset >= 12 else 2]
    other = s.scalar(s.choices.of([0.0, 0.5]), x.dtype)
    return s.emit(s.choices.of(kinds), [x, other], [(BOOL, x.shape)])[0]


def _truth(s: Scope) -> Tensor:
    return s.pick(lambda _: True, (2, 3), BOOL)


@operator()
def logic(s: Scope) -> Tensor:
    a = _truth(s)
    kind = s.choices.of(["Not", "And", "Or", "Xor"])
    if kind == "Not":
        return s.add("Not", [a], a)
    return s.add(kind, [a, s.constant(np.array(s.choices.flag()))], a)


@operator()
def where(s: Scope) -> Tensor:
    condition, x = _truth(s), s.floats()
    shape = joined(condition.shape, x.shape)
    if shape is None:
        condition, shape = s.constant(np.array(s.choices.flag())), x.shape
    pair = [x, s.scalar(0.5, x.dtype)]
    pair = pair if s.choices.below(2) == 0 else pair[::-1]
    return s.emit("Where", [condition, *pair], [(x.dtype, shape)])[0]


@operator()
def cast(s: Scope) -> Tensor:
    kind = s.choices.below(4)
    if kind == 1:
        x = s.pick(lambda _: True, (2, 3), BOOL)
        return s.emit("Cast", [x], [(s.style.dtype, x.shape)], to=s.style.dtype)[0]
    if kind == 2:
        x = s.pick(lambda one: one.bound < 1e6, (2, 3), INT64)
        return s.emit("Cast", [x], [(s.style.dtype, x.shape)], to=s.style.dtype)[0]
    if kind == 3:
        x = s.floats(exact=True)
        return s.emit("Cast", [x], [(INT64, x.shape)], to=INT64)[0]
    x = s.floats()
    there = s.emit("Cast", [x], [(FLOAT, x.shape)], to=FLOAT)[0]
    back = s.emit("Cast", [there], [(x.dtype, x.shape)], to=x.dtype)[0]
    for one in (there, back):  # ONNX Runtime loses pairs of Cast that only a subgraph reads
        s.tensors.remove(one)
    return s.add("Neg", [back], x)


@operator()
def dropout(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or s.floats()
    if s.style.opset < 12:
        return s.add("Dropout", [x], x, ratio=0.3)
    inputs = [x, s.scalar(0.5, FLOAT), s.constant(np.array(False))]
    outputs = [(x.dtype, x.shape), (BOOL, x.shape)]
    return s.emit("Dropout", inputs[: s.choices.of([1, 2, 3])], outputs[: s.choices.of([1, 2])])[0]


@operator()
def integers(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.bound < 1e4, (2, 3), INT64)
    kind = s.choices.of(["Add", "Mul", "Sub", "Mod" if s.style.opset >= 10 else "Add", "Div"])
    return s.add(kind, [x, s.constant(np.array(3, np.int64))], x, bound=3 * x.bound + 3)


@operator()
def softmax(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and not one.is_empty and one.bound <= 100, (2, 5))
    kind = s.choices.of(["Softmax", "LogSoftmax"])
    bound = 1.0 if kind == "Softmax" else 2 * x.bound + 4
    axis = s.choices.of([{"axis": x.rank - 1}, {}, {"axis": 0}])
    if x.rank == 1 and s.style.opset < 13:
        axis = {"axis": 0}
    return s.add(kind, [x], x, bound=bound, **axis)


@operator(since=10, double=False)
def quantize(s: Scope) -> Tensor:
    """There and back; the answer of a quantization jumps, so what it reads is exact."""
    x = s.pick(lambda one: one.exact, (2, 4), FLOAT)
    scale, zero = s.scalar(0.05, FLOAT), s.constant(np.array(s.choices.of([128, 0]), np.uint8))
    kind = [(UINT8, x.shape)]
    steps = s.emit("QuantizeLinear", [x, scale, zero], kind)[0]
    return s.add("DequantizeLinear", [steps, scale, zero], x)
