"""Which channels go, so that only a given part of the multiply-accumulates (MACs) is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channel_labels import Labels
from ..analysis.channels import ChannelGroup
from ..analysis.macs import node_macs
from ..graph import constant_tensor, is_op
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
        left, right = (_rank(value) for value in node.inputs)
        return [(0, left - 2), (1, right - 2), (1, right - 1)]
    return []


def _rank(value: ir.Value | None) -> int:
    """A weight may come without a shape beside it."""
    tensor = None if value is None else constant_tensor(value)
    shape = tensor.shape if tensor is not None else value.shape if value is not None else None
    return 0 if shape is None else len(shape)


def select(
    scores: Sequence[Scores],
    work: Work,
    budget: int,
    scope: Scope,
    *,
    min_channels: int,
    steps: Sequence[int],
) -> list[Mask]:
    """Masks of the channels that stay, so that ``work`` is at most ``budget`` MACs.

    Args:
        scores: For each group the importance of its channels, with the mean 1, so that no group
            is emptied for its small weights.
        work: The MACs; groups without any stay whole.
        budget: How many may be left. If even the least that may stay is more, that comes back.
        scope: ``global`` takes the least important channels of all, ``uniform`` the same part of
            each group.
        min_channels: How many channels of each group stay at least.
        steps: For each group, what the number of channels that stay is a multiple of. Where the
            budget cannot be met that way, half of it, and so on.
    """
    blocks = [
        block
        for group, (each, step) in enumerate(zip(scores, steps, strict=True))
        if work.of_group[group]
        for block in _blocks(group, each, step, min_channels)
    ]
    blocks.sort(key=lambda b: (b.halvings, b.score if scope == "global" else b.part))
    # Half a MAC is room for rounding: the true number is whole.
    return _cut(blocks, work, budget + 0.5, [len(score) for score in scores])


@dataclass(frozen=True)
class _Block:
    """Channels of a group that go together, after all blocks of the group before it.

    ``part`` of the group is gone then. ``halvings`` is how often the step had to be halved.
    """

    group: int
    channels: Labels
    score: float
    part: float
    halvings: int


def _blocks(group: int, scores: Scores, step: int, min_channels: int) -> Iterator[_Block]:
    """The channels of a group in the order in which they may go."""
    order = np.argsort(scores, kind="stable")
    gone, size, halvings = 0, len(order), 0
    while (left := size - gone) > min_channels:
        while step > 1 and left - (left % step or step) < max(min_channels, step):
            step, halvings = step // 2, halvings + 1
        channels = order[gone : gone + (left % step or step)]
        gone += len(channels)
        yield _Block(group, channels, float(scores[channels].mean()), gone / size, halvings)


def _cut(blocks: Sequence[_Block], work: Work, budget: float, sizes: Sequence[int]) -> list[Mask]:
    """Remove ``blocks`` in order until the budget is met, then put back what turns out to fit."""
    masks = [np.ones(size, dtype=np.bool_) for size in sizes]
    left = [node.left(masks) for node in work.nodes]

    def put(block: _Block, stays: bool) -> None:
        masks[block.group][block.channels] = stays
        for number in work.of_group[block.group]:
            left[number] = work.nodes[number].left(masks)

    removed: list[_Block] = []
    for block in blocks:
        if sum(left) <= budget:
            break
        put(block, False)
        removed.append(block)
    settled: set[int] = set()
    for block in reversed(removed):
        if block.group not in settled:
            put(block, True)
            if sum(left) > budget:
                put(block, False)
                settled.add(block.group)
    return masks
