"""Channel rules of the operators that move, merge, split, resize or repeat axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..graph import constant, is_op
from .channel_flow import NO_SHAPE, ChannelFlow, Rule, input_of, integers
from .channel_labels import Labels
from .channel_reshapes import Size, blocks, regrouped, resolved, units
from .channel_targets import follow_target


def transpose(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Moves axes."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    order = node.attributes.get_ints("perm") or tuple(reversed(range(len(dims))))
    for place, axis in enumerate(order):
        flow.carry(node, axis, place)
    return None


def regroup(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Merges axes, and splits those whose channels come in whole blocks.

    Where they do not yet, the channels of one block are made to go together: the features of an
    attention head, or those that a group normalization takes the mean of.
    """
    before, after = flow.dims(node.inputs[0]), flow.dims(node.outputs[0])
    if before is None or after is None:
        return NO_SHAPE
    known = [flow.merged.get(size, size) if isinstance(size, str) else size for size in before]
    sizes = resolved(known, after)
    flow.merged |= {
        name: size
        for name, size in zip(after, sizes, strict=True)
        if isinstance(name, str) and name != size
    }
    refusal = None
    for old, new in blocks(known, sizes):
        labelled = [axis for axis in old if flow.labels(node.inputs[0], axis) is not None]
        if not labelled:
            continue
        moved = None
        if len(labelled) == 1:
            run = [known[axis] for axis in old], [sizes[axis] for axis in new]
            moved = _moved(node, flow, labelled[0], old.index(labelled[0]), *run)
        if moved is None:
            refusal = "it splits them or mixes them with another axis"
        else:
            flow.write(node, new[moved[0]], moved[1])
            flow.read(node, 0, labelled[0])
    return refusal


def _moved(
    node: ir.Node, flow: ChannelFlow, axis: int, at: int, old: Sequence[Size], new: Sequence[Size]
) -> tuple[int, Labels] | None:
    labels = flow.labels(node.inputs[0], axis)
    if labels is None:
        return None
    labels = flow.roots(labels)
    moved = regrouped(labels, at, old, new)
    if moved is not None:
        return moved
    choices = units(labels, at, old, new)
    if not choices:
        return None
    if len(choices) == 2 and _shuffles(node, flow):
        chosen = choices[1]
    else:
        # The last axis is what a unit consists of; (3, heads, features) has its units in between.
        chosen = max(choices[:-1] or choices, key=lambda choice: (len(choice[1]), choice[0]))
    for row in chosen[1]:
        flow.tie(np.repeat(row[:1], len(row)), row)
    return chosen[0], chosen[1][:, 0]


def _shuffles(node: ir.Node, flow: ChannelFlow) -> bool:
    """Whether a Transpose and a Reshape back follow, as where channels are shuffled."""
    moved = [use.node for use in node.outputs[0].uses()]
    if len(moved) != 1 or not is_op(moved[0], "Transpose"):
        return False
    back = [use.node for use in moved[0].outputs[0].uses()]
    dims = flow.dims(node.inputs[0])
    return bool(back) and is_op(back[0], "Reshape") and flow.dims(back[0].outputs[0]) == dims


def reshape(node: ir.Node, flow: ChannelFlow) -> str | None:
    """As :func:`regroup`, and the shape it asks for can be written down anew."""
    before = flow.dims(node.inputs[0])
    if before is None or flow.dims(node.outputs[0]) is None:
        return NO_SHAPE
    if len(node.inputs) < 2:
        return "it is of an opset in which its shape is an attribute"
    refusal = regroup(node, flow)
    if node.attributes.get_int("allowzero", 0):
        return follow_target(node, flow, 1, (-1,), ()) or refusal
    return follow_target(node, flow, 1, (0, -1), before) or refusal


def expand(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that it does not repeat."""
    dims, result = flow.dims(node.inputs[0]), flow.dims(node.outputs[0])
    if dims is None or result is None:
        return NO_SHAPE
    for axis, size in enumerate(dims):
        place = axis + len(result) - len(dims)
        if size != 1 and result[place] == size:
            flow.write(node, place, flow.read(node, 0, axis))
    return follow_target(node, flow, 1, (1,))


def tile(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Repeats labels as often as it repeats their axis."""
    dims, repeats = flow.dims(node.inputs[0]), integers(node, "", 1)
    if dims is None or repeats is None:
        return NO_SHAPE if dims is None else "how often it repeats them is not constant"
    for axis, times in enumerate(repeats):
        labels = flow.read(node, 0, axis)
        if labels is not None:
            flow.write(node, axis, np.tile(labels, times))
    return None


def depth_to_space(node: ir.Node, flow: ChannelFlow) -> str | None:
    """The channels that make up one block of places go together."""
    labels = flow.read(node, 0, 1)
    flow.carry(node, 0, 0)
    if labels is None:
        return None
    places = node.attributes.get_int("blocksize", 1) ** 2
    if node.attributes.get_string("mode", "DCR") == "DCR":
        table = labels.reshape(places, -1).T
    else:
        table = labels.reshape(-1, places)
    for row in table:
        flow.tie(np.repeat(row[:1], places), row)
    flow.write(node, 1, table[:, 0])
    return None


def space_to_depth(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Each channel is there once for each place of a block."""
    labels = flow.read(node, 0, 1)
    flow.carry(node, 0, 0)
    if labels is not None:
        flow.write(node, 1, np.tile(labels, node.attributes.get_int("blocksize", 1) ** 2))
    return None


def resize(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that it does not resize."""
    dims, result = flow.dims(node.inputs[0]), flow.dims(node.outputs[0])
    if dims is None or result is None:
        return NO_SHAPE
    older = flow.opset < 11
    scales = constant(input_of(node, 1 if older else 2))
    if node.op_type == "Upsample" and "scales" in node.attributes:
        scales = np.array(node.attributes.get_floats("scales"))
    axes = [axis % len(dims) for axis in node.attributes.get_ints("axes") or range(len(dims))]
    resized = dict(zip(axes, scales if scales is not None else (), strict=False))
    by_size = not older and input_of(node, 3) is not None and "axes" not in node.attributes
    sizes = (flow.sizes(node.inputs[3]) if by_size else None) or (None,) * len(dims)
    for axis in range(len(dims)):
        kept = axis not in axes or resized.get(axis) == 1
        if by_size and isinstance(dims[axis], int):
            labels = flow.labels(node.inputs[0], axis)
            kept = kept or dims[axis] == result[axis] or flow.same(labels, sizes[axis])
        if kept:
            flow.carry(node, axis, axis)
    refusal = follow_target(node, flow, 3, ()) if by_size else None
    return refusal or "it resizes their axis"


VIEWS: Mapping[str, Rule] = {
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": regroup,
    "Reshape": reshape,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
    "Squeeze": regroup,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": regroup,
    "Upsample": resize,
}
