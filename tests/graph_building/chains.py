"""Data movement in a row: what cancels, merges, or changes nothing, and what nearly does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.graph_building.arithmetic import combined, kept_aside
from tests.graph_building.axes import axes_of
from tests.graph_building.builder import FLOAT, INT32, INT64, Dim, Scope, Tensor
from tests.graph_building.layers import batch_norm, image
from tests.graph_building.registry import operator
from tests.graph_building.sizes import shape_of
from tests.graph_building.spelled import reduced

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def turned(s: Scope, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``x`` transposed."""
    shape = [x.shape[axis] for axis in axes]
    return s.emit("Transpose", [x], [(x.dtype, shape)], perm=list(axes))[0]


def _through(s: Scope, x: Tensor) -> Tensor:
    """Something that a transpose may be pushed through, on a tensor whose channels are last."""
    form = s.choices.below(8)
    channels = int(x.shape[3])
    if form == 1:
        return combined(s, s.choices.of(["Mul", "Add"]), x, s.weights(channels), 4 * x.bound)
    if form == 2:
        other = s.add("Sigmoid", [x], x, bound=1.0)
        return combined(s, s.choices.of(["Mul", "Add"]), x, other)
    if form == 3:
        return reduced(s, "ReduceMean", x, *s.choices.of([(1, 2), (3,), (1,)]))
    if form == 4:
        shape = (*x.shape[:3], 2 * channels)
        return s.emit("Concat", [x, x], [(x.dtype, shape)], axis=3)[0]
    if form == 5 and s.style.opset >= 11:
        shape = (x.shape[0], int(x.shape[1]) + 1, *x.shape[2:])
        return s.emit("Pad", [x, s.ints(0, 0, 0, 0, 0, 1, 0, 0)], [(x.dtype, shape)])[0]
    if form == 6:
        return s.add("Softmax", [x], x, axis=3, bound=1.0)
    if form == 7:
        return combined(s, "Add", x, s.weights(int(x.shape[1]), int(x.shape[2]), channels))
    return s.add("Relu", [x], x)


@operator(double=False, weight=4)
def channels_last(s: Scope) -> Tensor:
    """As TensorFlow's exports: channels are moved to the end, something happens, and back."""
    x = image(s)
    if x.rank != 4:
        return x
    last = turned(s, x, _TO_LAST)
    for _ in range(s.choices.of([1, 0, 2, 3])):
        last = _through(s, last)
        kept_aside(s, last)
    if int(last.shape[3]) > 16:
        return last
    axes = s.choices.of([_TO_FIRST, _TO_FIRST, _TO_FIRST, _TO_LAST])
    first = turned(s, last, axes)
    if s.choices.flag() and first.fixed(1):
        first = batch_norm(s, first)
    return first


@operator(weight=3)
def reshaped_twice(s: Scope) -> Tensor:
    """Reshapes, squeezes and transposes in a row."""
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(*range(1, one.rank)) is not None, (2, 3, 4))
    rest = x.fixed(*range(1, x.rank))
    if rest is None or x.is_empty:
        return x
    area, shape = math.prod(rest), x.shape
    for _ in range(2 + s.choices.below(3)):
        form = s.choices.below(6)
        sizes: tuple[Dim, ...]
        target, sizes = [
            ((0, -1), (shape[0], area)),
            ((0, 1, area), (shape[0], 1, area)),
            ((-1, *rest), (shape[0], *rest)),
            ((0, area, 1), (shape[0], area, 1)),
            ((-1, area), (shape[0], area)),
            ((-1, 1, *rest), (shape[0], 1, *rest)),
        ][form]
        x = s.emit("Reshape", [x, s.ints(*target)], [(x.dtype, sizes)])[0]
        kept_aside(s, x)
        if s.choices.below(4) == 1:
            x = turned(s, x, (0, *range(x.rank - 1, 0, -1)))
            x = s.add("Relu", [x], x) if s.choices.flag() else x
            x = turned(s, x, (0, *range(x.rank - 1, 0, -1)))
        elif s.choices.below(4) == 1 and x.rank == 3 and x.shape[1] == 1:
            axes, attributes = axes_of(s, "Squeeze", [1])
            kind = [(x.dtype, (x.shape[0], x.shape[2]))]
            x = s.emit("Squeeze", [x, *axes], kind, **attributes)[0]
    return x


@operator(weight=3)
def taken_apart_and_joined(s: Scope) -> Tensor:
    """Pieces of an axis joined again, in their order or in another."""
    x = s.pick(
        lambda one: one.rank >= 1 and isinstance(one.shape[-1], int) and 2 <= one.shape[-1] <= 8,
        (2, 3, 6),
    )
    size = x.shape[-1]
    if not isinstance(size, int) or size < 2:
        return x
    cut, axis = 1 + s.choices.below(size - 1), x.rank - 1
    kinds = [(x.dtype, (*x.shape[:-1], cut)), (x.dtype, (*x.shape[:-1], size - cut))]
    form = s.choices.below(3)
    if form == 1 and s.style.opset >= 13:
        parts = s.emit("Split", [x, s.ints(cut, size - cut)], kinds, axis=axis)
    elif form == 1:
        parts = s.emit("Split", [x], kinds, axis=axis, split=[cut, size - cut])
    elif form == 2:
        rows = (np.arange(cut), np.arange(cut, size))
        parts = [
            s.emit("Gather", [x, s.constant(index)], [kind], axis=axis)[0]
            for index, kind in zip(rows, kinds, strict=True)
        ]
    else:
        parts = [_slice(s, x, axis, 0, cut), _slice(s, x, axis, cut, size)]
    kept_aside(s, parts[0])
    order = s.choices.of([parts, parts, parts[::-1], [parts[1], parts[1], parts[0]]])
    total = sum(int(part.shape[-1]) for part in order)
    return s.emit("Concat", order, [(x.dtype, (*x.shape[:-1], total))], axis=axis)[0]


