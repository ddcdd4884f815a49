"""What channel rules work on: the labels of every axis, and what has to follow a cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ..graph import constant, is_constant, is_op
from .channel_dims import Dims, KnownDims
from .channel_labels import Labels, LabelSets
from .channel_reshapes import Size

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""For each channel of a group, or each index of an axis, whether it stays."""

Stays: TypeAlias = Callable[[ir.Value | None, int], Mask | None]
"""What stays of an axis of a tensor; ``None`` where nothing was cut out of it."""

NO_SHAPE = "a shape is not known there"

_SIZE = -1
"""Stands for the axis where a use concerns the values in a tensor of sizes, not an axis."""


@dataclass(frozen=True)
class Change:
    """What a node needs once channels are gone: new integers as inputs, new attributes."""

    inputs: Mapping[int, Sequence[int]] = field(default_factory=dict)
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    without: Sequence[str] = ()
    """Attributes that go."""


Repair: TypeAlias = Callable[[Stays], Change | None]
"""Says what a node needs after a cut, if anything."""


class ChannelFlow:
    """The labels of every axis seen so far, and which belong together.

    An axis may be given negative, counted from the end. ``None`` for labels means that the axis
    has none: nothing can be removed along it, as along the batch or the height. Labels may be
    fewer than the indices of their axis where its size is not fixed: they then repeat, as heads
    do along an axis that batch and heads were merged into.

    ``repairs`` and ``refusals`` are for rules to fill; ``merged`` tells what the size of such an
    axis is the product of, by its name.
    """

    def __init__(self, known: KnownDims, opset: int) -> None:
        self.opset = opset
        self.known = known
        self.repairs: dict[ir.Node, Repair] = {}
        self.merged: dict[str, Size] = {}
        self.refusals: dict[ir.Node, str] = {}
        self._labels: dict[tuple[ir.Value, int], Labels] = {}
        self._sizes: dict[ir.Value, tuple[Labels | None, ...]] = {}
        self._sets = LabelSets()
        self._accounted: set[tuple[ir.Node, int, int]] = set()

    def visit(self, node: ir.Node, rule: Rule | None) -> None:
        """Let ``rule`` say what ``node`` does to channels."""
        refusal = rule(node, self) if rule else "the operator has no channel rule"
        if refusal:
            self.refusals[node] = refusal

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The shape of ``value``, or ``None`` if not even its rank is known."""
        return None if value is None else self.known.dims(value)

    def labels(self, value: ir.Value | None, axis: int) -> Labels | None:
        """The labels along ``axis`` of ``value``."""
        place = self._place(value, axis)
        return None if place is None else self._labels.get(place)

    def same(self, first: Labels | None, second: Labels | None) -> bool:
        """Whether both are labels that go together index by index already."""
        if first is None or second is None or len(first) != len(second):
            return False
        return bool((self.roots(first) == self.roots(second)).all())

    def roots(self, labels: Labels) -> Labels:
        """The labels that stand for ``labels``: equal where they go together."""
        return self._sets.roots(labels)

    def read(self, node: ir.Node, index: int, axis: int) -> Labels | None:
        """The labels along ``axis`` of input ``index``, which the rule herewith accounts for."""
        place = self._place(input_of(node, index), axis)
        if place is None or place not in self._labels:
            return None
        self._accounted.add((node, index, place[1]))
        return self._labels[place]

    def weight(self, node: ir.Node, index: int, axis: int) -> Labels | None:
        """As :meth:`read`, but a constant gets labels if it has none: it can be sliced."""
        place = self._place(input_of(node, index), axis)
        if place is not None:
            self._label_constant(*place)
        return self.read(node, index, axis)

    def write(self, node: ir.Node, axis: int, labels: Labels | None, output: int = 0) -> None:
        """Put ``labels``, if any, on ``axis`` of an output of ``node``."""
        if labels is None or output >= len(node.outputs):
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

    def new(self, size: int) -> Labels:
        """New labels that can be removed, such as the units of a recurrent layer."""
        return self._sets.new(size)

    def sizes(self, value: ir.Value | None) -> tuple[Labels | None, ...] | None:
        """For each element of a tensor of sizes, the labels along the axis it is the size of."""
        return None if value is None else self._sizes.get(value)

    def read_sizes(self, node: ir.Node, index: int) -> tuple[Labels | None, ...] | None:
        """As :meth:`sizes`, for input ``index``; the caller herewith accounts for them."""
        self._accounted.add((node, index, _SIZE))
        return self.sizes(input_of(node, index))

    def write_sizes(self, node: ir.Node, sizes: Iterable[Labels | None]) -> None:
        """Say what the tensor of sizes computed by ``node`` holds."""
        self._sizes[node.outputs[0]] = tuple(sizes)

    def places(self) -> Iterator[tuple[ir.Value, int, Labels]]:
        """Every axis with labels, once every node was visited; each label as its set's root."""
        self._freeze_what_is_not_accounted_for()
        for (value, axis), labels in self._labels.items():
            yield value, axis, self.roots(labels)

    def frozen(self, labels: Labels) -> tuple[Labels, list[str]]:
        """Why ``labels`` must not be removed: a number for each, and the reasons by number.

        The first of these is empty, for what may be removed.
        """
        return self._sets.frozen(labels), self._sets.reasons()

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
                because = self.refusals.get(node, "it reads them in another way")
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
        elif is_op(producer, "Identity", "DequantizeLinear") and producer.inputs[0]:
            # Exporters store equal tensors once and copy them by Identity.
            labels = self._label_constant(producer.inputs[0], axis)
            self._accounted.add((producer, 0, axis))
            if labels is not None and not is_op(producer, "Identity"):
                self._label_scales(producer, axis, labels)
        if labels is not None:
            self._labels[value, axis] = labels
        return labels

    def _label_scales(self, node: ir.Node, axis: int, labels: Labels) -> None:
        """What dequantizes a weight by channel loses the channels that the weight loses."""
        for index in range(1, len(node.inputs)):
            dims = self.dims(node.inputs[index])
            if dims and len(dims) == 1 and dims[0] == len(labels) and _axis(node, self) == axis:
                scales = self.weight(node, index, 0)
                if scales is None:
                    self.freeze(labels, f"{describe(node)} scales them by what is not constant")
                else:
                    self.tie(labels, scales)
            elif dims is None or len(dims) > 1:
                self.freeze(labels, f"{describe(node)} scales them in blocks")


# Below the class, not a forward reference: the type hints of a pass with rules are evaluated.
Rule: TypeAlias = Callable[[ir.Node, ChannelFlow], str | None]
"""Hands labels from the inputs of a node to its outputs.

It returns ``None``, or why it could not account for some label it may have met.
"""


def describe(node: ir.Node) -> str:
    """Operator and name of ``node``, for a sentence."""
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """The input ``index`` of ``node``, if it has one."""
    return node.inputs[index] if index < len(node.inputs) else None


def integers(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """Integers that older operator versions take as attribute, newer ones as constant input."""
    if name in node.attributes:
        return tuple(node.attributes.get_ints(name, ()))
    array = constant(input_of(node, index))
    return None if array is None else tuple(int(number) for number in array.ravel())


def _axis(node: ir.Node, flow: ChannelFlow) -> int:
    rank = len(flow.dims(node.inputs[0]) or ())
    return node.attributes.get_int("axis", 1) % max(rank, 1)
