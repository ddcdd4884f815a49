"""Channel rules of attention operators, whose unit is the head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .channel_flow import NO_SHAPE, Change, ChannelFlow, Repair, Rule, Stays, describe, input_of
from .channel_labels import Labels


def attention(node: ir.Node, flow: ChannelFlow) -> str | None:
    """A head of keys and values goes with the heads of queries that read it, and their results."""
    extra = [index for index in range(4, len(node.inputs)) if input_of(node, index) is not None]
    if extra or len(node.outputs) > 1:
        return "it keeps keys and values for later, or answers more than its result"
    query = flow.dims(node.inputs[0])
    if query is None:
        return NO_SHAPE
    if len(query) == 3:
        counts = (
            node.attributes.get_int("q_num_heads", 1),
            node.attributes.get_int("kv_num_heads", 1),
        )
        refusal = _side_by_side(node, flow, *counts)
        flow.repairs[node] = _heads_repair(node, ("q_num_heads", "kv_num_heads"), counts)
    else:
        refusal = _apart(node, flow)
    return refusal or _mask(node, flow)


def multi_head_attention(node: ir.Node, flow: ChannelFlow) -> str | None:
    """ONNX Runtime's own, without biases, masks and past."""
    if any(input_of(node, index) is not None for index in range(3, len(node.inputs))):
        return "it takes more than queries, keys and values"
    if len(flow.dims(node.inputs[0]) or ()) != 3 or len(node.outputs) > 1:
        return NO_SHAPE
    heads = node.attributes.get_int("num_heads", 1)
    flow.repairs[node] = _heads_repair(node, ("num_heads",), (heads,))
    return _side_by_side(node, flow, heads, heads)


def _side_by_side(node: ir.Node, flow: ChannelFlow, heads: int, shared: int) -> str | None:
    """Inputs ``[batch, length, heads * size]``."""
    read = [flow.read(node, index, 2) for index in range(3)]
    result = flow.dims(node.outputs[0])
    width = None if result is None else result[-1]
    if not isinstance(width, int):
        values = flow.dims(node.inputs[2])
        size = None if values is None else values[-1]
        width = size // shared * heads if isinstance(size, int) else None
    units = [
        None if labels is None else _units(flow, labels, count)
        for labels, count in zip(read, (heads, shared, shared), strict=True)
    ]
    tied = _tied(node, flow, units, heads // shared)
    if tied is not None and isinstance(width, int):
        flow.write(node, 2, np.repeat(tied, width // heads))
    elif tied is not None:
        return NO_SHAPE
    return None


def _apart(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Inputs ``[batch, heads, length, size]``."""
    units = [flow.read(node, index, 1) for index in range(3)]
    sizes = [(flow.dims(value) or (None, None))[1] for value in node.inputs[:2]]
    heads, shared = sizes
    if not isinstance(heads, int) or not isinstance(shared, int):
        return NO_SHAPE
    flow.write(node, 1, _tied(node, flow, units, heads // shared))
    return None


def _units(flow: ChannelFlow, labels: Labels, count: int) -> Labels:
    """One label for each of ``count`` heads, whose features go together."""
    by_head = labels.reshape(count, -1)
    for features in by_head:
        flow.tie(np.repeat(features[:1], len(features)), features)
    return by_head[:, 0]


def _tied(node: ir.Node, flow: ChannelFlow, units: list[Labels | None], each: int) -> Labels | None:
    """The heads of the queries, tied to those of keys and values, each of which serves ``each``."""
    query = units[0]
    known = [labels for labels in units if labels is not None]
    if query is None or len(known) < 3:
        for labels in known:
            flow.freeze(labels, f"{describe(node)} combines them with heads that are fixed")
        return None
    for labels in known[1:]:
        flow.tie(np.repeat(labels, each), query)
    return query


def _mask(node: ir.Node, flow: ChannelFlow) -> str | None:
    """A mask is for all heads, or loses those that go."""
    dims, axis = (
        flow.dims(input_of(node, 3)),
        1 if len(flow.dims(node.outputs[0]) or ()) == 4 else 2,
    )
    labels = flow.labels(node.outputs[0], axis)
    if input_of(node, 3) is None or labels is None or (dims is not None and len(dims) < 3):
        return None
    if dims is not None and dims[-3] == 1:
        flow.read(node, 3, -3)
        return None
    flow.freeze(labels, f"{describe(node)} has a mask for each head")
    return "it has a mask for each head"


def _heads_repair(node: ir.Node, names: tuple[str, ...], counts: tuple[int, ...]) -> Repair:
    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[0], 2)
        if mask is None:
            return None
        left = [count * int(mask.sum()) // len(mask) for count in counts]
        return Change(attributes=dict(zip(names, left, strict=True)))

    return repair


ATTENTION: Mapping[str, Rule] = {"Attention": attention}

MICROSOFT_ATTENTION: Mapping[str, Rule] = {"MultiHeadAttention": multi_head_attention}
"""Those of ONNX Runtime's own operators."""