def _slice(s: Scope, x: Tensor, axis: int, start: int, end: int, step: int = 1) -> Tensor:
    size = int(x.shape[axis])
    left = len(range(size)[start:end:step])
    kind = [(x.dtype, (*x.shape[:axis], left, *x.shape[axis + 1 :]))]
    if s.style.opset < 10:
        return s.emit("Slice", [x], kind, starts=[start], ends=[end], axes=[axis])[0]
    inputs = [x, s.ints(start), s.ints(end), s.ints(axis), *([s.ints(step)] if step != 1 else [])]
    return s.emit("Slice", inputs, kind)[0]


@operator(weight=2)
def slices_in_a_row(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(one.rank - 1) is not None, (2, 3, 8))
    for _ in range(2):
        axis = x.rank - 1 - s.choices.below(2)
        size = x.shape[axis]
        if not isinstance(size, int) or size < 2:
            continue
        start = s.choices.below(size)
        end = s.choices.of([size, 2**31 - 1, -1 if start < size - 1 else size])
        step = s.choices.of([1, 1, 2]) if s.style.opset >= 10 else 1
        x = _slice(s, x, axis, start, end, step)
        kept_aside(s, x)
    return x


@operator(since=11, weight=2)
def written_into_zeros(s: Scope) -> Tensor:
    """Windows put into a constant by ScatterND, as PyTorch exports an assignment to a slice."""
    x = s.pick(lambda one: one.rank == 2 and one.fixed() is not None and one.bound < 1e3, (3, 4))
    if x.fixed() is None:
        return x
    rows, columns = x.fixed() or (1, 1)
    height = rows + s.choices.below(2)
    start = s.choices.below(height - rows + 1)
    grid = [[[start + row, column] for column in range(columns)] for row in range(rows)]
    base = s.constant(np.zeros((height, columns)), x.dtype)
    shape = (height, columns)
    if s.choices.flag():
        index = s.constant(np.arange(start, start + rows)[:, None])
        return s.emit("ScatterND", [base, index, x], [(x.dtype, shape)])[0]
    index = s.constant(np.array(grid, np.int64))
    return s.emit("ScatterND", [base, index, x], [(x.dtype, shape)])[0]


def _no_expand(s: Scope, x: Tensor) -> Tensor:
    target = s.choices.of([s.ints(*[1] * x.rank), shape_of(s, x)])
    return s.emit("Expand", [x, target], [(x.dtype, x.shape)])[0]


def _no_pad(s: Scope, x: Tensor) -> Tensor:
    pads = [0] * 2 * x.rank
    if s.style.opset < 11:
        return s.add("Pad", [x], x, pads=pads)
    return s.add("Pad", [x, s.ints(*pads)], x)


def _no_slice(s: Scope, x: Tensor) -> Tensor:
    if s.style.opset < 10:
        return s.add("Slice", [x], x, starts=[0], ends=[2**31 - 1], axes=[x.rank - 1])
    return s.add("Slice", [x, s.ints(0), s.ints(2**62), s.ints(x.rank - 1)], x)


def _no_tile(s: Scope, x: Tensor) -> Tensor:
    return s.add("Tile", [x, s.ints(*[1] * x.rank)], x)


def _no_reshape(s: Scope, x: Tensor) -> Tensor:
    if x.is_empty:
        return x
    return s.add("Reshape", [x, s.choices.of([s.ints(*[0] * x.rank), shape_of(s, x)])], x)


def _no_transpose(s: Scope, x: Tensor) -> Tensor:
    return s.add("Transpose", [x], x, perm=list(range(x.rank)))


def _no_concat(s: Scope, x: Tensor) -> Tensor:
    return s.add("Concat", [x], x, axis=0)


def _no_cast(s: Scope, x: Tensor) -> Tensor:
    made = s.emit("Cast", [x], [(x.dtype, x.shape)], to=x.dtype)[0]
    return s.add("Abs", [made], x)  # ONNX Runtime loses a Cast that only a subgraph reads


_NOTHING: tuple[Callable[[Scope, Tensor], Tensor], ...] = (
    _no_expand,
    _no_pad,
    _no_slice,
    _no_tile,
    _no_reshape,
    _no_transpose,
    _no_concat,
    _no_cast,
)


@operator(weight=3)
def nothing_changed(s: Scope) -> Tensor:
    x = s.floats(1)
    for _ in range(1 + s.choices.below(2)):
        x = s.choices.of(_NOTHING)(s, x)
    return x


@operator(weight=2)
def whole_numbers(s: Scope) -> Tensor:
    """Arithmetic of 32-bit and 64-bit integers, and casts between them."""
    x = s.pick(lambda one: one.bound < 1e3, (2, 3), INT64)
    if s.choices.flag():
        x = s.emit("Cast", [x], [(INT32, x.shape)], to=INT32)[0]
    for _ in range(2):
        number = s.choices.of([3, 1, -2, 0])
        kind = s.choices.of(["Mul", "Add", "Sub", "Div"])
        if kind == "Div" and number == 0:
            number = 2
        other = s.constant(np.full(s.choices.of([(), (1,)]), number), x.dtype)
        x = s.emit(kind, [x, other], [(x.dtype, x.shape or other.shape)], bound=3 * x.bound + 3)[0]
    back: dict[str, Any] = {"to": s.style.dtype if s.choices.flag() else FLOAT}
    return s.emit("Cast", [x], [(back["to"], x.shape)], **back)[0]
