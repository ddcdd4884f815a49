"""Channels of zeros, appended to whole groups of channels that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channel_changes import apply_change
from ..analysis.channels import ChannelGroup, Coupling, Member
from ..graph import Names, add_initializer, constant
from .constants import drop_unused

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
        self._graph = model.graph
        self._names = Names(model)
        self._coupling = coupling
        self._inserted: dict[ir.Value, dict[int, list[_Places]]] = {}
        self._sizes: dict[tuple[ir.Value, int], int] = {}

    def pad(self, group: ChannelGroup, places: Sequence[_Places]) -> None:
        """Append channels to ``group``, at the :func:`insertions` of its members."""
        for member, at in zip(group.members, places, strict=True):
            self._inserted.setdefault(member.value, {}).setdefault(member.axis, []).append(at)
            self._sizes[member.value, member.axis] = member.size

    def write(self) -> None:
        """Carry out all that was asked for."""
        read = [value for node in self._coupling.repairs for value in node.inputs]
        for node, repair in self._coupling.repairs.items():
            if (change := repair(self._lengths)) is not None:
                apply_change(node, change, self._graph, self._names)
        for value, axes in self._inserted.items():
            self._pad(value, axes)
        drop_unused(*read)

    def _lengths(self, value: ir.Value | None, axis: int) -> Any:
        """How many indices each index of an axis becomes: where a cut leaves 0 or 1, more."""
        if value is None or axis not in self._inserted.get(value, {}):
            return None
        size = self._sizes[value, axis]
        lengths = np.ones(size, dtype=np.int64)
        places = np.concatenate(self._inserted[value][axis])
        np.add.at(lengths, places - 1, 1)
        return lengths

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
        new = add_initializer(self._graph, self._names.fresh(value.name or "weight"), array)
        value.replace_all_uses_with(new)
        drop_unused(value)
