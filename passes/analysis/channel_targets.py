"""Sizes that a node is given as an input: which of them change with channels, and how."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..graph import constant
from .channel_dims import Dims
from .channel_flow import Change, ChannelFlow, Repair, Stays, describe
from .partial import Item


def follow_target(
    node: ir.Node, flow: ChannelFlow, index: int, infers: Sequence[int], copied: Dims | None = None
) -> str | None:
    """Make sure that the sizes in input ``index`` of ``node`` fit once channels are gone.

    A size that is inferred, or computed from that of an axis with the same labels, fits by itself;
    others are written anew. ``infers`` are the numbers that stand for what fits by itself.
    ``copied`` are the sizes that 0 copies where a computed target may be written anew. Labels
    whose size does not fit and cannot be written are frozen, as are those whose number is the
    size of another axis.
    """
    output = node.outputs[0]
    rank = len(flow.dims(output) or ())
    computed = flow.read_sizes(node, index) or (None,) * rank
    items = flow.known.items(node.inputs[index]) or [None] * rank
    wrong = []
    for axis, (sizes, item) in enumerate(zip(computed, items, strict=False)):
        labels = flow.labels(output, axis)
        if labels is None and sizes is not None:
            flow.freeze(sizes, f"their number is a size that {describe(node)} asks for")
        elif labels is not None and not flow.same(labels, sizes) and item not in infers:
            wrong.append(axis)
    if not wrong:
        return None
    request = _request(node, flow, index, items, copied)
    if request is None:
        for axis in wrong:
            labels = flow.labels(output, axis)
            if labels is not None:
                flow.freeze(labels, f"{describe(node)} asks for a size that is not known")
        return "its result has more than one unknown size"
    flow.repairs[node] = sizes_repair(output, index, request, wrong)
    return None


def sizes_repair(
    output: ir.Value, index: int, request: Sequence[int], axes: Sequence[int]
) -> Repair:
    """Ask for ``request`` in input ``index``, with what is left of ``output`` along ``axes``."""

    def repair(stays: Stays) -> Change | None:
        left = {axis: mask for axis in axes if (mask := stays(output, axis)) is not None}
        if not left:
            return None
        sizes = [int(left[a].sum()) if a in left else size for a, size in enumerate(request)]
        return Change(inputs={index: sizes})

    return repair


def _request(
    node: ir.Node, flow: ChannelFlow, index: int, items: Sequence[Item], copied: Dims | None
) -> list[int] | None:
    """The sizes to ask for as numbers: a computed one is copied by 0 or, if just one, inferred."""
    asked = constant(node.inputs[index])
    if asked is not None:
        return [int(size) for size in asked]
    if copied is None:
        return None
    after = flow.dims(node.outputs[0]) or ()
    request = [
        item if isinstance(item, int) else dim if isinstance(dim, int) else None
        for item, dim in zip(items, after, strict=True)
    ]
    for axis, (size, dim) in enumerate(zip(request, after, strict=True)):
        if size is None and axis < len(copied) and dim is not None and dim == copied[axis]:
            request[axis] = 0
    if request.count(None) + request.count(-1) > 1:
        return None
    return [-1 if size is None else size for size in request]
