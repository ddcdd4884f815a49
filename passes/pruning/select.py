"""Which channels go, so that only a given part of the multiply-accumulates (MACs) is left."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channel_labels import Labels
from ..analysis.channels import ChannelGroup
from ..analysis.macs import node_macs
from ..graph import is_op
from .importance import Scores
from .slice import Mask

Scope: TypeAlias = Literal["global", "uniform"]


@dataclass(frozen=True)
class Extent:
    """An axis that a node multiplies over: its size, and per group how often each channel is on it.

    The indices that belong to no group stay.
    """

    size: int
    counts: Mapping[int, Labels]

    def left(self, masks: Sequence[Mask]) -> float:
        """The part of the axis that is left."""
        gone = sum(int(count[~masks[group]].sum()) for group, count in self.counts.items())
        return (self.size - gone) / self.size


@dataclass(frozen=True)
class NodeWork:
    """The MACs of one node, proportional to what is left of each of the ``extents``."""

    macs: int
    extents: tuple[Extent, ...]

    def left(self, masks: Sequence[Mask]) -> float:
        """The MACs that are left."""
        count = float(self.macs)
        for extent in self.extents:
            count *= extent.left(masks)
        return count


class Work:
    """The MACs of a graph as a function of the channels that stay: one mask per group."""

    def __init__(self, nodes: Sequence[NodeWork], groups: int) -> None:
        self.nodes = tuple(nodes)
        self.of_group: list[list[int]] = [[] for _ in range(groups)]
        for number, node in enumerate(self.nodes):
            for group in dict.fromkeys(g for extent in node.extents for g in extent.counts):
                self.of_group[group].append(number)

    def total(self, masks: Sequence[Mask]) -> float:
        """All MACs that are left."""
        return sum(node.left(masks) for node in self.nodes)


def work_of(model: ir.Model, sized: ir.Model, groups: Sequence[ChannelGroup]) -> Work:
    """The work of the main graph of ``model``.

    ``sized`` is a clone of it whose values all have shapes without names.
    """
    extents: dict[tuple[ir.Value, int], Extent] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            counts = np.bincount(member.channels, minlength=group.size)
            place = (member.value, member.axis)
            known = extents[place].counts if place in extents else {}
            extents[place] = Extent(member.size, {**known, number: counts})
    nodes = []
    for node, twin in zip(model.graph, sized.graph, strict=True):
        if count := node_macs(twin):
            places = [(node.inputs[index], axis) for index, axis in _multiplied(twin)]
            own = [extents[place] for place in places if place in extents]
            nodes.append(NodeWork(count, tuple(own)))
    return Work(nodes, len(groups))


def _multiplied(node: ir.Node) -> list[tuple[int, int]]:
    """The axes (input, axis) that may have channels and that the MACs are proportional to."""
    if is_op(node, "Conv"):
        return [(1, 0), (1, 1)]
    if is_op(node, "Gemm"):
        return [(0, 1 if node.attributes.get_int("transA", 0) else 0), (1, 0), (1, 1)]
    if is_op(node, "MatMul"):
        left, right = (len(value.shape or ()) if value else 0 for value in node.inputs)
        return [(0, left - 2), (1, right - 2), (1, right - 1)]
    return []


def select(
    scores: Sequence[Scores], work: Work, budget: int, scope: Scope, min_channels: int
) -> list[Mask]:
    """Masks of the channels that stay, so that ``work`` is at most ``budget`` MACs.

    ``global`` takes the least important channels of the whole graph, ``uniform`` the same part of
    each group. ``scores`` have the mean 1 in each group, so that none is emptied for its small
    weights; ``min_channels`` of each stay in any case. Groups without work stay whole. If even
    the least that may stay is more than ``budget``, that is the answer.
    """
    masks = [np.ones(len(score), dtype=np.bool_) for score in scores]
    removable = [
        len(score) - min_channels if work.of_group[group] else 0
        for group, score in enumerate(scores)
    ]
    cut = _cut_least if scope == "global" else _cut_evenly
    # Half a MAC is room for rounding: the true number is whole.
    cut(scores, work, budget + 0.5, removable, masks)
    return masks


def _cut_least(
    scores: Sequence[Scores],
    work: Work,
    budget: float,
    removable: list[int],
    masks: Sequence[Mask],
) -> None:
    ranked = sorted(
        (score, group, channel)
        for group, each in enumerate(scores)
        for channel, score in enumerate(each.tolist())
    )
    left = [node.left(masks) for node in work.nodes]
    total = sum(left)
    for _, group, channel in ranked:
        if total <= budget:
            return
        if removable[group] > 0:
            removable[group] -= 1
            masks[group][channel] = False
            for number in work.of_group[group]:
                now = work.nodes[number].left(masks)
                total += now - left[number]
                left[number] = now


def _cut_evenly(
    scores: Sequence[Scores],
    work: Work,
    budget: float,
    removable: list[int],
    masks: Sequence[Mask],
) -> None:
    ranked = [np.argsort(score, kind="stable") for score in scores]

    def fits(part: float) -> bool:
        for mask, order, most in zip(masks, ranked, removable, strict=True):
            mask[:] = True
            mask[order[: min(int(part * len(order) + 1e-9), max(most, 0))]] = False
        return work.total(masks) <= budget

    parts = sorted({n / len(mask) for mask in masks for n in range(len(mask))})
    smallest = bisect_left(parts, True, key=fits)
    fits(parts[min(smallest, len(parts) - 1)])
