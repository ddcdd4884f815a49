"""Removing what nothing reads: nodes, initializers, optional outputs."""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from ..graph import is_op, subgraphs_of
from .constants import is_unused, remove_node

_schema = functools.cache(onnx.defs.get_schema)


def remove_unused_nodes(graph: ir.Graph) -> list[str]:
    """Remove the nodes of ``graph`` and its subgraphs that lead to no output; names them."""
    removed = []
    for node in reversed(graph):
        if is_unused(node):
            removed.append(node.name or node.op_type)
            remove_node(node)
        else:
            for subgraph in subgraphs_of(node):
                removed += remove_unused_nodes(subgraph)
    return removed


def remove_unused_initializers(graph: ir.Graph) -> list[str]:
    """Remove the initializers of ``graph`` that nothing reads; names them."""
    removed = [
        name
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_output() or value.is_graph_input())
    ]
    for name in removed:
        del graph.initializers[name]
    return removed


def leave_out_unused_outputs(node: ir.Node, opset: int) -> bool:
    """Leave out those outputs of ``node`` that nothing reads and that are optional.

    The number of outputs of a ``BatchNormalization`` says whether it trains, so they stay.
    """
    if len(node.outputs) < 2 or node.domain or is_op(node, "BatchNormalization"):
        return False
    try:
        formal = _schema(node.op_type, opset).outputs
    except onnx.defs.SchemaError:
        return False
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    dropped = [
        output
        for output, parameter in zip(node.outputs, formal, strict=False)
        if parameter.option == optional
        and output.name
        and not (output.uses() or output.is_graph_output())
    ]
    for output in dropped:
        output.name = ""
    count = len(node.outputs)
    while count > 1 and not node.outputs[count - 1].name:
        count -= 1
    node.resize_outputs(count)
    return bool(dropped)
