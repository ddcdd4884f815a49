"""Follows sizes that a graph computes from shapes, as far as they may be numbers of channels.

Exporters compute the shape of a flatten from ``Shape``, ``Gather``, ``Slice`` and ``Concat``. What
becomes of a number of channels is followed element by element; one that ends anywhere but in the
shape of a Reshape that can be rewritten freezes its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..graph import constant, is_op

if TYPE_CHECKING:
    from .channel_flow import ChannelFlow
    from .channel_labels import Labels


def move_sizes(node: ir.Node, flow: ChannelFlow) -> bool:
    """Whether ``node`` makes or only rearranges sizes; if so, ``flow`` knows its result."""
    if is_op(node, "Shape"):
        dims = flow.dims(node.inputs[0])
        if dims is None:
            return False
        labels = [flow.read(node, 0, axis) for axis in range(len(dims))]
        window = slice(node.attributes.get_int("start", 0), _end(node))
        flow.write_sizes(node, labels[window])
        return True
    if not any(flow.sizes(value) for value in node.inputs):
        return False
    if is_op(node, "Concat"):
        return _concat(node, flow)
    sizes = flow.sizes(node.inputs[0])
    places = None if sizes is None else _places(node, len(sizes))
    if sizes is None or places is None:
        return False
    flow.read_sizes(node, 0)
    flow.write_sizes(node, [sizes[place] for place in places])
    return True


def _end(node: ir.Node) -> int | None:
    return node.attributes.get_int("end", 0) if "end" in node.attributes else None


def _concat(node: ir.Node, flow: ChannelFlow) -> bool:
    joined: list[Labels | None] = []
    for value in node.inputs:
        sizes, dims = flow.sizes(value), flow.dims(value)
        if sizes is not None:
            joined += sizes
        elif dims is not None and len(dims) == 1 and isinstance(dims[0], int):
            joined += [None] * dims[0]
        else:
            return False
    for index in range(len(node.inputs)):
        flow.read_sizes(node, index)
    flow.write_sizes(node, joined)
    return True


def _places(node: ir.Node, count: int) -> list[int] | None:
    """Which of the ``count`` elements of the first input the result holds, in order."""
    order = np.arange(count)
    if is_op(node, "Cast", "Identity", "Squeeze", "Unsqueeze"):
        return list(range(count))
    if is_op(node, "Gather"):
        indices = constant(node.inputs[1])
        return None if indices is None else [int(place) for place in order[indices].ravel()]
    if is_op(node, "Slice"):
        bounds = [constant(value) for value in node.inputs[1:]]
        if any(bound is None or bound.size != 1 for bound in bounds):
            return None
        start, end, *rest = [int(bound.item()) for bound in bounds if bound is not None] or (0, 0)
        return list(range(count))[start : end : rest[1] if len(rest) > 1 else 1]
    return None
