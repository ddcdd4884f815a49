"""What the rules about slices, gathers, splits and concats share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from ..analysis.partial import Dims
from .constants import drop_unused
from .cuts import Cut
from .movement import FURTHEST, Place, Places, has_input, is_settled, numbers
from .pieces import Pieces


@dataclass
class Indexing:
    """What rules ask, and where they write.

    Attributes:
        pieces: Says which part of another tensor a value is.
        places: Where to write.
        replaced: Values that others stand for now.
        split: Tensors whose slices have been looked at together, with the axis.
    """

    pieces: Pieces
    places: Places
    replaced: list[ir.Value] = field(default_factory=list)
    split: set[tuple[ir.Value, int]] = field(default_factory=set)

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The sizes of ``value``, if its rank is known."""
        return None if value is None else self.pieces.dims(value)

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of axes of ``value``, if it is known."""
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def replace(self, node: ir.Node, write: Callable[[Place], ir.Value]) -> None:
        """Let what is written stand for the answer of ``node``."""
        place = self.places.before(node)
        place.answer(write(place))
        drop_unused(node.outputs[0])
        self.replaced.append(node.outputs[0])

    def cuts(self, node: ir.Node) -> list[Cut] | None:
        """What a ``Slice`` cuts, counted from the front as far as sizes are known."""
        starts, ends = numbers(node, 1, "starts"), numbers(node, 2, "ends")
        if starts is None or ends is None or not is_settled(node):
            return None
        axes, steps = numbers(node, 3, "axes"), numbers(node, 4, "steps")
        if (axes is None and has_input(node, 3)) or (steps is None and has_input(node, 4)):
            return None
        dims = self.dims(node.inputs[0])
        if dims is None:
            return None
        axes = list(range(len(starts))) if axes is None else axes
        found = []
        for axis, start, end, step in zip(
            axes, starts, ends, steps or [1] * len(axes), strict=True
        ):
            size = dims[axis]
            cut = Cut(axis % len(dims), start, end, step)
            if isinstance(size, int) and step == 1:
                first, stop, _ = slice(start, end).indices(size)
                cut = Cut(cut.axis, first, max(first, stop), 1)
            elif step >= 1 and end >= 2**31 - 1:
                cut = Cut(cut.axis, start, FURTHEST, step)
            found.append(cut)
        return found


Rule: TypeAlias = Callable[[Indexing, ir.Node], bool]
"""Rewrites a node if it fits, and says whether it did."""
