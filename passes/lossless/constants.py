"""Constants that passes read, write and drop, wherever in the model they stand."""

from __future__ import annotations

import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, constant, is_op


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


def drop_unused(value: ir.Value | None) -> None:
    """Take the constant ``value`` out of its graph if nothing reads it any more."""
    while value is not None and not (
        value.uses() or value.is_graph_output() or value.is_graph_input()
    ):
        graph, producer = value.graph, value.producer()
        if graph is not None and value.is_initializer() and value.name is not None:
            del graph.initializers[value.name]
            return
        if graph is None or producer is None or not is_op(producer, "Constant", "Identity"):
            return
        value = producer.inputs[0] if producer.inputs else None
        graph.remove(producer, safe=True)
