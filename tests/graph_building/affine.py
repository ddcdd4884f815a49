"""Chains of constant factors and summands, and layers that such a chain may go into."""

from __future__ import annotations

import numpy as np

from tests.graph_building.arithmetic import combined, kept_aside
from tests.graph_building.builder import Scope, Tensor
from tests.graph_building.layers import batch_norm, conv, conv_transpose, gemm, image, matmul
from tests.graph_building.registry import operator

_KINDS = ("Mul", "Add", "Sub", "Div")


def _shape(s: Scope, x: Tensor) -> tuple[int, ...]:
    """The shape of a constant that can be broadcast with ``x`` and does not change its shape."""
    form = s.choices.below(8)
    ones = [1] * x.rank
    channels, last = (x.fixed(1) if x.rank > 1 else None), (x.fixed(x.rank - 1) if x.rank else None)
    if form in {0, 1, 2} and channels:
        return (*channels, *[1] * (x.rank - 2))
    if form == 3 and channels:
        return (1, *channels, *[1] * (x.rank - 2))
    if form == 4 and last:
        return last
    if form == 5 and (rest := x.fixed(*range(1, x.rank)) if x.rank > 1 else None):
        return rest
    return tuple([(), (1,), tuple(ones)][form % 3]) if x.rank else ()


def affine(s: Scope, x: Tensor, most: int = 3) -> Tensor:
    """``x`` with up to ``most`` constants multiplied, added, subtracted or divided by."""
    for _ in range(s.choices.below(most + 1)):
        kind = s.choices.of(_KINDS)
        shape = _shape(s, x)
        turn = s.choices.below(4) == 1
        other = s.positive(*shape) if kind == "Div" else s.weights(*shape)
        if kind == "Div" and turn:  # no longer affine; away from zero, so that it stays small
            size = s.add("Abs", [x], x)
            x = combined(s, "Add", size, s.scalar(1.0, x.dtype), x.bound + 1)
        bound = x.bound * 4 if kind == "Mul" else x.bound + 4
        bound = bound * 2 if kind == "Div" else bound
        x = combined(s, kind, x, other, bound, turn=turn)
        kept_aside(s, x)
    return x


def _channels_kept(s: Scope, x: Tensor) -> Tensor:
    """Something that a factor of each channel may pass through."""
    form = s.choices.below(6)
    if form == 1 and s.style.opset >= 11 and x.rank == 4:
        pads = [0, 0, 1, 0, 0, 0, 1, 2]
        value = s.choices.of([[], [s.scalar(0.0, x.dtype)], [s.scalar(0.5, x.dtype)]])
        shape = (*x.shape[:2], int(x.shape[2]) + 2, int(x.shape[3]) + 2)
        return s.emit("Pad", [x, s.ints(*pads), *value], [(x.dtype, shape)])[0]
    if form == 2:
        other = affine(s, x, 2)
        shape = (x.shape[0], 2 * int(x.shape[1]), *x.shape[2:])
        return s.emit("Concat", [x, other], [(x.dtype, shape)], axis=1)[0]
    if form == 3:
        other = affine(s, s.add("Relu", [x], x), 2)
        return combined(s, "Add", x, other)
    if form == 4 and x.rank == 4:
        area = int(x.shape[2]) * int(x.shape[3])
        shape = (*x.shape[:2], area)
        flat = s.emit("Reshape", [x, s.ints(0, 0, -1)], [(x.dtype, shape)])[0]
        flat = affine(s, flat, 1)
        if s.choices.flag():
            return flat
        target = s.ints(0, *(int(size) for size in x.shape[1:]))
        return s.emit("Reshape", [flat, target], [(x.dtype, x.shape)])[0]
    if form == 5 and x.rank == 4:
        shape = (x.shape[0], x.shape[2], x.shape[3], x.shape[1])
        turned = s.emit("Transpose", [x], [(x.dtype, shape)], perm=[0, 2, 3, 1])[0]
        turned = affine(s, turned, 1)
        return s.emit("Transpose", [turned], [(x.dtype, x.shape)], perm=[0, 3, 1, 2])[0]
    return x


@operator(double=False, weight=6)
def affine_around_conv(s: Scope) -> Tensor:
    x = affine(s, image(s), 2)
    x = s.choices.of([conv, conv, conv, conv_transpose])(s, x)
    kept_aside(s, x)
    x = affine(s, x)
    if s.choices.flag():
        x = batch_norm(s, x)
    if s.choices.below(3) == 1:
        x = s.add("Relu", [x], x)
    x = affine(s, x, 2)
    x = _channels_kept(s, x)
    if s.choices.flag() and x.rank in {3, 4} and x.bound < 1e4:
        return affine(s, conv(s, x), 1)
    return x


@operator(weight=4)
def affine_around_product(s: Scope) -> Tensor:
    def fits(one: Tensor) -> bool:
        return one.rank >= 2 and one.fixed(one.rank - 1) is not None and one.bound <= 1e2

    x = affine(s, s.pick(fits, (3, 4)), 2)
    x = (gemm if x.rank == 2 and s.choices.flag() else matmul)(s, x)
    kept_aside(s, x)
    x = affine(s, x)
    if s.choices.below(3) == 1 and x.rank == 2 and x.fixed(1):
        x = batch_norm(s, x)
    if s.choices.flag():
        x = matmul(s, x)
    return affine(s, x, 1)


@operator(weight=2)
def affine_block(s: Scope) -> Tensor:
    """A learnable factor and summand of one element, as Paddle leaves them behind activations."""
    x = s.floats(most=100.0)
    x = s.add(s.choices.of(["Relu", "Sigmoid", "Identity"]), [x], x, bound=x.bound + 1)
    x = combined(s, "Mul", x, s.weights(1), x.bound * 4)
    kept_aside(s, x)
    return combined(s, "Add", x, s.weights(1), x.bound + 4)


@operator()
def product_from_the_left(s: Scope) -> Tensor:
    """A constant matrix times a tensor, and constants around it."""
    x = s.pick(
        lambda one: one.rank >= 2 and one.fixed(one.rank - 2) is not None and one.bound <= 1e2,
        (2, 4, 3),
    )
    (inner,) = x.fixed(x.rank - 2) or (1,)
    x = affine(s, x, 1)
    left = s.weights(3, inner, spread=inner**-0.5)
    shape = (*x.shape[:-2], 3, x.shape[-1])
    made = s.emit("MatMul", [left, x], [(x.dtype, shape)], bound=3 * x.bound)[0]
    return affine(s, made, 2)


@operator()
def odd_constants(s: Scope) -> Tensor:
    """Factors that no layer can take: zeros, infinities, not-a-number."""
    x = s.floats(1, most=10.0)
    number = s.choices.of([0.0, -1.0, np.inf, np.nan, 1e-30])
    kind = s.choices.of(["Mul", "Add", "Div", "Max"])
    if kind == "Div" and number == 0.0:
        number = 2.0
    if number == 1e-30 and x.dtype != 1:
        number = 0.5
    other = s.constant(np.full(s.choices.of([(), (1,)]), number), x.dtype)
    made = combined(s, kind, x, other, x.bound, turn=kind != "Div" and s.choices.flag())
    s.tensors.remove(made)  # its answers are all that matters: infinities spread
    s.leaves.append(made)
    return made
