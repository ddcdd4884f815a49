"""What exporters compute from the shapes of tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from tests.graph_building.builder import BOOL, FLOAT, INT64, Dim, Scope, Tensor
from tests.graph_building.registry import operator


def shape_of(s: Scope, x: Tensor) -> Tensor:
    """The sizes of ``x`` as a vector."""
    return s.emit("Shape", [x], [(INT64, (x.rank,))], bound=16)[0]


def size_of(s: Scope, x: Tensor, axis: int, *, scalar: bool = False) -> Tensor:
    """The size of one axis, as a vector or without axes."""
    shape = shape_of(s, x)
    if scalar:
        index = s.constant(np.array(axis))
        return s.emit("Gather", [shape, index], [(INT64, ())], bound=16)[0]
    if s.style.opset >= 10 and s.choices.flag():
        # ONNX Runtime takes the sizes of a Resize for empty where these are computed.
        inputs = [shape, *(s.ints(one, plain=True) for one in (axis, axis + 1, 0))]
        return s.emit("Slice", inputs, [(INT64, (1,))], bound=16)[0]
    return s.emit("Gather", [shape, s.ints(axis)], [(INT64, (1,))], bound=16)[0]


def _full(s: Scope, least: int = 1) -> Tensor:
    """A float tensor that has elements and axes."""
    return s.pick(lambda one: one.rank >= least and not one.is_empty, (2, 4, 5)[: max(least, 2)])


def _joined(s: Scope, *parts: Tensor) -> Tensor:
    length = sum(part.shape[0] for part in parts)  # type: ignore[misc]
    return s.emit("Concat", list(parts), [(INT64, (length,))], axis=0, bound=16)[0]


@operator(weight=2)
def flatten_by_shape(s: Scope) -> Tensor:
    x = _full(s, 2)
    sizes = x.fixed(*range(1, x.rank))
    if sizes is None:
        return x
    target = _joined(s, size_of(s, x, 0), s.ints(-1))
    return s.emit("Reshape", [x, target], [(x.dtype, (x.shape[0], math.prod(sizes)))])[0]


@operator()
def split_last_axis(s: Scope) -> Tensor:
    """As attention splits its heads: every size but the last two is computed."""
    x = s.pick(lambda one: one.rank >= 2 and one.shape[-1] == 4, (2, 3, 4))
    if x.shape[-1] != 4 or x.is_empty:
        return x
    parts = [size_of(s, x, axis) for axis in range(x.rank - 1)]
    shape = (*x.shape[:-1], 2, 2)
    return s.emit("Reshape", [x, _joined(s, *parts, s.ints(2, 2))], [(x.dtype, shape)])[0]


@operator()
def halve_first_axes(s: Scope) -> Tensor:
    """A target whose one size is computed by arithmetic."""
    x = _full(s, 2)
    rows, columns = x.shape[:2]
    if not isinstance(columns, int) or columns % 2 or x.rank != 2:
        return x
    half = s.emit("Div", [size_of(s, x, 1), s.ints(2)], [(INT64, (1,))], bound=16)[0]
    target = _joined(s, size_of(s, x, 0), s.ints(2), half)
    return s.emit("Reshape", [x, target], [(x.dtype, (rows, 2, columns // 2))])[0]


@operator(weight=2)
def expand_like(s: Scope) -> Tensor:
    x = _full(s, 1)
    last = x.fixed(x.rank - 1)
    row = s.weights(*last) if last else s.weights(1)
    target = shape_of(s, x)
    if s.choices.flag():  # as PyTorch exports expand()
        ones = s.emit("ConstantOfShape", [s.ints(x.rank)], [(INT64, (x.rank,))],
                      value=onnx.numpy_helper.from_array(np.array([1])))[0]  # fmt: skip
        minus = s.add("Mul", [ones, s.scalar(-1, INT64)], ones)
        if s.style.opset >= 11:
            equal = s.emit("Equal", [target, minus], [(BOOL, (x.rank,))])[0]
            target = s.add("Where", [equal, ones, target], target)
    return s.emit("Expand", [row, target], [(row.dtype, x.shape)])[0]


@operator()
def filled_like(s: Scope) -> Tensor:
    x = _full(s, 1)
    kind = [(x.dtype, x.shape)]
    value = onnx.helper.make_tensor("", x.dtype, [1], [s.choices.of([0.0, 0.5])])
    filled = s.emit("ConstantOfShape", [shape_of(s, x)], kind, value=value, bound=1.0)[0]
    return s.add("Add", [x, filled], x, bound=x.bound + 1)


@operator(since=11)
def positions(s: Scope) -> Tensor:
    x = _full(s, 1)
    axis = s.choices.below(x.rank)
    scalars = [s.scalar(0, INT64), size_of(s, x, axis, scalar=True), s.scalar(1, INT64)]
    line = s.emit("Range", scalars, [(INT64, (x.shape[axis],))], bound=16)[0]
    floats = s.emit("Cast", [line], [(x.dtype, line.shape)], to=x.dtype)[0]
    if axis == x.rank - 1:
        return s.add("Add", [x, floats], x, bound=x.bound + 16)
    return floats


@operator(since=11, double=False)
def resize_to(s: Scope) -> Tensor:
    x = s.pick(
        lambda one: one.rank == 4 and one.dtype == FLOAT and one.fixed(1, 2, 3) is not None,
        (2, 2, 3, 4),
        FLOAT,
    )
    if (x.fixed(2, 3) or (0, 0)) == (0, 0):
        return x
    empty = s.constant(np.zeros(0, np.float32)) if s.style.opset < 13 else None
    sizes = _joined(s, size_of(s, x, 0), size_of(s, x, 1), s.ints(5, 6))
    kind = [(x.dtype, (*x.shape[:2], 5, 6))]
    return s.emit("Resize", [x, empty, empty, sizes], kind, mode="nearest")[0]


@operator(since=10)
def first_half(s: Scope) -> Tensor:
    x = _full(s, 1)
    size = x.shape[-1]
    if not isinstance(size, int) or size < 2:
        return x
    end = s.emit("Div", [size_of(s, x, x.rank - 1), s.ints(2)], [(INT64, (1,))], bound=16)[0]
    shape: tuple[Dim, ...] = (*x.shape[:-1], size // 2)
    return s.emit("Slice", [x, s.ints(0), end, s.ints(x.rank - 1)], [(x.dtype, shape)])[0]


@operator()
def reshape_like(s: Scope) -> Tensor:
    x = _full(s, 1)
    changed = s.emit("Neg", [x], [(x.dtype, x.shape)])[0]
    flat = s.emit("Reshape", [changed, s.ints(-1)], [(x.dtype, ("?",))])[0]
    s.tensors.remove(flat)  # nothing else knows its size
    return s.emit("Reshape", [flat, shape_of(s, x)], [(x.dtype, x.shape)])[0]


@operator()
def element_count(s: Scope) -> Tensor:
    x = _full(s, 1)
    count = s.emit("Size", [x], [(INT64, ())], bound=1000)[0]
    return s.emit("Cast", [count], [(s.style.dtype, ())], to=s.style.dtype)[0]


@operator(since=15)
def part_of_shape(s: Scope) -> Tensor:
    x = _full(s, 2)
    start = s.choices.of([1, -1, 0])
    attributes: dict[str, Any] = s.choices.of(
        [{"start": start}, {"start": start, "end": x.rank}, {"end": -1}]
    )
    left = len(range(x.rank)[attributes.get("start", 0) : attributes.get("end", x.rank)])
    return s.emit("Shape", [x], [(INT64, (left,))], bound=16, **attributes)[0]
