"""The sizes that frequent operators answer, without asking ``onnx.shape_inference`` node by node.

Each rule follows the operator's definition (https://onnx.ai/onnx/operators). It knows sizes by
name where they are copied, and raises :class:`NotFollowedError` in cases that are left to ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from .partial import Call, Dims, Item, UnknownError


class NotFollowedError(Exception):
    """A rule leaves this node to ``onnx.shape_inference``."""


def join(shapes: Sequence[Sequence[Item]]) -> list[Item]:
    """The sizes of several shapes broadcast together."""
    rank = max(map(len, shapes))
    return [
        _widest({shape[axis] for shape in shapes if len(shape) >= -axis} - {1})
        for axis in range(-rank, 0)
    ]


def _widest(sizes: set[Item]) -> Item:
    """What sizes other than 1 broadcast to: a fixed one wins over a name, which may be 1."""
    fixed = [size for size in sizes if isinstance(size, int)]
    if fixed or not sizes:
        return fixed[0] if fixed else 1
    left = {size for size in sizes if not any(_is_cut(size, other) for other in sizes)}
    return next(iter(left)) if len(left) == 1 else None


def _cut(size: int, end: str) -> str:
    """The name of the smaller of ``size`` and the size called ``end``."""
    return f"min({end},{size})"


def _is_cut(size: Item, whole: Item) -> bool:
    """Whether ``size`` broadcasts with ``whole`` only where it is no smaller.

    It is ``whole`` or a number above 1, whichever is smaller: positions up to the sequence's length
    are added to the sequence.
    """
    if not isinstance(size, str) or not size.startswith(f"min({whole},"):
        return False
    bound = size.removeprefix(f"min({whole},").removesuffix(")")
    return bound.isdecimal() and int(bound) > 1


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise UnknownError
    return axis % rank


def _transpose(call: Call) -> Sequence[Item]:
    dims = call.dims()
    perm = call.node.attributes.get_ints("perm", ()) or range(len(dims) - 1, -1, -1)
    if sorted(perm) != list(range(len(dims))):
        raise UnknownError
    return [dims[axis] for axis in perm]


def _squeeze(call: Call) -> Sequence[Item]:
    dims, axes = call.dims(), call.numbers(1, "axes")
    if axes is None:
        if call.has(1) or not all(isinstance(size, int) for size in dims):
            raise UnknownError
        return [size for size in dims if size != 1]
    gone = {_axis(axis, len(dims)) for axis in axes}
    return [size for axis, size in enumerate(dims) if axis not in gone]


def _unsqueeze(call: Call) -> Sequence[Item]:
    dims, axes = call.dims(), call.numbers(1, "axes")
    if axes is None:
        raise UnknownError
    rank = len(dims) + len(axes)
    new = {_axis(axis, rank) for axis in axes}
    if len(new) < len(axes):
        raise UnknownError
    rest = iter(dims)
    return [1 if axis in new else next(rest) for axis in range(rank)]


def _concat(call: Call) -> Sequence[Item]:
    shapes = [call.dims(index) for index in range(len(call.node.inputs))]
    rank = len(shapes[0])
    if "axis" not in call.node.attributes or any(len(shape) != rank for shape in shapes):
        raise NotFollowedError
    where = _axis(call.number("axis", 0), rank)
    joined: list[Item] = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        fixed = [size for size in sizes if isinstance(size, int)]
        if axis == where:
            joined.append(sum(fixed) if len(fixed) == len(sizes) else None)
        else:
            joined.append(fixed[0] if fixed else sizes[0])
    return joined


def _gather(call: Call) -> Sequence[Item]:
    dims, picks = call.dims(), call.dims(1)
    axis = _axis(call.number("axis", 0), len(dims))
    return [*dims[:axis], *picks, *dims[axis + 1 :]]


def _slice(call: Call) -> Sequence[Item]:
    dims: list[Item] = list(call.dims())
    starts, ends = call.numbers(1, "starts"), _ends(call)
    if starts is None or ends is None:
        raise NotFollowedError
    axes, steps = call.numbers(3, "axes"), call.numbers(4, "steps")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = _axis(axis, len(dims))
        size = dims[place]
        if step == 0:
            raise UnknownError
        if end is None:
            dims[place] = None
        elif isinstance(end, str):
            from_start = (start, step) == (0, 1)
            dims[place] = _cut(size, end) if from_start and isinstance(size, int) else None
        elif isinstance(size, int):
            dims[place] = _taken(size, start, end, step)
        elif (start, step) != (0, 1) or end < 2**31 - 1:
            dims[place] = None
    return dims


def _ends(call: Call) -> Sequence[Item] | None:
    """Where the slices end; some may be known by name or not at all."""
    if not call.has(2):
        return call.numbers(2, "ends")
    return list(call.partial(2).items.flat)


def _taken(size: int, start: int, end: int, step: int) -> int:
    """How many elements a slice takes: as in Python, but that it starts within the axis."""
    if step < 0 and start < -size:
        start = -size  # which is the first element, where Python starts before it
    return len(range(*slice(start, end, step).indices(size)))


def _flatten(call: Call) -> Sequence[Item]:
    dims, axis = call.dims(), call.number("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [_product(dims[:axis]), _product(dims[axis:])]


def _product(dims: Dims) -> Item:
    fixed = math.prod(size for size in dims if isinstance(size, int))
    names = [size for size in dims if not isinstance(size, int)]
    if not names or fixed == 0:
        return fixed
    return names[0] if len(names) == 1 and fixed == 1 else None


def _matmul(call: Call) -> Sequence[Item]:
    left, right = call.dims(0), call.dims(1)
    if len(left) < 2 or len(right) < 2:
        raise NotFollowedError
    batch = join([left[:-2], right[:-2]]) if len(left) + len(right) > 4 else []
    return [*batch, left[-2], right[-1]]


def _gemm(call: Call) -> Sequence[Item]:
    left, right = call.dims(0), call.dims(1)
    if len(left) != 2 or len(right) != 2:
        raise UnknownError
    return [left[call.number("transA", 0) != 0], right[call.number("transB", 0) == 0]]


def _reduce(call: Call) -> Sequence[Item]:
    dims, axes = call.dims(), call.numbers(1, "axes")
    if not axes:
        if axes is None and call.has(1):
            raise NotFollowedError
        axes = [] if call.number("noop_with_empty_axes", 0) else list(range(len(dims)))
    gone = {_axis(axis, len(dims)) for axis in axes}
    if call.number("keepdims", 1):
        return [1 if axis in gone else size for axis, size in enumerate(dims)]
    return [size for axis, size in enumerate(dims) if axis not in gone]


def _pad(call: Call) -> Sequence[Item]:
    dims, pads = call.dims(), call.numbers(1, "pads")
    if pads is None or call.has(3) or len(pads) != 2 * len(dims):
        raise NotFollowedError
    both = zip(dims, pads[: len(dims)], pads[len(dims) :], strict=True)
    return [_grown(size, before + after) for size, before, after in both]


def _grown(size: Item, by: int) -> Item:
    return size + by if isinstance(size, int) else size if by == 0 else None


def _conv(call: Call) -> Sequence[Item]:
    dims, weight = call.dims(0), call.dims(1)
    if len(dims) != len(weight):
        raise UnknownError
    kernel = call.node.attributes.get_ints("kernel_shape", ()) or weight[2:]
    return [dims[0], weight[0], *_windows(call, dims[2:], kernel)]


def _pool(call: Call) -> Sequence[Item]:
    if call.number("ceil_mode", 0) or len(call.node.outputs) > 1:
        raise NotFollowedError
    dims = call.dims()
    kernel = call.node.attributes.get_ints("kernel_shape", ())
    return [*dims[:2], *_windows(call, dims[2:], kernel)]


def _windows(call: Call, dims: Dims, kernel: Sequence[Item]) -> list[Item]:
    """How many windows of ``kernel`` there are along each axis of ``dims``."""
    attributes, rank = call.node.attributes, len(dims)
    strides = attributes.get_ints("strides", (1,) * rank)
    dilations = attributes.get_ints("dilations", (1,) * rank)
    pads = attributes.get_ints("pads", (0,) * 2 * rank)
    mode = attributes.get_string("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return [_divided(size, stride) for size, stride in zip(dims, strides, strict=True)]
    if mode == "VALID":
        pads = (0,) * 2 * rank
    answer: list[Item] = []
    for axis, (size, taps) in enumerate(zip(dims, kernel, strict=True)):
        if not isinstance(taps, int):
            answer.append(None)
            continue
        lost = dilations[axis] * (taps - 1) - pads[axis] - pads[axis + rank]
        if isinstance(size, int):
            answer.append((size - lost - 1) // strides[axis] + 1)
        else:
            answer.append(size if lost == 0 and strides[axis] == 1 else None)
    return answer


def _divided(size: Item, by: int) -> Item:
    """``size / by``, rounded up."""
    return -(-size // by) if isinstance(size, int) else size if by == 1 else None


def _global_pool(call: Call) -> Sequence[Item]:
    dims = call.dims()
    return [*dims[:2], *(1 for _ in dims[2:])]


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

OPERATOR_DIMS: Final[dict[str, Callable[[Call], Sequence[Item]]]] = {
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    **{f"Reduce{kind}": _reduce for kind in _REDUCTIONS},
}
"""For each operator the sizes of its first output; ``None`` for one that is not known."""
