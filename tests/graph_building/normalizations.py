"""Normalizations spelled out in smaller operators, and near-misses of them."""

from __future__ import annotations

import numpy as np

from tests.graph_building.arithmetic import combined, commuted, kept_aside, with_number
from tests.graph_building.builder import FLOAT16, Scope, Tensor
from tests.graph_building.registry import operator
from tests.graph_building.spelled import reduced


def _epsilon(x: Tensor) -> float:
    """A large one: what is divided by nearly nothing magnifies rounding errors."""
    return 1.0 if x.dtype == FLOAT16 else 0.1


def _square(s: Scope, x: Tensor) -> Tensor:
    if s.choices.flag():
        return combined(s, "Mul", x, x, x.bound**2)
    return with_number(s, "Pow", x, s.choices.of([2.0, 2.0, 2.0, 4.0]), x.bound**2)


def _over_root(s: Scope, x: Tensor, variance: Tensor) -> Tensor:
    """``x / sqrt(variance + epsilon)``, as a quotient or as a product."""
    shifted = with_number(s, "Add", variance, _epsilon(x), turn=s.choices.flag())
    root = s.add("Sqrt", [shifted], shifted)
    form = s.choices.below(3)
    if form == 1:
        return commuted(s, "Mul", x, s.add("Reciprocal", [root], root, bound=4.0), 8.0)
    if form == 2 and s.style.opset >= 12:
        inverse = combined(s, "Div", s.scalar(1.0, x.dtype), root, 4.0)
        return commuted(s, "Mul", x, inverse, 8.0)
    return combined(s, "Div", x, root, 8.0)


def _scaled(s: Scope, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if s.choices.below(4) != 1:
        x = commuted(s, "Mul", x, s.weights(*shape), 4 * x.bound)
        kept_aside(s, x)
    if s.choices.below(4) != 1:
        x = commuted(s, "Add", x, s.weights(*shape))
    return x


def _rows(s: Scope) -> Tensor:
    return s.pick(
        lambda one: one.rank >= 2 and one.fixed(one.rank - 1) is not None
        and one.bound <= 16 and not one.is_empty,
        (2, 3, 6),
    )  # fmt: skip


@operator(weight=3)
def spelled_layer_norm(s: Scope) -> Tensor:
    x = _rows(s)
    last = x.rank - 1
    axis = s.choices.of([last, last, last, last - 1 or last])
    if s.style.opset >= 11 and s.choices.flag():
        axis -= x.rank
    mean = reduced(s, "ReduceMean", x, axis)
    centred = combined(s, "Sub", x, mean)
    kept_aside(s, centred)
    again = centred
    if s.choices.below(4) == 1:  # as PyTorch wrote it once: the difference is computed twice
        again = combined(s, "Sub", x, mean)
    variance = reduced(s, "ReduceMean", _square(s, again), axis)
    normal = _over_root(s, centred, variance)
    return _scaled(s, normal, x.fixed(last) or ())


@operator(weight=2)
def spelled_rms_norm(s: Scope) -> Tensor:
    x = _rows(s)
    last = x.rank - 1
    mean = reduced(s, "ReduceMean", _square(s, x), -1 if s.style.opset >= 11 else last)
    normal = _over_root(s, x, mean)
    shape = x.fixed(last) or ()
    return commuted(s, "Mul", normal, s.weights(*shape), 4 * normal.bound)


@operator()
def spelled_l2_norm(s: Scope) -> Tensor:
    x = _rows(s)
    total = reduced(s, "ReduceSum", combined(s, "Mul", x, x), x.rank - 1)
    return _over_root(s, x, total)


@operator(double=False)
def spelled_group_norm(s: Scope) -> Tensor:
    """Groups of channels as the channels of an InstanceNormalization, reshaped there and back."""
    x = s.pick(
        lambda one: one.rank == 4 and one.fixed(1, 2, 3) is not None and one.bound <= 100
        and int(one.shape[1]) % 2 == 0,
        (2, 4, 5, 4),
    )  # fmt: skip
    channels, height, width = x.fixed(1, 2, 3) or (0, 0, 0)
    if channels % 2 or not channels:
        return x
    groups = s.choices.of([2, channels])
    size = channels // groups * height * width
    if size < 2:
        return x
    shape = (x.shape[0], groups, size)
    flat = s.emit("Reshape", [x, s.ints(0, groups, -1)], [(x.dtype, shape)])[0]
    ones = s.constant(np.ones(groups), x.dtype)
    scale = s.choices.of([ones, ones, s.weights(groups)])
    inputs = [flat, scale, s.constant(np.zeros(groups), x.dtype)]
    normal = s.add("InstanceNormalization", inputs, flat, epsilon=_epsilon(x), bound=16.0)
    target = s.ints(0, channels, height, width)
    back = s.emit("Reshape", [normal, target], [(x.dtype, x.shape)], bound=16.0)[0]
    return _scaled(s, back, (channels, 1, 1))
