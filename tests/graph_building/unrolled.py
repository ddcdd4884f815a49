"""Loops that an exporter unrolled: the same computed slice by slice."""

from __future__ import annotations

import numpy as np

from tests.graph_building.axes import axes_of, fixed_axis
from tests.graph_building.builder import FLOAT, Scope, Tensor
from tests.graph_building.registry import operator


@operator(weight=2)
def unrolled(s: Scope) -> Tensor:
    """Slices of a tensor, each taken through the same steps and joined again."""
    x = s.floats(2, most=50)
    found = fixed_axis(s, x, 2)
    if found is None or found[1] > 4 or s.style.opset < 10:
        return x
    axis, count = found
    whole = s.choices.below(3) > 0
    parts = [_cut(s, x, axis, number) for number in range(count if whole else 2)]
    drops = s.choices.flag()
    if drops:
        more, attributes = axes_of(s, "Squeeze", [axis])
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        parts = [
            s.emit("Squeeze", [part, *more], [(part.dtype, shape)], **attributes)[0]
            for part in parts
        ]
    for _ in range(1 + s.choices.below(2)):
        parts = _step(s, parts)
    if drops:
        axis = s.choices.below(parts[0].rank + 1)
        more, attributes = axes_of(s, "Unsqueeze", [axis])
        shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
        parts = [
            s.emit("Unsqueeze", [part, *more], [(part.dtype, shape)], **attributes)[0]
            for part in parts
        ]
    first = parts[0]
    if not isinstance(first.shape[axis], int):
        return first
    total = len(parts) * int(first.shape[axis])
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return s.emit("Concat", parts, [(x.dtype, shape)], axis=axis)[0]


def _cut(s: Scope, x: Tensor, axis: int, number: int) -> Tensor:
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    if s.choices.below(3) == 1:
        index = s.constant(np.array([number]))
        return s.emit("Gather", [x, index], [(x.dtype, shape)], axis=axis)[0]
    inputs = [x, s.ints(number), s.ints(number + 1), s.ints(axis)]
    return s.emit("Slice", inputs, [(x.dtype, shape)])[0]


def _step(s: Scope, parts: list[Tensor]) -> list[Tensor]:
    first = parts[0]
    kind = s.choices.of(["Relu", "Add", "MatMul", "Softmax", "Transpose"])
    size = first.fixed(-1) if first.rank else None
    if kind == "MatMul" and first.rank >= 2 and size is not None:
        shape = (*first.shape[:-1], 3)
        weight = s.weights(size[0], 3)
        own = s.choices.flag()
        return [
            s.emit(
                "MatMul",
                [part, s.weights(size[0], 3) if own else weight],
                [(part.dtype, shape)],
                bound=part.bound * 20,
            )[0]
            for part in parts
        ]
    if kind == "Add" and size is not None:
        bias = s.weights(size[0])
        return [s.add("Add", [part, bias], part, bound=part.bound + 4) for part in parts]
    if kind == "Softmax" and first.rank and first.dtype == FLOAT and not first.is_empty:
        return [s.add("Softmax", [part], part, axis=first.rank - 1) for part in parts]
    if kind == "Transpose" and first.rank:
        shape = first.shape[::-1]
        return [s.emit("Transpose", [part], [(part.dtype, shape)])[0] for part in parts]
    return [s.add("Relu", [part], part) for part in parts]
