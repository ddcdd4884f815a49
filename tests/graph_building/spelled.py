"""Activations spelled out in smaller operators, as exporters do, and near-misses of them."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.graph_building.arithmetic import combined, commuted, kept_aside, with_number
from tests.graph_building.builder import DOUBLE, FLOAT, Scope, Tensor
from tests.graph_building.layers import conv, image
from tests.graph_building.registry import operator


def clipped(s: Scope, x: Tensor, low: float, high: float) -> Tensor:
    """``x`` cut to a range, by the operator of this version or by two."""
    if x.dtype == DOUBLE or (s.style.opset >= 12 and s.choices.below(4) == 1):
        kinds = ["Max", "Min"] if s.choices.flag() else ["Min", "Max"]
        for kind in kinds:
            number = low if kind == "Max" else high
            x = with_number(s, kind, x, number, max(x.bound, high), turn=s.choices.flag())
        return x
    if s.style.opset < 11:
        return s.add("Clip", [x], x, min=low, max=high, bound=high)
    bounds = [s.scalar(low, x.dtype), s.scalar(high, x.dtype)]
    return s.add("Clip", [x, *bounds], x, bound=high)


def _divided(s: Scope, x: Tensor, number: float) -> Tensor:
    """``x / number``, or times its inverse."""
    if s.choices.below(3) == 1:
        return with_number(s, "Mul", x, 1 / number, x.bound / number, turn=s.choices.flag())
    return with_number(s, "Div", x, number, x.bound / number)


def hard_sigmoid(s: Scope, x: Tensor) -> Tensor:
    """``clip(x + 3, 0, 6) / 6`` with one of the numbers wrong now and then."""
    three, six, divisor = s.choices.of([(3.0, 6.0, 6.0)] * 4 + [(2.9, 6.0, 6.0), (3.0, 5.0, 6.0)])
    shifted = with_number(s, "Add", x, three, x.bound + 3, turn=s.choices.flag())
    kept_aside(s, shifted)
    cut = clipped(s, shifted, 0.0, six)
    kept_aside(s, cut)
    return _divided(s, cut, divisor)


def hard_swish(s: Scope, x: Tensor) -> Tensor:
    """``x * clip(x + 3, 0, 6) / 6`` in one of its orders."""
    form = s.choices.below(4)
    if form == 1:
        return commuted(s, "Mul", x, hard_sigmoid(s, x), x.bound)
    if form == 2 and x.dtype == FLOAT:
        alpha, beta = s.choices.of([(1 / 6, 0.5), (0.2, 0.5)])
        gate = s.add("HardSigmoid", [x], x, alpha=alpha, beta=beta, bound=1.0)
        return commuted(s, "Mul", x, gate, x.bound)
    six = s.choices.of([6.0, 6.0, 6.0, 5.0])
    cut = clipped(s, with_number(s, "Add", x, 3.0, turn=s.choices.flag()), 0.0, six)
    kept_aside(s, cut)
    product = commuted(s, "Mul", x, cut, 6 * x.bound)
    kept_aside(s, product)
    return _divided(s, product, 6.0)


def silu(s: Scope, x: Tensor) -> Tensor:
    """``x * sigmoid(x)``, or of a multiple of it."""
    inner = x
    if s.choices.below(3) == 1:
        inner = with_number(s, "Mul", x, 1.702, 2 * x.bound)
    gate = s.add("Sigmoid", [inner], inner, bound=1.0)
    kept_aside(s, gate)
    return commuted(s, "Mul", x, gate, x.bound)


def gelu(s: Scope, x: Tensor) -> Tensor:
    """GELU by the error function, its factors in one of three orders."""
    root = s.choices.of([math.sqrt(2.0)] * 3 + [1.5])
    inner = _divided(s, x, root)
    if x.dtype == DOUBLE:
        error = s.add("Tanh", [inner], inner, bound=1.0)
    else:
        error = s.add("Erf", [inner], inner, bound=1.0)
    kept_aside(s, error)
    one = with_number(s, "Add", error, 1.0, 2.0, turn=s.choices.flag())
    form = s.choices.below(3)
    if form == 0:
        return with_number(s, "Mul", commuted(s, "Mul", x, one, 2 * x.bound), 0.5, x.bound)
    half = with_number(s, "Mul", x if form == 1 else one, 0.5, x.bound, turn=s.choices.flag())
    return commuted(s, "Mul", half, one if form == 1 else x, x.bound)


def gelu_by_tanh(s: Scope, x: Tensor) -> Tensor:
    """The approximation of GELU by the hyperbolic tangent."""
    if s.choices.flag():
        cube = with_number(s, "Pow", x, 3.0, x.bound**3)
    else:
        cube = combined(s, "Mul", combined(s, "Mul", x, x), x)
    scaled = with_number(s, "Mul", cube, s.choices.of([0.044715] * 3 + [0.05]), cube.bound / 20)
    total = commuted(s, "Add", x, scaled)
    inner = with_number(s, "Mul", total, math.sqrt(2 / math.pi), turn=s.choices.flag())
    one = with_number(s, "Add", s.add("Tanh", [inner], inner, bound=1.0), 1.0, 2.0)
    if s.choices.flag():
        return commuted(s, "Mul", with_number(s, "Mul", x, 0.5, x.bound / 2), one, x.bound)
    return with_number(s, "Mul", commuted(s, "Mul", x, one, 2 * x.bound), 0.5, x.bound)


def softplus(s: Scope, x: Tensor) -> Tensor:
    """``log(1 + exp(x))``."""
    if x.dtype == FLOAT and s.choices.flag():
        return s.add("Softplus", [x], x, bound=x.bound + 1)
    power = s.add("Exp", [x], x, bound=math.exp(x.bound))
    return s.add("Log", [with_number(s, "Add", power, 1.0)], x, bound=x.bound + 1)


def mish(s: Scope, x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))``."""
    soft = softplus(s, x)
    return commuted(s, "Mul", x, s.add("Tanh", [soft], x, bound=1.0), x.bound)


