"""Parts of a tensor along one axis, however they are cut out of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..graph import constant, is_op
from .movement import FURTHEST, has_input, is_settled, numbers


@dataclass(frozen=True)
class Piece:
    """The elements ``start`` to ``stop - 1`` of ``source`` along ``axis``.

    Whether the axis is that long need not be known: a piece is cut off where the axis ends.
    """

    source: ir.Value
    axis: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many elements it has along its axis, if the axis is long enough."""
        return self.stop - self.start


class Pieces:
    """Says which part of another tensor a value is."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``, if its rank is known."""
        self._facts.follow_to(value)
        return self._facts.dims(value)

    def of(self, value: ir.Value) -> Piece | None:
        """``value`` as a part of what it is cut out of, with all its axes."""
        node = value.producer()
        if node is None or not node.inputs or not is_settled(node) or node.inputs[0] is None:
            return None
        if node.op_type == "Slice":
            return self._slice(node, node.inputs[0])
        if node.op_type == "Split":
            return self._split(node, node.inputs[0], value)
        return self._gather(node, node.inputs[0]) if node.op_type == "Gather" else None

    def element(self, value: ir.Value) -> Piece | None:
        """``value`` as one element along an axis that it has no more, taken by ``Gather``."""
        node = value.producer()
        if not is_op(node, "Gather") or not is_settled(node) or node.inputs[0] is None:
            return None
        indices, dims = constant(node.inputs[1]), self.dims(node.inputs[0])
        if indices is None or indices.ndim or dims is None:
            return None
        axis, index = node.attributes.get_int("axis", 0) % len(dims), int(indices)
        if index < 0:
            size = dims[axis]
            if not isinstance(size, int):
                return None
            index += size
        return Piece(node.inputs[0], axis, index, index + 1)

    def _gather(self, node: ir.Node, source: ir.Value) -> Piece | None:
        indices, dims = constant(node.inputs[1]), self.dims(source)
        if indices is None or indices.ndim != 1 or not indices.size or dims is None:
            return None
        start = int(indices[0])
        if start < 0 or indices.tolist() != list(range(start, start + len(indices))):
            return None
        axis = node.attributes.get_int("axis", 0) % len(dims)
        return Piece(source, axis, start, start + len(indices))

    def _slice(self, node: ir.Node, source: ir.Value) -> Piece | None:
        starts, ends = numbers(node, 1, "starts"), numbers(node, 2, "ends")
        axes, steps = numbers(node, 3, "axes"), numbers(node, 4, "steps")
        if starts is None or ends is None or len(starts) != 1 or steps not in (None, [1]):
            return None
        if (axes is None and has_input(node, 3)) or (steps is None and has_input(node, 4)):
            return None
        dims = self.dims(source)
        if dims is None:
            return None
        axis = (axes or [0])[0] % len(dims)
        bounds = _bounds(starts[0], ends[0], dims[axis])
        return None if bounds is None else Piece(source, axis, *bounds)

    def _split(self, node: ir.Node, source: ir.Value, value: ir.Value) -> Piece | None:
        dims = self.dims(source)
        if dims is None:
            return None
        axis = node.attributes.get_int("axis", 0) % len(dims)
        sizes = self.split_sizes(node, dims[axis])
        if sizes is None:
            return None
        index = node.outputs.index(value)
        start = sum(sizes[:index])
        return Piece(source, axis, start, start + sizes[index])

    @staticmethod
    def split_sizes(node: ir.Node, size: int | str) -> list[int] | None:
        """The sizes of the parts of a ``Split`` of an axis of ``size``, if they are known."""
        if has_input(node, 1) or "split" in node.attributes:
            return numbers(node, 1, "split")
        if not isinstance(size, int):
            return None
        count = len(node.outputs)
        longest = -(-size // count)
        return [max(min(longest, size - longest * part), 0) for part in range(count)]

    def joined(self, pieces: Sequence[Piece | None]) -> Piece | None:
        """The pieces as one, if each goes on where the one before stops."""
        first, last = pieces[0], pieces[-1]
        if first is None or last is None:
            return None
        for one, other in itertools.pairwise(pieces):
            if one is None or other is None or other.source is not first.source:
                return None
            if other.axis != first.axis or other.start != one.stop:
                return None
        return Piece(first.source, first.axis, first.start, last.stop)

    def is_whole(self, piece: Piece) -> bool:
        """Whether ``piece`` is all of its source."""
        dims = self.dims(piece.source)
        if piece.start or dims is None:
            return False
        size = dims[piece.axis]
        return piece.stop >= FURTHEST or (isinstance(size, int) and piece.stop >= size)


def _bounds(start: int, end: int, size: int | str) -> tuple[int, int] | None:
    """Where a slice starts and stops, counted from the front and not beyond a known size."""
    if isinstance(size, int):
        start, stop, _ = slice(start, end).indices(size)
        return (start, max(start, stop))
    if start < 0 or end < 0:
        return None
    return (start, max(start, end if end < 2**31 - 1 else FURTHEST))
