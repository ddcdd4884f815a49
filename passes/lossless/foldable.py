"""Which nodes may be evaluated while compiling."""

from __future__ import annotations

import onnx_ir as ir

from ..graph import is_op, subgraphs_of
from .constants import resolved_constant

_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def refusal(node: ir.Node) -> str:
    """Why ``node`` must not be evaluated while compiling; empty if it may be.

    It may be if it answers the same every time, inside its subgraphs as well, and if all that it
    reads and answers are tensors. Quantization is left as it is: ONNX Runtime looks for whole
    ``QuantizeLinear`` and ``DequantizeLinear`` groups.
    """
    if node.domain:
        return f"operators of the domain {node.domain} are not known to be deterministic"
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "an attribute of it is set by the caller of the function"
    if node.op_type in {"Bernoulli", "Multinomial"} or node.op_type.startswith("Random"):
        return "it is random"
    if node.op_type in _QUANTIZING:
        return "it quantizes, and ONNX Runtime fuses that as it stands"
    if "Sequence" in node.op_type or "Optional" in node.op_type:
        return "it handles sequences or optionals"
    if trains(node):
        return "it runs in training mode"
    inner = (refusal(below) for graph in subgraphs_of(node) for below in graph)
    return next(filter(None, inner), "")


def trains(node: ir.Node) -> bool:
    """Whether ``node`` behaves as in training, or may do so when it runs."""
    if is_op(node, "BatchNormalization"):
        return node.attributes.get_int("training_mode", 0) != 0
    if not is_op(node, "Dropout") or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    training = resolved_constant(node.inputs[2])
    return training is None or bool(training.any())


def captured(node: ir.Node) -> list[ir.Value]:
    """The values of outer graphs that the subgraphs of ``node`` read."""
    waiting = list(subgraphs_of(node))
    own: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    while waiting:
        graph = waiting.pop()
        own.update(graph.inputs, graph.initializers.values())
        read.update(dict.fromkeys(graph.outputs))
        for inner in graph:
            own.update(inner.outputs)
            read.update(dict.fromkeys(value for value in inner.inputs if value is not None))
            waiting.extend(subgraphs_of(inner))
    return [value for value in read if value not in own]
