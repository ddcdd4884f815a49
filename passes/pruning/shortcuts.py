"""What is added to the result of a layer, so that the layer can make up for errors in it."""

from __future__ import annotations

import onnx_ir as ir

from ..graph import constant, is_op


def shortcut(y: ir.Value) -> ir.Value | None:
    """What an ``Add`` adds to ``y``, biases apart; ``None`` if ``y`` is read in another way."""
    value = y
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or not is_op(uses[0].node, "Add"):
            return None
        add, index = uses[0]
        other = add.inputs[1 - index]
        if constant(other) is None:
            return other
        value = add.outputs[0]


def comes_before(value: ir.Value, node: ir.Node, order: dict[ir.Node, int]) -> bool:
    """Whether ``value`` is there before ``node`` runs, by the ``order`` of their graph's nodes."""
    producer = value.producer()
    return producer is None or order.get(producer, len(order)) < order[node]
