"""What a model costs: multiply-accumulates, parameters, bytes and nodes."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from ..graph import graphs_of, is_op, nodes_in
from .macs import macs

__all__ = ["macs", "node_count", "operators", "parameters", "weight_bytes"]

_NOT_WEIGHTS = {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING}
"""Types of shapes, indices, flags and labels, not of what was learned."""


def node_count(model: ir.Model) -> int:
    """The nodes of the main graph and of all subgraphs, without ``Constant``."""
    return sum(not is_op(node, "Constant") for node in nodes_in(model.graph))


def operators(model: ir.Model) -> dict[str, int]:
    """How often each operator stands in the main graph and all subgraphs, most frequent first.

    Without ``Constant``. Those of other domains than the standard one come as ``domain.Operator``.
    """
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in nodes_in(model.graph)
        if not is_op(node, "Constant")
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def parameters(model: ir.Model) -> int:
    """The number of values in constants that are weights: not int64, bool or string.

    A tensor that is used more than once counts once.
    """
    return sum(tensor.size for tensor in _constants(model) if tensor.dtype not in _NOT_WEIGHTS)


def weight_bytes(model: ir.Model) -> int:
    """The bytes of all constants of ``model``, each tensor once."""
    return sum(tensor.nbytes for tensor in _constants(model))


def _constants(model: ir.Model) -> list[ir.TensorProtocol]:
    """The tensors of initializers and ``Constant`` nodes, in all graphs and functions."""
    found: dict[int, ir.TensorProtocol] = {}
    for graph in graphs_of(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                found[id(value.const_value)] = value.const_value
        for node in graph:
            if not is_op(node, "Constant"):
                continue
            attribute = node.attributes.get("value")
            if attribute is not None and not attribute.is_ref():
                # Not as_tensor(), whose check of the protocol takes longer than all else here.
                found[id(attribute.value)] = attribute.value
    return list(found.values())
