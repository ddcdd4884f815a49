"""Attention as exporters spell it out: heads, scales, masks, what was computed before, rotation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.graph_building.arithmetic import combined, kept_aside, with_number
from tests.graph_building.axes import axes_of
from tests.graph_building.builder import Dim, Scope, Tensor
from tests.graph_building.registry import operator

_HEADS, _SIZE = 2, 4


def _turned(s: Scope, x: Tensor, *axes: int) -> Tensor:
    shape = [x.shape[axis] for axis in axes]
    return s.emit("Transpose", [x], [(x.dtype, shape)], perm=list(axes))[0]


def _projected(s: Scope, x: Tensor, width: int) -> Tensor:
    inner = int(x.shape[-1])
    weight = s.weights(inner, width, spread=inner**-0.5)
    shape = (*x.shape[:-1], width)
    made = s.emit("MatMul", [x, weight], [(x.dtype, shape)], bound=2 * x.bound)[0]
    if s.choices.below(3) != 1:
        made = combined(s, "Add", made, s.weights(width), turn=s.choices.flag())
    return made


def _heads(s: Scope, x: Tensor, heads: int) -> Tensor:
    """``[N, S, heads * size]`` as ``[N, heads, S, size]``."""
    rows = x.shape[1]
    target = s.choices.of([(0, 0, heads, _SIZE), (0, -1, heads, _SIZE)])
    shape: tuple[Dim, ...] = (x.shape[0], rows, heads, _SIZE)
    split = s.emit("Reshape", [x, s.ints(*target)], [(x.dtype, shape)])[0]
    return _turned(s, split, 0, 2, 1, 3)


def _rotated(s: Scope, x: Tensor) -> Tensor:
    """Rotary embedding: ``x * cos + rotate_half(x) * sin``."""
    rows = int(x.shape[2])
    angles = np.outer(np.arange(rows), 1.0 / 10.0 ** np.arange(_SIZE // 2))
    angles = np.concatenate([angles, angles], axis=-1)[None, None]
    half = [(x.dtype, (*x.shape[:3], _SIZE // 2))]
    if s.choices.flag():
        sizes = [s.ints(_SIZE // 2, _SIZE // 2)] if s.style.opset >= 13 else []
        attributes: dict[str, Any] = {} if sizes else {"split": [_SIZE // 2] * 2}
        first, second = s.emit("Split", [x, *sizes], half * 2, axis=3, **attributes)
    else:
        middle, end = s.ints(_SIZE // 2), s.ints(2**62)
        (first,) = s.emit("Slice", [x, s.ints(0), middle, s.ints(3)], half)
        (second,) = s.emit("Slice", [x, middle, end, s.ints(3)], half)
    pair = [s.add("Neg", [second], second), first]
    turned = s.emit("Concat", pair, [(x.dtype, x.shape)], axis=3)[0]
    cosines = s.constant(np.cos(angles), x.dtype)
    sines = s.constant(np.sin(angles), x.dtype)
    one = combined(s, "Mul", x, cosines, x.bound)
    return combined(s, "Add", one, combined(s, "Mul", turned, sines, x.bound))


def _repeated(s: Scope, x: Tensor) -> Tensor:
    """One head of keys or values for all heads of queries."""
    if s.choices.flag():
        return x  # broadcast by the product
    rows = x.shape[2]
    axes, attributes = axes_of(s, "Unsqueeze", [2])
    kind = [(x.dtype, (x.shape[0], 1, 1, rows, _SIZE))]
    (more,) = s.emit("Unsqueeze", [x, *axes], kind, **attributes)
    shape = (x.shape[0], 1, _HEADS, rows, _SIZE)
    target = s.ints(1, 1, _HEADS, 1, 1)
    (wide,) = s.emit("Expand", [more, target], [(x.dtype, shape)])
    final = (x.shape[0], _HEADS, rows, _SIZE)
    return s.emit("Reshape", [wide, s.ints(0, _HEADS, -1, _SIZE)], [(x.dtype, final)])[0]


def _masked(s: Scope, scores: Tensor) -> Tensor:
    rows, columns = int(scores.shape[2]), int(scores.shape[3])
    form = s.choices.below(4)
    lowest = -100.0
    if form == 1:
        below = np.tril(np.ones((rows, columns), bool), columns - rows)
        mask = s.constant(np.where(below, 0.0, lowest)[None, None], scores.dtype)
        return combined(s, "Add", scores, mask, scores.bound)
    if form == 2:
        mask = s.fresh((2, 1, 1, columns), scores.dtype)
        if mask.bound <= 8:
            return combined(s, "Add", scores, mask, turn=s.choices.flag())
    if form == 3:
        allowed = s.constant(np.tril(np.ones((1, 1, rows, columns), bool), columns - rows))
        low = s.scalar(lowest, scores.dtype)
        pair = [scores, low]
        kind = [(scores.dtype, scores.shape)]
        return s.emit("Where", [allowed, *pair], kind, bound=scores.bound)[0]
    return scores


def _past(s: Scope, x: Tensor) -> Tensor:
    """What earlier steps left, before ``x``; it is an output as well."""
    before = s.fresh((2, x.shape[1], 2, _SIZE), x.dtype)
    if before.shape[0] != x.shape[0]:
        return x
    shape = (*x.shape[:2], int(x.shape[2]) + 2, _SIZE)
    return s.emit("Concat", [before, x], [(x.dtype, shape)], axis=2)[0]


@operator(weight=4)
def attention(s: Scope) -> Tensor:
    x = s.pick(
        lambda one: one.rank == 3 and one.fixed(1, 2) is not None and one.bound <= 8,
        (2, 3, 8),
    )
    if x.fixed(1, 2) is None:
        return x
    grouped = s.choices.below(4) == 1
    kv_heads = 1 if grouped else _HEADS
    source = x
    query = _heads(s, _projected(s, x, _HEADS * _SIZE), _HEADS)
    key = _heads(s, _projected(s, source, kv_heads * _SIZE), kv_heads)
    value = _heads(s, _projected(s, source, kv_heads * _SIZE), kv_heads)
    if s.choices.below(4) == 1:
        query, key = _rotated(s, query), _rotated(s, key)
    if s.choices.below(4) == 1 and s.outer is None:
        key, value = _past(s, key), _past(s, value)
    if grouped:
        key, value = _repeated(s, key), _repeated(s, value)
    scaling = s.choices.below(4)
    if scaling == 1:
        query = with_number(s, "Mul", query, _SIZE**-0.5, query.bound)
    turned = _turned(s, key, 0, 1, 3, 2)
    if scaling == 2:
        query = with_number(s, "Mul", query, _SIZE**-0.25, query.bound)
        turned = with_number(s, "Mul", turned, _SIZE**-0.25, turned.bound)
    bound = min(_SIZE * query.bound * key.bound, 1e3)
    shape = (query.shape[0], _HEADS, query.shape[2], turned.shape[3])
    scores = s.emit("MatMul", [query, turned], [(x.dtype, shape)], bound=bound)[0]
    if scaling == 0:
        scores = with_number(s, "Div", scores, math.sqrt(_SIZE), bound)
    if s.choices.below(8) == 1:
        kept_aside(s, scores)
    scores = _masked(s, scores)
    shares = s.add("Softmax", [scores], scores, axis=3 if s.style.opset < 13 else -1, bound=1.0)
    kept_aside(s, shares)
    kind = [(x.dtype, query.shape)]
    mixed = s.emit("MatMul", [shares, value], kind, bound=value.bound)[0]
    back = _turned(s, mixed, 0, 2, 1, 3)
    width = (x.shape[0], x.shape[1], _HEADS * _SIZE)
    joined = s.emit("Reshape", [back, s.ints(0, 0, _HEADS * _SIZE)], [(x.dtype, width)])[0]
    return _projected(s, joined, int(x.shape[2])) if s.choices.flag() else joined


@operator(weight=1)
def packed_attention(s: Scope) -> Tensor:
    """Queries, keys and values of one product, taken apart by Split, Gather or Slice."""
    x = s.pick(
        lambda one: one.rank == 3 and one.fixed(1, 2) is not None and one.bound <= 8,
        (2, 3, 8),
    )
    if x.fixed(1, 2) is None:
        return x
    width = _HEADS * _SIZE
    packed = _projected(s, x, 3 * width)
    shape: tuple[Dim, ...] = (x.shape[0], x.shape[1], 3, _HEADS, _SIZE)
    target = s.ints(0, 0, 3, _HEADS, _SIZE)
    five = s.emit("Reshape", [packed, target], [(x.dtype, shape)])[0]
    turned = _turned(s, five, 2, 0, 3, 1, 4)
    kind = [(x.dtype, turned.shape[1:])]
    query, key, value = (
        s.emit("Gather", [turned, s.constant(np.array(at))], kind, axis=0)[0] for at in range(3)
    )
    query = with_number(s, "Mul", query, _SIZE**-0.5, query.bound)
    flat = _turned(s, key, 0, 1, 3, 2)
    shape = (*query.shape[:3], query.shape[2])
    bound = min(_SIZE * query.bound * key.bound, 1e3)
    scores = s.emit("MatMul", [query, flat], [(x.dtype, shape)], bound=bound)[0]
    shares = s.add("Softmax", [scores], scores, axis=3 if s.style.opset < 13 else -1, bound=1.0)
    mixed = s.emit("MatMul", [shares, value], [(x.dtype, query.shape)], bound=value.bound)[0]
    back = _turned(s, mixed, 0, 2, 1, 3)
    kind = [(x.dtype, (x.shape[0], x.shape[1], width))]
    return s.emit("Reshape", [back, s.ints(0, 0, width)], kind)[0]
