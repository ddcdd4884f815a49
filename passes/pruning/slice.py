"""Removing channels for good: weights cut, shapes, groups and reshapes to match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..analysis.channels import ChannelGroup, Coupling
from ..graph import Names, add_initializer, constant, is_op

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""For each channel of a group, or each index of an axis, whether it stays."""

Cuts: TypeAlias = Mapping[ir.Value, Mapping[int, Mask]]
"""For each tensor and each axis of it that loses something: what stays."""


def cuts_of(groups: Sequence[ChannelGroup], masks: Sequence[Mask]) -> Cuts:
    """What removing the channels that are ``False`` in ``masks``, one per group, cuts where."""
    cuts: dict[ir.Value, dict[int, Mask]] = {}
    for group, mask in zip(groups, masks, strict=True):
        for member in () if mask.all() else group.members:
            axes = cuts.setdefault(member.value, {})
            if member.axis not in axes:
                axes[member.axis] = np.ones(member.size, dtype=np.bool_)
            axes[member.axis][member.positions] = mask[member.channels]
    return cuts


def slice_channels(model: ir.Model, coupling: Coupling, cuts: Cuts) -> None:
    """Cut ``cuts`` out of ``model``.

    Weights are cut, shapes of intermediate tensors updated, the ``group`` of depthwise
    convolutions set, and the shapes that Reshapes ask for written anew. The result computes what
    ``model`` would with all removed slices of weights set to zero.
    """
    names = Names(model)
    for node in model.graph:
        if is_op(node, "Conv") and node.inputs[1] in cuts:
            _set_group(node, cuts)
    for node, request in coupling.reshapes.items():
        if node.outputs[0] in cuts:
            shape = list(request)
            for axis, mask in cuts[node.outputs[0]].items():
                shape[axis] = int(mask.sum())
            name = names.fresh(f"{node.outputs[0].name}.shape")
            array = np.array(shape, dtype=np.int64)
            node.replace_input_with(1, add_initializer(model.graph, name, array))
    for value, axes in cuts.items():
        _cut(model.graph, value, axes, names)
    RemoveUnusedNodesPass()(model)


def _set_group(node: ir.Node, cuts: Cuts) -> None:
    """Depthwise, there are as many groups as input channels; other groups only get narrower."""
    groups, weight = node.attributes.get_int("group", 1), node.inputs[1]
    array = constant(weight)
    if weight is None or array is None or groups == 1 or array.shape[1] > 1:
        return
    stays = cuts[weight].get(0)
    if stays is not None:
        node.attributes.add(ir.AttrInt64("group", groups * int(stays.sum()) // len(stays)))


def _cut(graph: ir.Graph, value: ir.Value, axes: Mapping[int, Mask], names: Names) -> None:
    if value.shape is not None:
        left = {axis: int(mask.sum()) for axis, mask in axes.items()}
        value.shape = ir.Shape(left.get(axis, dim) for axis, dim in enumerate(value.shape))
    array = constant(value)
    if array is None:
        return
    for axis, mask in axes.items():
        array = np.compress(mask, array, axis)
    if value.is_initializer():
        value.const_value = ir.tensor(array, name=value.name)
    else:
        new = add_initializer(graph, names.fresh(value.name or "weight"), array)
        value.replace_all_uses_with(new)
