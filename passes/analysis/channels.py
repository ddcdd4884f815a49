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

What an operator does is a small function in :mod:`.channel_rules`. Whatever no rule accounts for
(an unknown operator, a subgraph, a second use of a weight, a graph output) freezes the labels that
reach it, so an operator that nobody thought of costs savings, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..graph import is_constant, is_op
from .channel_labels import Labels, LabelSets
from .channel_sizes import move_sizes
from .shapes import inferred_shapes

Dims: TypeAlias = tuple[int | str | None, ...]
"""A shape: a number, a name or nothing known per axis."""

OpId: TypeAlias = tuple[str, str]
"""Domain (empty for the standard one) and operator type."""

_SIZE = -1
"""Stands for the axis where a use concerns the values in a tensor of sizes, not an axis."""


@dataclass(frozen=True)
class Member:
    """The part of one axis, ``size`` long, of one tensor that belongs to a group.

    Index ``positions[i]`` along ``axis`` of ``value`` belongs to channel ``channels[i]`` of the
    group.
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

    ``reshapes`` holds, for each Reshape that hands channels on, the shape to ask for; only the
    entries of axes with channels change when some are removed.
    """

    groups: tuple[ChannelGroup, ...]
    reshapes: Mapping[ir.Node, tuple[int, ...]]


def channel_groups(model: ir.Model, rules: Mapping[OpId, Rule]) -> Coupling:
    """Find the coupled channel groups of the main graph of ``model``, which is not changed.

    ``rules`` are usually :data:`.channel_rules.RULES`, or these and more. Nodes must be in
    topological order, as ONNX demands.
    """
    flow = ChannelFlow(inferred_shapes(model))
    for node in model.graph:
        if not move_sizes(node, flow):
            flow.visit(
                node, rules.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
            )
    return Coupling(tuple(flow.groups()), flow.reshapes)


