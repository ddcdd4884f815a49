"""What is added to the scores of an attention: its sizes, and how far down its values go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Item
from ..analysis.values import Facts
from ..base import Array
from ..graph import is_op
from .constants import resolve, resolved_constant

LOWEST: Final = float(np.finfo(np.float32).min)
ABSORBING: Final = LOWEST / 2
"""Added to any score it gives itself, as the lowest number does, and it is not the lowest."""

_MOVES = frozenset({
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose answer holds no other values than their first input."""
_DEPTH = 24
"""How many operators a value is followed back through; half as many behind a choice of two."""


@dataclass(frozen=True)
class Range:
    """Which very low values a mask may hold.

    Attributes:
        infinite: It may hold negative infinity.
        whole_rows: It may do so in whole rows.
        lowest: The lowest finite value it may hold.
    """

    infinite: bool = False
    whole_rows: bool = False
    lowest: float = 0.0


def values_of(mask: ir.Value, facts: Facts, depth: int = _DEPTH) -> Range | None:
    """The range of ``mask``; ``None`` if nothing is known of it."""
    found = resolve(mask)
    if found is None or depth == 0:
        return None
    if (array := resolved_constant(found)) is not None:
        return _range_of(array)
    node = found.producer()
    if node is None or node.domain or any(a.is_ref() for a in node.attributes.values()):
        return None
    if node.op_type in _MOVES and node.inputs[0] is not None:
        moved = values_of(node.inputs[0], facts, depth - 1)
        if moved is None or node.op_type == "Expand":
            return moved
        return Range(moved.infinite, moved.infinite, moved.lowest)  # rows may be others now
    if node.op_type == "Where":
        return _chosen(node, facts, depth)
    if node.op_type == "Mul":
        return _multiplied(node, facts)
    return Range() if _is_integral(found, facts) else None


def _range_of(array: Array) -> Range | None:
    if array.dtype != np.float32 or not array.size or np.isnan(array).any():
        return None
    infinite = np.isneginf(array)
    rows = infinite.all(axis=-1).any() if array.ndim else infinite
    finite = array[~infinite] if array.ndim else array.reshape(1)[~infinite.reshape(1)]
    if np.isposinf(finite).any():
        return None
    return Range(bool(infinite.any()), bool(rows), float(min(finite.min(initial=0.0), 0.0)))


def _chosen(node: ir.Node, facts: Facts, depth: int) -> Range | None:
    condition, one, other = node.inputs
    if condition is None or one is None or other is None:
        return None
    first, second = (values_of(value, facts, depth // 2) for value in (one, other))
    if first is None or second is None:
        return None
    infinite = first.infinite or second.infinite
    causal = infinite and not second.infinite and _is_above_diagonal(condition)
    return Range(infinite, infinite and not causal, min(first.lowest, second.lowest))


def _is_above_diagonal(condition: ir.Value) -> bool:
    """Whether ``condition`` asks where a lower triangle of ones is zero: never in column 0."""
    equal = condition.producer()
    if not is_op(equal, "Equal"):
        return False
    for index in (0, 1):
        triangle, zero = equal.inputs[index], resolved_constant(equal.inputs[1 - index])
        node = None if triangle is None else triangle.producer()
        if zero is None or zero.any() or not is_op(node, "Trilu"):
            continue
        if node.attributes.get_int("upper", 1) or (len(node.inputs) > 1 and node.inputs[1]):
            return False
        filled = node.inputs[0]
        expand = None if filled is None else filled.producer()
        ones = resolved_constant(expand.inputs[0]) if is_op(expand, "Expand") else None
        return ones is not None and ones.size == 1 and bool(ones.all())
    return False


def _multiplied(node: ir.Node, facts: Facts) -> Range | None:
    """A number of at most 1, such as one minus what is attended to, times a constant."""
    for index in (0, 1):
        array, other = resolved_constant(node.inputs[index]), node.inputs[1 - index]
        if array is not None and array.size == 1 and array.dtype == np.float32 and other:
            factor = float(array.reshape(-1)[0])
            if np.isfinite(factor) and factor < 0 and _is_integral(other, facts):
                return Range(lowest=factor)
    return None


def _is_integral(value: ir.Value, facts: Facts) -> bool:
    """Whether ``value`` is an integer as a float, or one minus such."""
    node = value.producer()
    if is_op(node, "Sub") and node.inputs[1] is not None:
        one = resolved_constant(node.inputs[0])
        if one is None or one.size != 1 or float(one.reshape(-1)[0]) != 1:
            return False
        node = node.inputs[1].producer()
    if not is_op(node, "Cast") or (source := node.inputs[0]) is None:
        return False
    dtype = facts.dtype(source)
    return dtype is not None and (dtype.is_integer() or dtype == ir.DataType.BOOL)


def fits(mask: ir.Value, sizes: tuple[Item, Item, Item, Item], facts: Facts) -> bool | str:
    """Whether ``mask`` has a row for each query; a reason if it does not fit in another way.

    ``sizes`` are those of the scores: batch, heads, queries, keys.
    """
    dims = facts.dims(mask)
    if dims is None or not 2 <= len(dims) <= 4:
        return "the sizes of its mask are not known"
    *outer, rows, columns = dims
    if columns != sizes[3]:
        return "its mask is not known to have one column for each key"
    for size, whole in zip(reversed(outer), reversed(sizes[:2]), strict=False):
        if size not in {1, whole}:
            return "its mask is not known to have the batch and heads of its scores"
    if rows not in {1, sizes[2]}:
        return "its mask is not known to have one row for each query"
    return rows == sizes[2]
