"""Reading and writing the operators that move elements, as each version of ONNX takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, graph_of, take_over
from .constants import ConstantWriter

AXES_AS_INPUT = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13}
"""Since when an operator takes its axes as an input; the other reductions do since version 18."""

FURTHEST = 2**63 - 1
"""What exporters write for the end of an axis."""


class Opsets:
    """The version of ONNX's own operators that holds for a node."""

    def __init__(self, model: ir.Model) -> None:
        self._main = model.opset_imports.get("", 0)
        self._bodies = {
            graph: function.opset_imports.get("", self._main)
            for function in model.functions.values()
            for graph in (function.graph, *function.graph.subgraphs())
        }

    def of(self, node: ir.Node) -> int:
        """The version for ``node``."""
        if node.graph is None or not self._bodies:
            return self._main
        return self._bodies.get(graph_of(node), self._main)


def is_settled(node: ir.Node) -> bool:
    """Whether ``node`` is one of ONNX's own, with all its attributes given."""
    if node.domain not in {"", "ai.onnx"}:
        return False
    return not any(attribute.is_ref() for attribute in node.attributes.values())


def numbers(node: ir.Node, index: int, name: str) -> list[int] | None:
    """Integers that ``node`` takes as a constant input, or as an attribute in older versions.

    ``None`` if they are left out, or are not constant: see :func:`has_input`.
    """
    if has_input(node, index):
        array = constant(node.inputs[index])
        return None if array is None else [int(item) for item in array.reshape(-1)]
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.value]


def has_input(node: ir.Node, index: int) -> bool:
    """Whether ``node`` has an input at ``index``."""
    return index < len(node.inputs) and node.inputs[index] is not None


def axes_of(node: ir.Node, rank: int) -> list[int] | None:
    """The axes that ``node`` names, counted from the front among ``rank``, sorted."""
    axes = numbers(node, 1, "axes")
    if axes is None or not all(-rank <= axis < rank for axis in axes):
        return None
    return sorted({axis % rank for axis in axes})


def permutation(node: ir.Node, rank: int | None = None) -> list[int] | None:
    """The permutation of a ``Transpose``; reversed axes by default, if the ``rank`` is known."""
    given = node.attributes.get_ints("perm", None)
    if given is not None:
        return [int(axis) for axis in given]
    return None if rank is None else list(range(rank))[::-1]


def compose(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The permutation that does ``first`` and then ``second``."""
    return [first[axis] for axis in second]


def inverse(perm: Sequence[int]) -> list[int]:
    """The permutation that undoes ``perm``."""
    undone = [0] * len(perm)
    for place, axis in enumerate(perm):
        undone[axis] = place
    return undone


@dataclass(frozen=True)
class Place:
    """Writes nodes in front of ``node``, and constants that they read.

    Attributes:
        node: The node in front of which others are put.
        opset: The version of ONNX's operators there.
        writer: Adds the constants.
        base: What new values are called after.
    """

    node: ir.Node
    opset: int
    writer: ConstantWriter
    base: str

    def add(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | Sequence[ir.Attr] = (),
        like: ir.Value | None = None,
    ) -> ir.Value:
        """A node with one output, of the element type of ``like``."""
        if isinstance(attributes, Mapping):
            attributes = ir.convenience.convert_attributes(attributes)
        output = ir.Value(name=self.writer.names.fresh(f"{self.base}.{kind.lower()}"))
        if like is not None:
            output.type = like.type
        new = ir.Node("", kind, inputs, attributes, outputs=[output])
        graph_of(self.node).insert_before(self.node, new)
        return output

    def answer(self, new: ir.Value) -> None:
        """Let ``new`` be what the node here answers, which is then not read any more."""
        old, graph = self.node.outputs[0], graph_of(self.node)
        is_own = new.producer() is not None and new.graph is graph and not new.is_graph_output()
        if is_own and not new.uses():
            take_over(new, old)
        elif old.is_graph_output():
            take_over(self.add("Identity", [new], like=old), old)
        else:
            old.replace_all_uses_with(new)

    def ints(self, what: str, items: Sequence[int]) -> ir.Value:
        """A constant vector of ``int64``."""
        return self.constant(what, np.array(items, np.int64))

    def constant(self, what: str, array: Array | ir.TensorProtocol) -> ir.Value:
        """A constant named after ``what`` it is."""
        return self.writer.add(graph_of(self.node), f"{self.base}.{what}", array, self.node)

    def transpose(self, x: ir.Value, perm: Sequence[int]) -> ir.Value:
        """``x`` with its axes in another order, or ``x`` itself where the order is the same."""
        if list(perm) == sorted(perm):
            return x
        return self.add("Transpose", [x], {"perm": list(perm)}, like=x)

    def squeeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """``x`` without ``axes``, which have the size 1."""
        return self.with_axes("Squeeze", x, axes)

    def unsqueeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """``x`` with ``axes`` of size 1, counted in the result."""
        return self.with_axes("Unsqueeze", x, axes)

    def with_axes(
        self, kind: str, x: ir.Value, axes: Sequence[int], attributes: Mapping[str, Any] = {}
    ) -> ir.Value:
        """An operator that takes axes as an input or, in older versions, as an attribute."""
        if not axes:
            return x
        if self.opset < AXES_AS_INPUT.get(kind, 18):
            return self.add(kind, [x], {**attributes, "axes": list(axes)}, like=x)
        return self.add(kind, [x, self.ints("axes", axes)], attributes, like=x)

    def reshape(self, x: ir.Value, target: Sequence[int]) -> ir.Value:
        """``x`` in the shape ``target``, which may copy sizes by 0 and leave one open by -1."""
        return self.add("Reshape", [x, self.ints("shape", target)], like=x)

    def slice(self, x: ir.Value, axis: int, start: int, stop: int, step: int = 1) -> ir.Value:
        """Part of ``x`` along one axis."""
        parts = {"starts": [start], "ends": [stop], "axes": [axis]}
        if self.opset < 10:
            return self.add("Slice", [x], parts, like=x)
        steps = {"steps": [step]} if step != 1 else {}
        inputs = [self.ints(name, items) for name, items in {**parts, **steps}.items()]
        return self.add("Slice", [x, *inputs], like=x)

    def gather(self, x: ir.Value, axis: int, indices: Sequence[int]) -> ir.Value:
        """Elements of ``x`` along one axis."""
        return self.add("Gather", [x, self.ints("indices", indices)], {"axis": axis}, like=x)

    def concat(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """``parts`` joined along one axis."""
        return self.add("Concat", parts, {"axis": axis}, like=parts[0])


class Places:
    """Makes a :class:`Place` of any node of a model."""

    def __init__(self, model: ir.Model) -> None:
        self.writer = ConstantWriter(model)
        self._opsets = Opsets(model)

    def before(self, node: ir.Node) -> Place:
        """The place in front of ``node``; values there are called after what it answers."""
        base = node.outputs[0].name or node.op_type
        return Place(node, self._opsets.of(node), self.writer, base)
