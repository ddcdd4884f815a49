"""``ScatterND`` that writes whole ranges, as exporters write assignments to slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims
from ..graph import constant, feeds_only, is_constant, is_op
from .indexing import Indexing
from .movement import Place, is_settled

_LONGEST = 256
"""Longer rows are looked at in parts."""


@dataclass(frozen=True)
class _Range:
    """The elements ``start`` to ``stop - 1`` of a result: all of ``value``, or part of it.

    ``offset`` is where in the result ``value`` starts.
    """

    start: int
    stop: int
    value: ir.Value
    offset: int


@dataclass(frozen=True)
class _Write:
    """What a ``ScatterND`` writes: all of its updates, along one axis."""

    axis: int
    start: int
    stop: int


def write_as_concat(node: ir.Node, indexing: Indexing) -> str | None:
    """Write a row of ``ScatterND`` that ends in ``node`` as a ``Concat`` of what is left to see.

    Returns ``None`` if it did, or why it did not; nothing if another one comes after it.
    """
    if _next(node) is not None:
        return ""
    dims = indexing.dims(node.outputs[0]) or indexing.dims(node.inputs[0])
    if dims is None:
        return "the number of axes is not known"
    found = _writes(node, dims, indexing)
    if isinstance(found, str):
        return found
    axis, size = found[0][1].axis, dims[found[0][1].axis]
    ranges = _ranges(found, size) if isinstance(size, int) else []
    partial = [one for one in ranges if not _is_whole(one, size, indexing, axis)]
    dynamic = [one for one in partial if not is_constant(one.value)]
    if not ranges or len(dynamic) + (len(ranges) > 1) > len(found):
        return "a Concat would take more operators"

    def write(place: Place) -> ir.Value:
        parts = [
            place.slice(one.value, axis, one.start - one.offset, one.stop - one.offset)
            if one in partial
            else one.value
            for one in ranges
        ]
        return parts[0] if len(parts) == 1 else place.concat(parts, axis)

    indexing.replace(node, write)
    return None


def _next(node: ir.Node) -> ir.Node | None:
    """The ``ScatterND`` that alone goes on writing into what ``node`` answers."""
    for after in node.outputs[0].consumers():
        if _before(after) is node:
            return after
    return None


def _before(node: ir.Node) -> ir.Node | None:
    """The ``ScatterND`` into whose answer ``node`` alone writes."""
    source = node.inputs[0]
    before = None if source is None else source.producer()
    if source is None or not is_op(node, "ScatterND") or not is_op(before, "ScatterND"):
        return None
    if not is_settled(before) or before.graph is not node.graph:
        return None
    return before if feeds_only(source, node) else None


def _writes(node: ir.Node, dims: Dims, indexing: Indexing) -> list[tuple[ir.Node, _Write]] | str:
    """What ``node`` and those before it write along one axis, in order, as far back as it goes."""
    found: list[tuple[ir.Node, _Write]] = []
    at: ir.Node | None = node
    while at is not None and len(found) < _LONGEST:
        write = _written(at, dims, indexing)
        if isinstance(write, str) or (found and write.axis != found[-1][1].axis):
            if isinstance(write, str) and not found:
                return write
            break
        found.append((at, write))
        at = _before(at)
    return found[::-1]


def _ranges(writes: list[tuple[ir.Node, _Write]], size: int) -> list[_Range]:
    """What is to be seen in the end, range by range; nothing if that cannot be told."""
    base = writes[0][0].inputs[0]
    if base is None:
        return []
    ranges = [_Range(0, size, base, 0)]
    for node, write in writes:
        updates = node.inputs[2]
        if updates is None:
            return []
        left = [replace(r, stop=min(r.stop, write.start)) for r in ranges]
        right = [replace(r, start=max(r.start, write.stop)) for r in ranges]
        ranges = [r for r in left if r.start < r.stop]
        ranges.append(_Range(write.start, write.stop, updates, write.start))
        ranges += [r for r in right if r.start < r.stop]
    return ranges


def _written(node: ir.Node, dims: Dims, indexing: Indexing) -> _Write | str:
    """The range that ``node`` writes, or why it is no range."""
    indices = constant(node.inputs[1])
    if node.attributes.get_string("reduction", "none") != "none":
        return "it computes with what is there"
    if indices is None:
        return "where it writes is not constant"
    depth = indices.shape[-1] if indices.ndim else 0
    sizes = [size for size in dims[:depth] if isinstance(size, int)]
    if not depth or not indices.size or len(sizes) < depth:
        return "the sizes of the axes along which it writes are not known"
    rows = indices.reshape(-1, depth)
    rows = np.where(rows < 0, rows + np.array(sizes), rows)
    first, box = rows.min(0), np.ptp(rows, 0) + 1
    if indices.shape[:-1] != tuple(box):
        return "it does not write a range"
    if not np.array_equal(rows, np.indices(tuple(box)).reshape(depth, -1).T + first):
        return "it does not write a range in its order"
    narrow = [axis for axis in range(depth) if box[axis] != sizes[axis]]
    if len(narrow) > 1:
        return "it writes a range along several axes"
    updated = indexing.dims(node.inputs[2])
    if updated is None or len(updated) != len(dims):
        return "the sizes of what it writes are not known"
    axis = narrow[0] if narrow else 0
    return _Write(axis, int(first[axis]), int(first[axis] + box[axis]))


def _is_whole(one: _Range, size: int | str, indexing: Indexing, axis: int) -> bool:
    """Whether a range shows all of its value."""
    dims = indexing.dims(one.value)
    held = size if dims is None else dims[axis]
    return one.start == one.offset and isinstance(held, int) and one.stop - one.start == held
