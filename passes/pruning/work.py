"""The multiply-accumulates (MACs) of a graph as a function of the channels that stay.

Two numbers go with every choice: the MACs that are left, and those that a kernel does for them,
which computes whole blocks of channels however many of a block there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channel_labels import Labels
from ..analysis.channels import ChannelGroup
from ..analysis.macs import node_macs
from ..graph import constant_tensor, is_op, subgraphs_of
from .slice import Mask

Path: TypeAlias = tuple[tuple[int, int], ...]
"""The branches that a node lies in, from outside in: which If, and which of its branches."""


class Left(NamedTuple):
    """MACs that are left, and those that are ``done`` for them."""

    macs: float
    done: float


@dataclass(frozen=True)
class Extent:
    """An axis that a node multiplies over: its size, and per group how often each channel is on it.

    The indices that belong to no group stay.
    """

    size: int
    counts: Mapping[int, Labels]

    def left(self, masks: Sequence[Mask]) -> int:
        """How many indices of the axis are left."""
        gone = sum(int(count[~masks[group]].sum()) for group, count in self.counts.items())
        return self.size - gone


@dataclass(frozen=True)
class NodeWork:
    """The MACs of one node, proportional to what is left of each of the ``extents``.

    Its kernel takes so many channels at a time as ``block`` says.
    """

    macs: int
    extents: tuple[Extent, ...]
    path: Path = ()
    block: int = 1

    def left(self, masks: Sequence[Mask]) -> Left:
        """The MACs that are left, and those done in whole blocks."""
        macs = done = float(self.macs)
        for extent in self.extents:
            left = extent.left(masks)
            macs *= left / extent.size
            done *= math.ceil(left / self.block) / math.ceil(extent.size / self.block)
        return Left(macs, done)


class Work:
    """The MACs of a graph as a function of the channels that stay: one mask per group."""

    def __init__(self, nodes: Sequence[NodeWork], groups: int) -> None:
        self.nodes = tuple(nodes)
        self._branches = any(node.path for node in nodes)
        self.of_group: list[list[int]] = [[] for _ in range(groups)]
        for number, node in enumerate(self.nodes):
            for group in dict.fromkeys(g for extent in node.extents for g in extent.counts):
                self.of_group[group].append(number)

    def total(self, masks: Sequence[Mask]) -> float:
        """All MACs that are left."""
        return self.sum([node.left(masks).macs for node in self.nodes])

    def sum(self, left: Sequence[float]) -> float:
        """The MACs of all nodes together: of the branches of an If the dearer one counts."""
        if not self._branches:
            return sum(left)
        totals: dict[Path, float] = {(): 0.0}
        for node, macs in zip(self.nodes, left, strict=True):
            totals[node.path] = totals.get(node.path, 0.0) + macs
        while len(totals) > 1:
            depth = max(map(len, totals))
            dearest: dict[Path, float] = {}
            for path in [path for path in totals if len(path) == depth]:
                place = (*path[:-1], (path[-1][0], 0))
                dearest[place] = max(dearest.get(place, 0.0), totals.pop(path))
            for place, macs in dearest.items():
                totals[place[:-1]] = totals.get(place[:-1], 0.0) + macs
        return totals[()]


def work_of(
    model: ir.Model, sized: ir.Model, groups: Sequence[ChannelGroup], block: int = 1
) -> Work:
    """The work of ``model``, of functions apart.

    ``sized`` is a clone of it whose values all have shapes without names; convolutions of images
    take ``block`` channels at a time.
    """
    extents = _extents(groups)
    nodes = []
    twins = zip(_walk(model.graph), _walk(sized.graph), strict=True)
    for (node, path), (twin, _) in twins:
        for count, places in _products(twin):
            axes = [(node.inputs[index], axis) for index, axis in places]
            own = [extents[place] for place in axes if place in extents]
            nodes.append(NodeWork(count, tuple(own), path, block if _is_blocked(twin) else 1))
    return Work(nodes, len(groups))


def parameters_of(groups: Sequence[ChannelGroup]) -> Work:
    """The parameters of ``groups`` as a function of the channels that stay, each tensor once."""
    axes: dict[ir.Value, list[Extent]] = {}
    for (value, _), extent in _extents(groups).items():
        axes.setdefault(value, []).append(extent)
    sizes = {value: constant_tensor(value) for value in axes}
    nodes = [
        NodeWork(tensor.size, tuple(axes[value]))
        for value, tensor in sizes.items()
        if tensor is not None
    ]
    return Work(nodes, len(groups))


def _extents(groups: Sequence[ChannelGroup]) -> dict[tuple[ir.Value, int], Extent]:
    """The axes that channels are on."""
    extents: dict[tuple[ir.Value, int], Extent] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            counts = np.bincount(member.channels, minlength=group.size)
            place = (member.value, member.axis)
            known = extents[place].counts if place in extents else {}
            extents[place] = Extent(member.size, {**known, number: counts})
    return extents


def _walk(graph: ir.Graph, path: Path = ()) -> Iterator[tuple[ir.Node, Path]]:
    """Every node of ``graph`` that is no subgraph's owner, those of its subgraphs as well."""
    for node in graph:
        inner = subgraphs_of(node)
        for branch, one in enumerate(inner):
            alternative = ((id(node), branch),) if is_op(node, "If") else ()
            yield from _walk(one, (*path, *alternative))
        if not inner:
            yield node, path


def _products(node: ir.Node) -> list[tuple[int, list[tuple[int, int]]]]:
    """The MACs of ``node`` in parts, with the axes (input, axis) that each is proportional to."""
    count = node_macs(node)
    if not count:
        return []
    if is_op(node, "LSTM", "GRU", "RNN"):
        read, kept = (math.prod(_sizes(node.inputs[index])) for index in (1, 2))
        own = count * read // (read + kept) if read + kept else 0
        return [(own, [(1, 1), (1, 2)]), (count - own, [(2, 1), (2, 2)])]
    return [(count, _multiplied(node))]


def _is_blocked(node: ir.Node) -> bool:
    return is_op(node, "Conv") and len(_sizes(node.inputs[1])) == 4


def _multiplied(node: ir.Node) -> list[tuple[int, int]]:
    if is_op(node, "Conv", "ConvTranspose"):
        return [(1, 0), (1, 1)]
    if node.op_type in {"Attention", "MultiHeadAttention"}:
        return [(0, 2 if len(_sizes(node.inputs[0])) == 3 else 1)]
    if is_op(node, "Gemm"):
        return [(0, 1 if node.attributes.get_int("transA", 0) else 0), (1, 0), (1, 1)]
    if is_op(node, "MatMul"):
        left, right = (len(_sizes(value)) for value in node.inputs)
        wide, rank = (0, left) if left >= right else (1, right)
        batch = [(wide, axis) for axis in range(rank - 2)]
        return [*batch, (0, left - 2), (1, right - 2), (1, right - 1)]
    return []


def _sizes(value: ir.Value | None) -> list[int]:
    """A weight may come without a shape beside it; a size that is not fixed counts as 1."""
    tensor = None if value is None else constant_tensor(value)
    shape = tensor.shape if tensor is not None else value.shape if value is not None else None
    return [size if isinstance(size, int) else 1 for size in shape or ()]
