"""Which nodes may be evaluated while compiling."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from ..graph import is_op, subgraphs_of
from .constants import resolved_constant

MOST_TURNS: Final = 10_000
"""How often what a loop holds may run while compiling."""
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


def may_not_end(node: ir.Node) -> str:
    """Why evaluating ``node`` might take for ever; empty if its loops are known to be short."""
    if _turns(node) <= MOST_TURNS:
        return ""
    return f"its loops are not known to end within {MOST_TURNS:,} turns"


def _turns(node: ir.Node) -> float:
    """How often, at most, what ``node`` holds in loops runs; infinite where that is not known."""
    inner = sum(_turns(below) for graph in subgraphs_of(node) for below in graph)
    if not is_op(node, "Loop"):
        return inner
    count = resolved_constant(node.inputs[0])
    own = np.inf if count is None or count.size != 1 else float(max(0, count.item()))
    return own * max(1.0, inner)


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
