"""Channel rules of normalizations: by channel, by group of channels, or along an axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .channel_flow import NO_SHAPE, Change, ChannelFlow, Rule, Stays, describe


def normalization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Scale, shift and statistics of each channel alone."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    if len(node.outputs) > 1 or node.attributes.get_int("training_mode", 0) != 0:
        return "it runs in training mode"
    flow.join(node, [(0, 1), *((index, 0) for index in range(1, len(node.inputs)))], 1)
    flow.carry(node, 0, 0)
    if node.op_type == "BatchNormalization":
        for axis in range(2, len(dims)):
            flow.carry(node, axis, axis)
    return None


def layer_normalization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes in front of those that it takes the mean over."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    first = node.attributes.get_int("axis", -1) % len(dims)
    for axis in range(first):
        flow.carry(node, axis, axis)
    return "it takes the mean over them"


def group_normalization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """The channels that a mean is taken over go together, and one group less is left."""
    dims, scale = flow.dims(node.inputs[0]), flow.dims(node.inputs[1])
    if dims is None or scale is None:
        return NO_SHAPE
    groups = node.attributes.get_int("num_groups", 1)
    flow.carry(node, 0, 0)
    labels = flow.read(node, 0, 1)
    if labels is None:
        return None
    by_group = labels.reshape(groups, -1)
    for row in by_group:
        flow.tie(np.repeat(row[:1], len(row)), row)
    for index in (1, 2):
        parameters = flow.weight(node, index, 0)
        if parameters is None:
            flow.freeze(labels, f"{describe(node)} scales them by what is not constant")
        else:
            flow.tie(labels if len(parameters) == len(labels) else by_group[:, 0], parameters)
    flow.write(node, 1, labels)

    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[0], 1)
        if mask is None:
            return None
        return Change(attributes={"num_groups": groups * int(mask.sum()) // len(mask)})

    flow.repairs[node] = repair
    return None


def mean_variance_normalization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that it does not take the mean over."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    taken = {axis % len(dims) for axis in node.attributes.get_ints("axes", (0, 2, 3))}
    for axis in set(range(len(dims))) - taken:
        flow.carry(node, axis, axis)
    return "it takes the mean over them"


NORMS: Mapping[str, Rule] = {
    "BatchNormalization": normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": normalization,
    "LayerNormalization": layer_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": layer_normalization,
}
