"""What moves, repeats or picks elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.graph_building.axes import an_axis, axes_of, fixed_axis
from tests.graph_building.builder import BATCH, FLOAT, INT64, Dim, Scope, Tensor
from tests.graph_building.registry import operator


@operator(weight=2)
def transpose(s: Scope) -> Tensor:
    x = s.floats(2)
    turn = 1 + s.choices.below(x.rank - 1)
    axes = [(axis + turn) % x.rank for axis in range(x.rank)]
    if s.choices.below(3) == 1:
        axes = list(range(x.rank))[::-1]
        return s.emit("Transpose", [x], [(x.dtype, x.shape[::-1])])[0]
    return s.emit("Transpose", [x], [(x.dtype, [x.shape[axis] for axis in axes])], perm=axes)[0]


@operator(weight=2)
def reshape(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(*range(1, one.rank)) is not None, (2, 3, 4))
    rest = math.prod(x.fixed(*range(1, x.rank)) or (1,))
    shape: tuple[Dim, ...]
    target, shape = s.choices.of(
        [
            ((0, -1), (x.shape[0], rest)),
            ((-1, rest), (x.shape[0], rest)),
            ((0, rest, 1), (x.shape[0], rest, 1)),
            ((-1, 1, 1, rest), (x.shape[0], 1, 1, rest)),
        ]
    )
    if x.is_empty:
        target = (0, rest)
        shape = (x.shape[0], rest)
    return s.emit("Reshape", [x, s.ints(*target)], [(x.dtype, shape)])[0]


@operator()
def flatten(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(*range(1, one.rank)) is not None, (2, 3, 4))
    rest = math.prod(x.fixed(*range(1, x.rank)) or (1,))
    return s.emit("Flatten", [x], [(x.dtype, (x.shape[0], rest))])[0]


@operator()
def unsqueeze(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank <= 4, (2, 3))
    axis = s.choices.below(x.rank + 1)
    more, attributes = axes_of(s, "Unsqueeze", [axis])
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    return s.emit("Unsqueeze", [x, *more], [(x.dtype, shape)], **attributes)[0]


@operator()
def squeeze(s: Scope) -> Tensor:
    x = s.pick(lambda one: 1 in one.shape, (2, 1, 3))
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    if not ones:
        return x
    axis = s.choices.of(ones)
    more, attributes = axes_of(s, "Squeeze", [axis])
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return s.emit("Squeeze", [x, *more], [(x.dtype, shape)], **attributes)[0]


@operator(weight=2)
def concat(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x)
    if found is None:
        return x
    axis, size = found
    others = [
        one
        for one in s.visible()
        if one.dtype == x.dtype
        and one.rank == x.rank
        and one.shape[:axis] + one.shape[axis + 1 :] == x.shape[:axis] + x.shape[axis + 1 :]
        and one.fixed(axis) is not None
    ]
    other = s.choices.of(others[:3]) if others else x
    parts = [x, other, x][: s.choices.of([2, 3, 1])]
    total = sum(one.shape[axis] for one in parts)  # type: ignore[misc]
    if total > 16:
        parts, total = [x], size
    shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
    written = axis - x.rank if s.style.opset >= 11 and s.choices.flag() else axis
    return s.emit("Concat", parts, [(x.dtype, shape)], axis=written)[0]


@operator(weight=2)
def split(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x, 2)
    if found is None:
        return x
    axis, size = found
    first = 1 + s.choices.below(size - 1)
    sizes = [first, size - first]
    outputs = [(x.dtype, (*x.shape[:axis], part, *x.shape[axis + 1 :])) for part in sizes]
    if s.style.opset >= 13:
        return s.emit("Split", [x, s.ints(*sizes)], outputs, axis=axis)[-1]
    return s.emit("Split", [x], outputs, axis=axis, split=sizes)[-1]


@operator(weight=2)
def slice_(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x)
    if found is None:
        return x
    axis, size = found
    start = s.choices.below(size)
    end = s.choices.of([size, 2**40, -1, start])  # the last one leaves nothing
    step = s.choices.of([1, 2, -1]) if s.style.opset >= 10 else 1
    if step < 0:
        start, end = size - 1, -size - 1
    left = len(range(size)[start:end:step])
    shape = (*x.shape[:axis], left, *x.shape[axis + 1 :])
    kind = [(x.dtype, shape)]
    if s.style.opset < 10:
        return s.emit("Slice", [x], kind, starts=[start], ends=[end], axes=[axis])[0]
    inputs = [x, s.ints(start), s.ints(end), s.ints(axis), s.ints(step)]
    return s.emit("Slice", inputs[: 5 if step != 1 else 4], kind)[0]


@operator(weight=2)
def gather(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x)
    if found is None:
        return x
    axis, size = found
    wanted = s.choices.of([0, -1 if s.style.opset >= 11 else 0, size - 1])
    index = s.choices.of([np.array(wanted), np.array([wanted, 0]), np.array([[0], [wanted]])])
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    if len(shape) > 5:
        return x
    return s.emit("Gather", [x, s.constant(index)], [(x.dtype, shape)], axis=axis)[0]


@operator()
def look_up(s: Scope) -> Tensor:
    """Rows of a table, by the indices of an input of their own or of an ``ArgMax``."""
    table = s.weights(7, 3)
    known = [one for one in s.visible() if one.dtype == INT64 and one.bound < 7 and one.rank < 3]
    index = s.choices.of(known[:2]) if known else s.constant(np.array([[1, 6], [0, 3]]))
    return s.emit("Gather", [table, index], [(table.dtype, (*index.shape, 3))], bound=4)[0]


@operator(since=11)
def gather_elements(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and one.fixed() is not None, (2, 3))
    if x.fixed() is None:
        return x
    axis, written = an_axis(s, x)
    sizes = [int(size) for size in x.shape]
    index = s.style.rng.integers(0, sizes[axis], sizes)
    return s.add("GatherElements", [x, s.constant(index)], x, axis=written)


@operator()
def pad(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x, 2)
    if found is None:
        return x
    axis, size = found
    before, after = s.choices.of([(1, 0), (1, 1), (0, 0)])
    mode = s.choices.of(["constant", "edge", "reflect"]) if not x.is_empty else "constant"
    pads = [0] * 2 * x.rank
    pads[axis], pads[axis + x.rank] = before, after
    shape = (*x.shape[:axis], size + before + after, *x.shape[axis + 1 :])
    kind = [(x.dtype, shape)]
    if s.style.opset < 11:
        return s.emit("Pad", [x], kind, pads=pads, mode=mode, value=0.5)[0]
    inputs = [x, s.ints(*pads), s.scalar(0.5, x.dtype)]
    return s.emit("Pad", inputs[: s.choices.of([2, 3])], kind, mode=mode)[0]


@operator()
def tile(s: Scope) -> Tensor:
    x = s.floats(1)
    found = fixed_axis(s, x)
    if found is None or found[1] > 6:
        return x
    axis, size = found
    repeats = [1] * x.rank
    repeats[axis] = 2
    shape = (*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return s.emit("Tile", [x, s.ints(*repeats)], [(x.dtype, shape)])[0]


@operator()
def expand(s: Scope) -> Tensor:
    x = s.floats()
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    target: list[int] = [1] * x.rank
    shape = list(x.shape)
    if ones:
        axis = s.choices.of(ones)
        target[axis] = 3
        shape[axis] = 3
    if x.rank < 4:
        target, shape = [2, *target], [2, *shape]
    return s.emit("Expand", [x, s.ints(*target)], [(x.dtype, shape)])[0]


@operator()
def space_and_depth(s: Scope) -> Tensor:
    x = s.pick(
        lambda one: one.rank == 4 and one.dtype == FLOAT and one.fixed(1, 2, 3) is not None,
        (2, 4, 4, 4),
        FLOAT,
    )
    channels, height, width = x.fixed(1, 2, 3) or (1, 1, 1)
    if channels % 4 == 0 and height <= 6:
        shape = (x.shape[0], channels // 4, 2 * height, 2 * width)
        return s.emit("DepthToSpace", [x], [(x.dtype, shape)], blocksize=2)[0]
    if height % 2 == 0 and width % 2 == 0:
        shape = (x.shape[0], channels * 4, height // 2, width // 2)
        return s.emit("SpaceToDepth", [x], [(x.dtype, shape)], blocksize=2)[0]
    return x


_RESIZES: tuple[dict[str, Any], ...] = (
    {"mode": "nearest"},
    {"mode": "linear"},
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
)


@operator(since=11, double=False)
def resize(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank == 4 and one.fixed(1, 2, 3) is not None, (2, 2, 3, 4))
    channels, height, width = x.fixed(1, 2, 3) or (1, 1, 1)
    if max(height, width) > 6:
        return x
    shape = (x.shape[0], channels, 2 * height, 2 * width)
    attributes: dict[str, Any] = s.choices.of(_RESIZES)
    scales = s.constant(np.array([1, 1, 2, 2], np.float32), plain=True)
    region = s.constant(np.zeros(0, np.float32)) if s.style.opset < 13 else None
    return s.emit("Resize", [x, region, scales], [(x.dtype, shape)], **attributes)[0]


@operator(since=14)
def triangle(s: Scope) -> Tensor:
    x = s.floats(2)
    return s.add("Trilu", [x], x, upper=int(s.choices.flag()))


@operator(since=11)
def sequence(s: Scope) -> Tensor:
    """Into a sequence of tensors and out again."""
    x = s.floats(1)
    made = s.emit("SequenceConstruct", [x, x], [(x.dtype, x.shape)])[0]
    s.tensors.remove(made)  # it is no tensor
    return s.add("SequenceAt", [made, s.constant(np.array(1))], x)


@operator()
def empty(s: Scope) -> Tensor:
    """A constant without elements, joined to something."""
    x = s.floats(2)
    if not isinstance(x.shape[-1], int) or x.fixed(*range(1, x.rank)) is None:
        return x
    sizes = [0 if axis == x.rank - 1 else size for axis, size in enumerate(x.shape)]
    if BATCH in sizes:
        shape: list[Dim] = [*sizes]
        nothing = (
            s.emit("Slice", _nothing(s, x), [(x.dtype, shape)])[0] if (s.style.opset >= 10) else x
        )
    else:
        nothing = s.constant(np.zeros([int(size) for size in sizes]), x.dtype)
    if nothing is x:
        return x
    return s.emit("Concat", [x, nothing], [(x.dtype, x.shape)], axis=x.rank - 1)[0]


def _nothing(s: Scope, x: Tensor) -> list[Tensor]:
    return [x, s.ints(0), s.ints(0), s.ints(x.rank - 1)]
