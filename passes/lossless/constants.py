"""Constants that passes read, write and drop, wherever in the model they stand."""

from __future__ import annotations

import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, constant, graph_of, is_op, subgraphs_of


class ConstantWriter:
    """Adds constants under names that are free in the whole model.

    In a graph a constant is an initializer; the body of a function cannot hold any, so there it
    is a ``Constant`` node.
    """

    def __init__(self, model: ir.Model) -> None:
        self.names = Names(model)
        self._bodies = {function.graph for function in model.functions.values()}

    def add(
        self, graph: ir.Graph, wanted: str, array: Array | ir.TensorProtocol, before: ir.Node
    ) -> ir.Value:
        """A constant in ``graph`` that ``before``, one of its nodes, can read."""
        name = self.names.fresh(wanted)
        if graph not in self._bodies:
            return add_initializer(graph, name, array)
        node = constant_node(ir.tensor(array, name=name), name)
        graph.insert_before(before, node)
        return node.outputs[0]


def constant_node(tensor: ir.TensorProtocol, output: str) -> ir.Node:
    """A ``Constant`` node that answers with ``tensor`` under the name ``output``."""
    value = ir.Value(
        name=output, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
    )
    return ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value])


def resolve(value: ir.Value | None) -> ir.Value | None:
    """The value that ``value`` repeats through ``Identity`` nodes, or ``value`` itself."""
    while value is not None and is_op(producer := value.producer(), "Identity"):
        value = producer.inputs[0]
    return value


def resolved_constant(value: ir.Value | None) -> Array | None:
    """As :func:`~onnxpress.passes.graph.constant`, also through ``Identity`` nodes."""
    return constant(resolve(value))


def drop_unused(*values: ir.Value | None) -> None:
    """Take ``values`` out of their graphs where nothing reads them any more.

    With a value goes the initializer or node behind it, and whatever only that node needed.
    Better called once for many: asking whether a constant is read takes as long as it has readers.
    """
    waiting = dict.fromkeys(values)
    while waiting:
        read: dict[ir.Value | None, None] = {}
        for value in waiting:
            if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
                continue
            graph, node = value.graph, value.producer()
            if value.is_initializer() and graph is not None and value.name is not None:
                del graph.initializers[value.name]
            elif node is not None and node.graph is not None and is_unused(node):
                read.update(dict.fromkeys(remove_node(node)))
        waiting = read


def is_unused(node: ir.Node) -> bool:
    """Whether nothing reads what ``node`` answers."""
    return not any(output.uses() or output.is_graph_output() for output in node.outputs)


def remove_node(node: ir.Node) -> list[ir.Value | None]:
    """Take ``node``, whose answers nobody reads, out of its graph; returns what it read.

    ``onnx_ir`` leaves the nodes inside its subgraphs registered as readers of outer values.
    """
    read = list(node.inputs)
    for graph in subgraphs_of(node):
        for inner in graph.all_nodes():
            read.extend(inner.inputs)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    graph_of(node).remove(node, safe=True)
    return read
