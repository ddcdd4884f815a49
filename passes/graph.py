"""Questions passes ask of a graph, and the few edits they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from ..backends.base import Array


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the main graph, of its subgraphs and of the model's functions.

    Safe against edits of the graph while it runs, as ``onnx_ir`` iteration is.
    """
    yield from nodes_in(model.graph)
    for function in model.functions.values():
        yield from nodes_in(function)


def nodes_in(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """Every node of ``graph``, each followed by those of its subgraphs; safe against edits.

    Visited by every pass: ``onnx_ir.traversal`` takes three times as long.
    """
    for node in graph:
        yield node
        for inner in subgraphs_of(node):
            yield from nodes_in(inner)


def is_op(node: ir.Node | None, *op_types: str) -> TypeGuard[ir.Node]:
    """Whether ``node`` is one of the standard operators ``op_types``."""
    return node is not None and node.domain in {"", "ai.onnx"} and node.op_type in op_types


def constant(value: ir.Value | None) -> Array | None:
    """The array behind ``value``, if nothing outside the model can change it.

    The array may be a view of a mapped file: never write to it. Strings come as bytes.
    """
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether :func:`constant` would give an array, without reading it."""
    if value is None or value.is_graph_input():
        return False
    return value.const_value is not None or _constant_attribute(value) is not None


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind ``value``, if nothing outside the model can change it."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value
    attribute = _constant_attribute(value)
    if attribute is None:
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        # as_tensor() checks a runtime protocol, which takes longer than all the rest together.
        tensor: ir.TensorProtocol = attribute.value
        return tensor
    return ir.convenience.get_const_tensor(value)


def _constant_attribute(value: ir.Value) -> ir.Attr | None:
    """The attribute that holds what a ``Constant`` node answers, if it is dense and given."""
    producer = value.producer()
    if not is_op(producer, "Constant") or len(producer.attributes) != 1:
        return None
    (attribute,) = producer.attributes.values()
    return None if attribute.is_ref() or attribute.name == "sparse_value" else attribute


def feeds_only(value: ir.Value, node: ir.Node) -> bool:
    """Whether ``node`` is the one reader of ``value``, and reads it once."""
    return not value.is_graph_output() and [use.node for use in value.uses()] == [node]


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds ``node``.

    Raises:
        ValueError: None does: it was removed, or never put into one.
    """
    if node.graph is None:
        raise ValueError(f"{node.name or node.op_type} is in no graph")
    return node.graph


class Names:
    """Every value name of a model, read once, so that many new names need no further walk."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str | None] = set()
        self._last: dict[str, int] = {}
        for graph in graphs_of(model):
            self._taken.update(value.name for value in graph.inputs)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.update(output.name for output in node.outputs)

    def fresh(self, wanted: str) -> str:
        """``wanted``, or ``wanted`` with a number, whichever is free; it is taken from then on."""
        name = wanted
        while name in self._taken:
            self._last[wanted] = self._last.get(wanted, 0) + 1
            name = f"{wanted}.{self._last[wanted]}"
        self._taken.add(name)
        return name

    def release(self, name: str) -> None:
        """Let ``name`` be given away again: nothing has it any more."""
        self._taken.discard(name)


def graphs_of(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, the functions' bodies, and every graph inside them, outer ones first."""
    waiting = [*(function.graph for function in model.functions.values()), model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting.extend(inner for node in graph for inner in subgraphs_of(node))


def values_in(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value that ``graph`` itself defines: inputs, initializers, and what nodes compute."""
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph:
        yield from node.outputs


_GRAPH_TYPES = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""The standard operators that hold graphs."""


def subgraphs_of(node: ir.Node) -> tuple[ir.Graph, ...]:
    """The graphs that ``node`` holds as attributes: branches of ``If``, bodies of ``Loop``."""
    # Asked of every node many times over, almost always in vain.
    if not node.domain and node.op_type not in _WITH_GRAPHS:
        return ()
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type in _GRAPH_TYPES and not attribute.is_ref():
            one = attribute.type == ir.AttributeType.GRAPH
            found.extend((attribute.value,) if one else attribute.value)
    return tuple(found)


def add_initializer(graph: ir.Graph, name: str, array: Array | ir.TensorProtocol) -> ir.Value:
    """Register ``array`` in ``graph`` under ``name``, which must be free there.

    Raises:
        ValueError: ``name`` is taken.
    """
    tensor = ir.tensor(array, name=name) if isinstance(array, np.ndarray) else array
    value = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def take_over(new: ir.Value, old: ir.Value) -> None:
    """Put ``new`` wherever ``old`` stands, under its name, with its type, shape and notes.

    What a graph declares of its output stays as it is declared.
    """
    if old.is_graph_output():
        new.type = old.type or new.type
        new.shape = new.shape if old.shape is None else old.shape
    else:
        new.type = new.type or old.type
        new.merge_shapes(old.shape)
    new.doc_string = old.doc_string or new.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name, old.name = old.name, None
