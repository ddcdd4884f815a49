"""Removing channels for good: weights cut, shapes, groups and reshapes to match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..analysis.channel_changes import apply_change
from ..analysis.channel_flow import Mask
from ..analysis.channels import ChannelGroup, Coupling
from ..graph import Names, add_initializer, constant

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
            apply_change(node, change, model.graph, names)
    for value, axes in cuts.items():
        _cut(model.graph, value, axes, names)
    RemoveUnusedNodesPass()(model)


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
