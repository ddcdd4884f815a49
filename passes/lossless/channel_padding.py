"""Channels of zeros, appended to whole groups of channels that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channels import ChannelGroup, Coupling, Member
from ..graph import constant, is_op
from .constants import ConstantWriter, drop_unused

_Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Indices of an axis before which a zero is put in, as ``numpy.insert`` takes them."""


def insertions(member: Member, size: int, more: int) -> _Places | None:
    """Where ``more`` channels come in behind the ``size`` that a group has on an axis.

    The channels may lie on the axis several times, side by side as Concat and groups leave them,
    and each may take several neighbouring indices, as a flatten leaves it. ``None`` if they lie in
    any other way.
    """
    breaks = np.flatnonzero(np.diff(member.positions) != 1) + 1
    places: list[int] = []
    for positions, channels in zip(
        np.split(member.positions, breaks), np.split(member.channels, breaks), strict=True
    ):
        if size == 1 and len(channels) > 1:
            return None  # side by side, or several indices of one
        each = int(np.argmax(channels != channels[0])) or 1
        once = np.repeat(np.arange(size), each)
        times = len(channels) // len(once)
        if not np.array_equal(channels, np.tile(once, times)):
            return None
        for end in range(len(once), len(channels) + 1, len(once)):
            places += [int(positions[0]) + end] * (more * each)
    return np.array(places, dtype=np.int64)


class ChannelPadder:
    """Appends channels to groups of one model."""

    def __init__(self, model: ir.Model, coupling: Coupling) -> None:
        self._writer = ConstantWriter(model)
        self._graph = model.graph
        self._coupling = coupling
        self._inserted: dict[ir.Value, dict[int, list[_Places]]] = {}

    def pad(self, group: ChannelGroup, places: Sequence[_Places]) -> None:
        """Append channels to ``group``, at the :func:`insertions` of its members."""
        for member, at in zip(group.members, places, strict=True):
            self._inserted.setdefault(member.value, {}).setdefault(member.axis, []).append(at)

    def write(self) -> None:
        """Carry out all that was asked for."""
        for node in self._graph:
            if is_op(node, "Conv") and node.inputs[1] in self._inserted:
                self._set_group(node)
        for node, request in self._coupling.reshapes.items():
            if (axes := self._inserted.get(node.outputs[0])) is not None:
                self._request(node, list(request), axes)
        for value, axes in self._inserted.items():
            self._pad(value, axes)

    def _set_group(self, node: ir.Node) -> None:
        """Depthwise, there are as many groups as input channels; other groups only get wider."""
        groups, weight = node.attributes.get_int("group", 1), node.inputs[1]
        array = constant(weight)
        if weight is None or array is None or groups == 1 or array.shape[1] > 1:
            return
        more = sum(len(at) for at in self._inserted[weight].get(0, ()))
        each = array.shape[0] // groups
        node.attributes.add(ir.AttrInt64("group", groups + more // each))

    def _request(
        self, node: ir.Node, shape: list[int], axes: Mapping[int, Sequence[_Places]]
    ) -> None:
        for axis, places in axes.items():
            if shape[axis] > 0:
                shape[axis] += sum(map(len, places))
        old = node.inputs[1]
        wanted = f"{node.outputs[0].name}.shape"
        array = np.array(shape, dtype=np.int64)
        node.replace_input_with(1, self._writer.add(self._graph, wanted, array, node))
        drop_unused(old)

    def _pad(self, value: ir.Value, axes: Mapping[int, Sequence[_Places]]) -> None:
        array = constant(value)
        if array is None:
            value.shape = None  # the old one does not hold any more
            return
        for axis, places in axes.items():
            array = np.insert(array, np.concatenate(places), 0, axis)
        if value.is_initializer():
            value.const_value = ir.tensor(array, name=value.name)
            value.shape = ir.Shape(array.shape)
            return
        reader = next(iter(value.uses())).node
        new = self._writer.add(self._graph, value.name or "weight", array, reader)
        value.replace_all_uses_with(new)
        drop_unused(value)