def softmax(s: Scope, x: Tensor) -> Tensor:
    """The exponential over its sum, with the maximum taken off first, or not."""
    axis = s.choices.of([-1, 0]) if s.style.opset >= 11 else x.rank - 1
    shape = list(x.shape)
    shape[axis] = 1
    if s.choices.flag():
        largest = reduced(s, "ReduceMax", x, axis)
        x = combined(s, "Sub", x, largest)
    power = s.add("Exp", [x], x, bound=math.exp(min(x.bound, 8.0)))
    return combined(s, "Div", power, reduced(s, "ReduceSum", power, axis), 1.0)


def reduced(s: Scope, kind: str, x: Tensor, *axes: int) -> Tensor:
    """``x`` reduced over ``axes``, which are kept."""
    since = 13 if kind == "ReduceSum" else 18
    shape = list(x.shape)
    for axis in axes:
        shape[axis] = 1
    bound = 16 * x.bound if kind == "ReduceSum" else x.bound
    outputs = [(x.dtype, shape)]
    if s.style.opset >= since:
        return s.emit(kind, [x, s.ints(*axes)], outputs, bound=bound, keepdims=1)[0]
    return s.emit(kind, [x], outputs, bound=bound, axes=list(axes), keepdims=1)[0]


_SPELLINGS: tuple[Callable[[Scope, Tensor], Tensor], ...] = (
    hard_swish,
    hard_sigmoid,
    silu,
    gelu,
    gelu_by_tanh,
    softplus,
    mish,
)


def spelled(s: Scope, x: Tensor) -> Tensor:
    """One of the activations, spelled out."""
    return s.choices.of(_SPELLINGS)(s, x)


@operator(weight=5)
def spelled_activation(s: Scope) -> Tensor:
    return spelled(s, s.floats(most=8.0))


@operator(double=False, weight=3)
def spelled_between_convs(s: Scope) -> Tensor:
    x = conv(s, image(s))
    if x.bound > 12:
        x = s.add("Tanh", [x], x, bound=1.0)
    x = spelled(s, x)
    return conv(s, x) if s.choices.flag() and x.bound < 1e3 else x


@operator()
def spelled_softmax(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and not one.is_empty and one.bound <= 8, (2, 5))
    return softmax(s, x) if x.rank else x


@operator(double=False)
def squeeze_and_excite(s: Scope) -> Tensor:
    """A gate of each channel, computed from the mean over the image."""
    x = image(s)
    spatial = tuple(range(2, x.rank))
    if s.choices.flag():
        mean = reduced(s, "ReduceMean", x, *spatial)
    else:
        shape = (*x.shape[:2], *[1] * (x.rank - 2))
        mean = s.emit("GlobalAveragePool", [x], [(x.dtype, shape)])[0]
    channels = int(x.shape[1])
    weight = s.weights(channels, channels, *[1] * (x.rank - 2), spread=channels**-0.5)
    gate = s.add("Conv", [mean, weight], mean, bound=3 * x.bound)
    gates: list[Callable[[Tensor], Tensor]] = [
        lambda one: s.add("Sigmoid", [one], one, bound=1.0),
        lambda one: s.add("HardSigmoid", [one], one, alpha=1 / 6, beta=0.5, bound=1.0),
        lambda one: hard_sigmoid(s, one),
    ]
    return commuted(s, "Mul", x, s.choices.of(gates)(gate), x.bound)
