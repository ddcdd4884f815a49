"""Coupled channel groups: which channels of which tensors can only be removed together.

Removing an output channel of a convolution removes a row of its weight and an element of its
bias, a channel of every tensor the result flows through, the same channel of whatever is added to
it, and a column of every weight that reads it. This module finds those sets. The idea is that of
DepGraph (Fang et al., CVPR 2023), carried out on ONNX: an axis of a tensor carries one label per
index, operators hand labels on, and a union-find joins labels that have to go together. A flatten
from 64 channels of 5x5 to 1600 features then hands on each label 25 times, in whichever order the
layout has them.

Example: in ``y = Add(Conv(x, w), Conv(x, v))`` the rows of ``w`` and of ``v`` are one group,
because the sum needs both.

What an operator does is a small function, listed in :mod:`.channel_rules`. Whatever no rule
accounts for (an unknown operator, a second use of a weight, a graph output) freezes the labels that
reach it, so an operator that nobody thought of costs savings, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..graph import is_constant, nodes_in
from .channel_dims import KnownDims
from .channel_flow import ChannelFlow, Repair, Rule
from .channel_labels import Labels
from .channel_sizes import move_sizes

__all__ = ["ChannelGroup", "Coupling", "Member", "OpId", "Rule", "channel_groups"]

OpId: TypeAlias = tuple[str, str]
"""Domain (empty for the standard one) and operator type."""


@dataclass(frozen=True)
class Member:
    """The part of one axis, ``size`` long, of one tensor that belongs to a group.

    Index ``positions[i]`` along ``axis`` of ``value`` belongs to channel ``channels[i]`` of the
    group. Where the size of the axis is not fixed, it is a multiple of ``size``, over and over.
    """

    value: ir.Value
    axis: int
    size: int
    positions: Labels
    channels: Labels


@dataclass(frozen=True)
class ChannelGroup:
    """Channels, numbered from 0 to ``size - 1``, that live on the same axes of the same tensors.

    Each of them can be removed alone, from all ``members`` at once, unless ``frozen`` says why
    none can. ``name`` is that of the first tensor computed with these channels.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen: str = ""


@dataclass(frozen=True)
class Coupling:
    """All channel groups of a graph, in the order in which the channels come into being.

    ``repairs`` say what nodes need once channels are gone, such as the sizes of a Split or the
    shape that a Reshape asks for. ``refusals`` say of nodes why their rule could not account for
    all that it may have met.
    """

    groups: tuple[ChannelGroup, ...]
    repairs: Mapping[ir.Node, Repair]
    refusals: Mapping[ir.Node, str]


def channel_groups(model: ir.Model, rules: Mapping[OpId, Rule]) -> Coupling:
    """Find the coupled channel groups of ``model``, which is not changed.

    Subgraphs are looked into, functions are not. ``rules`` are usually
    :data:`.channel_rules.RULES`, or these and more. Nodes must be in topological order, as ONNX
    demands.

    Raises:
        ModelError: Shapes cannot be inferred at all.
    """
    flow = ChannelFlow(KnownDims(model), model.opset_imports.get("", 0))
    for node in nodes_in(model.graph):
        if not move_sizes(node, flow):
            domain = "" if node.domain == "ai.onnx" else node.domain
            flow.visit(node, rules.get((domain, node.op_type)))
    return Coupling(tuple(_groups(flow)), flow.repairs, flow.refusals)


def _groups(flow: ChannelFlow) -> Iterator[ChannelGroup]:
    places = list(flow.places())
    if not places:
        return
    roots, firsts = np.unique(np.concatenate([one[2] for one in places]), return_index=True)
    roots = roots[np.argsort(firsts)]
    number = np.empty(roots.max() + 1, np.int64)
    number[roots] = np.arange(len(roots))
    axes = [number[labels] for _, _, labels in places]
    frozen, reasons = flow.frozen(roots)
    group = _divided(frozen, axes)
    channel = _counted(group)
    size = np.bincount(group)
    homes: dict[int, list[int]] = {}
    for at, labels in enumerate(axes):
        for one in np.unique(group[labels]).tolist():
            homes.setdefault(one, []).append(at)
    _, firsts = np.unique(group, return_index=True)
    for first in np.sort(firsts).tolist():
        kind = int(group[first])
        if any(is_constant(places[at][0]) for at in homes[kind]):
            members = []
            for at in homes[kind]:
                value, axis, labels = places[at]
                positions = np.flatnonzero(group[axes[at]] == kind)
                channels = channel[axes[at][positions]]
                members.append(Member(value, axis, len(labels), positions, channels))
            because = reasons[frozen[first]]
            yield ChannelGroup(_name(members), int(size[kind]), tuple(members), because)


def _divided(start: Labels, axes: Sequence[Labels]) -> Labels:
    """A number for each label: the same for those of one number in ``start`` on the same axes."""
    _, group = np.unique(start, return_inverse=True)
    count = len(group)
    for labels in axes:
        here = np.unique(labels)
        before, within = np.unique(group[here], return_inverse=True)
        group[here] = count + within
        count += len(before)
    return group


def _counted(group: Labels) -> Labels:
    """For each label, how many before it have the same number in ``group``."""
    order = np.argsort(group, kind="stable")
    _, firsts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    counted = np.empty_like(group)
    counted[order] = np.arange(len(group)) - np.repeat(firsts, sizes)
    return counted


def _name(members: Sequence[Member]) -> str:
    computed = [member.value for member in members if not is_constant(member.value)]
    return (computed or [members[0].value])[0].name or ""
