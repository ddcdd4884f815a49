"""Removing channels for good: weights cut, shapes, groups and reshapes to match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..analysis.channel_flow import Change, Mask, input_of
from ..analysis.channels import ChannelGroup, Coupling
from ..graph import Names, add_initializer, constant, constant_tensor, is_op

__all__ = ["Cuts", "Mask", "cuts_of", "slice_channels"]

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

    Weights are cut, shapes of intermediate tensors updated, and nodes repaired that say how many
    channels there are. The result computes what ``model`` would with all removed slices of
    weights set to zero.
    """
    names = Names(model)

    def stays(value: ir.Value | None, axis: int) -> Mask | None:
        return None if value is None else cuts.get(value, {}).get(axis)

    for node, repair in coupling.repairs.items():
        change = repair(stays)
        if change is not None:
            _apply(node, change, model.graph, names)
    for value, axes in cuts.items():
        _cut(model.graph, value, axes, names)
    RemoveUnusedNodesPass()(model)


def _apply(node: ir.Node, change: Change, graph: ir.Graph, names: Names) -> None:
    for index, numbers in change.inputs.items():
        array = np.array(numbers, dtype=np.int64)
        old = constant_tensor(input_of(node, index))
        if old is not None:
            array = array.astype(old.numpy().dtype)
        role = "shape" if is_op(node, "Reshape") else f"input.{index}"
        name = names.fresh(f"{node.outputs[0].name}.{role}")
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, add_initializer(graph, name, array))
    for name in change.without:
        node.attributes.pop(name, None)
    for name, number in change.attributes.items():
        if isinstance(number, int):
            node.attributes.add(ir.AttrInt64(name, number))
        else:
            node.attributes.add(ir.AttrInt64s(name, number))


def _cut(graph: ir.Graph, value: ir.Value, axes: Mapping[int, Mask], names: Names) -> None:
    if value.shape is not None:
        left = {axis: int(mask.sum()) for axis, mask in axes.items()}
        value.shape = ir.Shape(
            left.get(axis, dim) if isinstance(dim, int) else dim
            for axis, dim in enumerate(value.shape)
        )
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