class ChannelFlow:
    """What the rules work on: the labels of every axis seen so far, and which belong together.

    An axis may be given negative, counted from the end. ``None`` for labels means that the axis
    has none: nothing can be removed along it, as along the batch or the height.
    """

    def __init__(self, shapes: Mapping[ir.Value, ir.Shape]) -> None:
        self.reshapes: dict[ir.Node, tuple[int, ...]] = {}
        self._shapes = shapes
        self._labels: dict[tuple[ir.Value, int], Labels] = {}
        self._sizes: dict[ir.Value, tuple[Labels | None, ...]] = {}
        self._sets = LabelSets()
        self._accounted: set[tuple[ir.Node, int, int]] = set()
        self._refusals: dict[ir.Node, str] = {}

    def visit(self, node: ir.Node, rule: Rule | None) -> None:
        """Let ``rule`` say what ``node`` does to channels."""
        refusal = rule(node, self) if rule else "the operator has no channel rule"
        if refusal:
            self._refusals[node] = refusal

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The shape of ``value``, or ``None`` if not even its rank is known."""
        shape = None if value is None else self._shapes.get(value, value.shape)
        if shape is None:
            return None
        return tuple(dim if isinstance(dim, int) else dim.value for dim in shape)

    def labels(self, value: ir.Value | None, axis: int) -> Labels | None:
        """The labels along ``axis`` of ``value``."""
        place = self._place(value, axis)
        return None if place is None else self._labels.get(place)

    def read(self, node: ir.Node, index: int, axis: int) -> Labels | None:
        """The labels along ``axis`` of input ``index``, which the rule herewith accounts for."""
        place = self._place(_input(node, index), axis)
        if place is None or place not in self._labels:
            return None
        self._accounted.add((node, index, place[1]))
        return self._labels[place]

    def weight(self, node: ir.Node, index: int, axis: int) -> Labels | None:
        """As :meth:`read`, but a constant gets labels if it has none: it can be sliced."""
        place = self._place(_input(node, index), axis)
        if place is not None:
            self._label_constant(*place)
        return self.read(node, index, axis)

    def write(self, node: ir.Node, axis: int, labels: Labels | None, output: int = 0) -> None:
        """Put ``labels``, if any, on ``axis`` of an output of ``node``."""
        if labels is None:
            return
        place = self._place(node.outputs[output], axis)
        if place is None:
            self.freeze(labels, f"the shape of what {describe(node)} computes is not known")
        else:
            self._labels[place] = labels

    def carry(self, node: ir.Node, axis: int, output_axis: int) -> None:
        """Hand the labels along ``axis`` of the first input on to the first output."""
        self.write(node, output_axis, self.read(node, 0, axis))

    def join(
        self, node: ir.Node, places: Sequence[tuple[int, int]], output_axis: int | None = None
    ) -> None:
        """Tie the axes ``places`` (input index, axis) index by index, and hand the labels on.

        Constants get labels. A place that has none freezes the others.
        """
        found = [labels for place in places if (labels := self.read(node, *place)) is not None]
        if not found:
            return
        first = found[0]
        for place in places:
            labels = self.weight(node, *place)
            if labels is not None and len(labels) == len(first):
                self.tie(first, labels)
            else:
                other = node.inputs[place[0]]
                fixed = repr(other.name) if other is not None else "an input"
                self.freeze(first, f"{describe(node)} combines them with {fixed}, which is fixed")
        if output_axis is not None:
            self.write(node, output_axis, first)

    def tie(self, first: Labels, second: Labels) -> None:
        """Make the labels at the same place of ``first`` and ``second`` go together."""
        self._sets.join(first, second)

    def freeze(self, labels: Labels, because: str) -> None:
        """Forbid the removal of ``labels``."""
        self._sets.freeze(labels, because)

    def fixed(self, size: int, because: str) -> Labels:
        """New labels that cannot be removed."""
        labels = self._sets.new(size)
        self.freeze(labels, because)
        return labels

    def sizes(self, value: ir.Value | None) -> tuple[Labels | None, ...] | None:
        """For each element of a tensor of sizes, the labels along the axis it is the size of."""
        return None if value is None else self._sizes.get(value)

    def read_sizes(self, node: ir.Node, index: int) -> tuple[Labels | None, ...] | None:
        """As :meth:`sizes`, for input ``index``; the caller herewith accounts for them."""
        self._accounted.add((node, index, _SIZE))
        return self.sizes(_input(node, index))

    def write_sizes(self, node: ir.Node, sizes: Iterable[Labels | None]) -> None:
        """Say what the tensor of sizes computed by ``node`` holds."""
        self._sizes[node.outputs[0]] = tuple(sizes)

    def groups(self) -> Iterator[ChannelGroup]:
        """The groups, once every node was visited."""
        self._freeze_what_is_not_accounted_for()
        places = list(self._labels)
        roots = [[self._sets.root(label) for label in self._labels[at].tolist()] for at in places]
        homes: dict[int, list[int]] = {}
        for number, axis_roots in enumerate(roots):
            for root in dict.fromkeys(axis_roots):
                homes.setdefault(root, []).append(number)
        together: dict[tuple[tuple[int, ...], str], dict[int, int]] = {}
        for root, numbers in homes.items():
            known = together.setdefault((tuple(numbers), self._sets.frozen(root)), {})
            known[root] = len(known)
        for (axes, frozen), known in together.items():
            members = tuple(_member(*places[at], roots[at], known) for at in axes)
            if any(is_constant(member.value) for member in members):
                yield ChannelGroup(_name(members), len(known), members, frozen)

    def _freeze_what_is_not_accounted_for(self) -> None:
        places = [(value, axis, labels) for (value, axis), labels in self._labels.items()]
        for value, sizes in self._sizes.items():
            places += [(value, _SIZE, labels) for labels in sizes if labels is not None]
        for value, axis, labels in places:
            if value.is_graph_output():
                self.freeze(labels, f"they reach the graph output {value.name!r}")
            for node, index in value.uses():
                if (node, index, axis) in self._accounted:
                    continue
                if axis == _SIZE:
                    self.freeze(labels, f"{describe(node)} computes with their number")
                    continue
                inner = node.graph is not value.graph
                unread = "it is in a subgraph" if inner else "it reads them in another way"
                because = self._refusals.get(node, unread)
                self.freeze(labels, f"they reach {describe(node)}: {because}")

    def _place(self, value: ir.Value | None, axis: int) -> tuple[ir.Value, int] | None:
        dims = self.dims(value)
        if value is None or dims is None or not -len(dims) <= axis < len(dims):
            return None
        return value, axis % len(dims)

    def _label_constant(self, value: ir.Value, axis: int) -> Labels | None:
        if (value, axis) in self._labels:
            return self._labels[value, axis]
        labels, producer = None, value.producer()
        if is_constant(value):
            size = (self.dims(value) or ())[axis]
            labels = self._sets.new(size) if isinstance(size, int) else None
        elif producer is not None and is_op(producer, "Identity") and producer.inputs[0]:
            # Exporters store equal tensors once and copy them by Identity.
            labels = self._label_constant(producer.inputs[0], axis)
            self._accounted.add((producer, 0, axis))
        if labels is not None:
            self._labels[value, axis] = labels
        return labels


# Below the class, not a forward reference: the type hints of a pass with rules are evaluated.
Rule: TypeAlias = Callable[[ir.Node, ChannelFlow], str | None]
"""Hands labels from the inputs of a node to its outputs.

It returns ``None``, or why it could not account for some label it may have met.
"""


def describe(node: ir.Node) -> str:
    """Operator and name of ``node``, for a sentence."""
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _member(value: ir.Value, axis: int, roots: list[int], known: Mapping[int, int]) -> Member:
    pairs = [(at, known[root]) for at, root in enumerate(roots) if root in known]
    positions, channels = np.array(pairs, dtype=np.int64).T
    return Member(value, axis, len(roots), positions, channels)


def _name(members: Sequence[Member]) -> str:
    computed = [member.value for member in members if not is_constant(member.value)]
    return (computed or [members[0].value])[0].name or ""
