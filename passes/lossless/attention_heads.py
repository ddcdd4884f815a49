"""Where the queries, keys and values of an attention come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims, Item
from ..analysis.values import Facts
from ..graph import graph_of, is_op
from .constants import resolved_constant

Part: TypeAlias = tuple[int, int]
"""Which of how many equal parts of a projection."""


@dataclass(frozen=True)
class Heads:
    """A tensor whose heads stand side by side: ``[batch, length, heads, size]`` in memory.

    Attributes:
        value: Has these four axes, or ``[batch, length, parts, heads, size]``; or it is ``whole``.
        whole: The same with three axes, if there is such a value.
        part: Which of the parts it is, if there are several.
        heads: How many heads there are.
        size: How wide each head is.
        batch: The size of the first axis.
        length: The size of the second axis.
        scale: What it is multiplied by on its way into the attention.
    """

    value: ir.Value
    whole: ir.Value | None
    part: Part | None
    heads: int
    size: int
    batch: Item
    length: Item
    scale: float


def trace(value: ir.Value, axes: str, graph: ir.Graph, facts: Facts) -> Heads | str:
    """Follow ``value`` back to where its heads stand side by side, or say why that fails.

    ``axes`` names the axes of ``value``: batch, heads, length and depth by their first letters.
    """
    part: Part | None = None
    scale = 1.0
    while axes not in {"BLHD", "BLPHD"}:
        node = value.producer()
        if node is None or graph_of(node) is not graph:
            return "its heads are split in another graph"
        if part is None and (split := _split_after(node, value, axes, facts)) is not None:
            return replace(split, scale=scale)
        step = step_back(node, value, axes, facts)
        if step is None:
            return f"its heads come from {node.op_type}"
        value, axes, factor, found = step
        scale, part = scale * factor, found or part
    dims = facts.dims(value)
    if dims is None or len(dims) != len(axes):
        return "the sizes of its heads are not known"
    heads, size = dims[-2:]
    if not (isinstance(heads, int) and isinstance(size, int)):
        return "the number of its heads is not known"
    if part is not None and dims[2] != part[1]:
        return "the number of its parts is not known"
    whole = _whole(value, dims, facts)
    return Heads(value, whole, part, heads, size, dims[0], dims[1], scale)


def _split_after(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> Heads | None:
    """Heads that are split only after lengths and widths were swapped.

    ``[batch, length, heads * size]`` becomes ``[batch, heads * size, length]``, then ``value``.
    """
    swapped = node.inputs[0] if is_op(node, "Reshape") and axes == "BHDL" else None
    transpose = None if swapped is None else swapped.producer()
    if not is_op(transpose, "Transpose") or (whole := transpose.inputs[0]) is None:
        return None
    before, after = facts.dims(whole), facts.dims(value)
    if tuple(transpose.attributes.get_ints("perm", ())) != (0, 2, 1) or before is None:
        return None
    if after is None or len(before) != 3:
        return None
    batch, heads, size, length = after
    if not (isinstance(heads, int) and isinstance(size, int)):
        return None
    if before != (batch, length, heads * size):
        return None
    return Heads(whole, whole, None, heads, size, batch, length, 1.0)


def _whole(value: ir.Value, dims: Dims, facts: Facts) -> ir.Value | None:
    """What was reshaped to ``value``, if it has the same first two axes and one more."""
    node = value.producer()
    source = node.inputs[0] if is_op(node, "Reshape") else None
    if source is None or (before := facts.dims(source)) is None:
        return None
    width = math.prod(size for size in dims[2:] if isinstance(size, int))
    return source if before == (*dims[:2], width) else None


_Step: TypeAlias = tuple[ir.Value, str, float, Part | None]


def step_back(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    """What ``value``, an output of ``node``, is computed from, with its axes."""
    rule = _STEPS.get(node.op_type)
    if rule is None or node.domain or any(a.is_ref() for a in node.attributes.values()):
        return None
    return rule(node, value, axes, facts)


def _transpose(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    del value, facts
    perm = node.attributes.get_ints("perm", ())
    source = node.inputs[0]
    if source is None or sorted(perm) != list(range(len(axes))):
        return None
    before = dict(zip(perm, axes, strict=True))
    return source, "".join(before[axis] for axis in range(len(axes))), 1.0, None


def scaled(node: ir.Node, facts: Facts) -> tuple[ir.Value, float] | None:
    """What ``node`` multiplies by a number, and the number; its answer has the same axes."""
    if not is_op(node, "Mul", "Div"):
        return None
    for index in (0, 1) if node.op_type == "Mul" else (0,):
        source, array = node.inputs[index], resolved_constant(node.inputs[1 - index])
        if source is None or array is None or array.size != 1 or array.dtype != np.float32:
            continue
        if array.ndim <= len(facts.dims(source) or ()):
            number = float(array.reshape(-1)[0])
            if node.op_type == "Mul":
                return source, number
            return (source, 1 / number) if number else None
    return None


def _scale(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    del value
    found = scaled(node, facts)
    return None if found is None else (found[0], axes, found[1], None)


def _squeeze(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    """A part that is cut out along an axis and loses the axis."""
    del value
    cut = node.inputs[0]
    if cut is None or "P" in axes or (taken := cut.producer()) is None:
        return None
    dims, where = facts.dims(cut), _squeezed(node)
    if dims is None or where is None or len(dims) != len(axes) + 1:
        return None
    where %= len(dims)
    index = _taken(taken, cut, where, facts)
    return None if index is None else _from_parts(taken, where, index, axes, facts)


def _squeezed(node: ir.Node) -> int | None:
    array = resolved_constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attributes.get_ints("axes", ()) if array is None else array.reshape(-1).tolist()
    return int(axes[0]) if len(axes) == 1 else None


def _taken(node: ir.Node, value: ir.Value, where: int, facts: Facts) -> int | None:
    """The index of the one element along axis ``where`` that ``node`` takes as ``value``."""
    dims = facts.dims(value)
    if dims is None or dims[where] != 1 or node.domain:
        return None
    if node.op_type == "Split":
        parts = [facts.dims(output) for output in node.outputs]
        axis = node.attributes.get_int("axis", 0) % len(dims)
        alike = all(part is not None and part[where] == 1 for part in parts)
        return value.index() if axis == where and alike else None
    if node.op_type != "Slice":
        return None
    known = [resolved_constant(operand) for operand in node.inputs[1:]]
    lists = [array.tolist() for array in known if array is not None]
    if len(lists) < max(len(known), 3) or len(lists[0]) != 1:
        return None
    starts, _, axes, *steps = lists
    one = axes[0] % len(dims) == where and all(step == [1] for step in steps)
    return int(starts[0]) if one and starts[0] >= 0 else None


def _gather(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    """A part that a single index takes along an axis."""
    del value
    array = resolved_constant(node.inputs[1])
    if array is None or array.ndim or array < 0 or "P" in axes:
        return None
    where = node.attributes.get_int("axis", 0) % (len(axes) + 1)
    return _from_parts(node, where, int(array), axes, facts)


def _from_parts(node: ir.Node, where: int, index: int, axes: str, facts: Facts) -> _Step | None:
    source = node.inputs[0]
    dims = None if source is None else facts.dims(source)
    if source is None or dims is None or len(dims) != len(axes) + 1:
        return None
    count = dims[where]
    if not isinstance(count, int) or index >= count:
        return None
    return source, f"{axes[:where]}P{axes[where:]}", 1.0, (index, count)


def _reshape(node: ir.Node, value: ir.Value, axes: str, facts: Facts) -> _Step | None:
    """The last two axes swapped while those before them are one."""
    turned = node.inputs[0]
    transpose = None if turned is None else turned.producer()
    if not is_op(transpose, "Transpose") or transpose.inputs[0] is None or len(axes) != 4:
        return None
    joined = transpose.inputs[0]
    join = joined.producer()
    if not is_op(join, "Reshape") or (source := join.inputs[0]) is None:
        return None
    if tuple(transpose.attributes.get_ints("perm", ())) != (0, 2, 1):
        return None
    before, between, after = facts.dims(source), facts.dims(joined), facts.dims(value)
    if before is None or between is None or after is None:
        return None
    swapped = (*after[:2], after[3], after[2])
    if (len(before), len(between)) != (4, 3) or between[1:] != before[2:]:
        return None
    if not _alike(swapped, before):
        return None
    return source, f"{axes[:2]}{axes[3]}{axes[2]}", 1.0, None


def _alike(one: Dims, other: Dims) -> bool:
    """Whether two shapes with equally many elements are the same: all but one size are."""
    return sum(a != b for a, b in zip(one, other, strict=True)) <= 1


_STEPS: dict[str, Callable[[ir.Node, ir.Value, str, Facts], _Step | None]] = {
    "Transpose": _transpose,
    "Mul": _scale,
    "Div": _scale,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Reshape": _reshape,
}
