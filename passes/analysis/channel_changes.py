"""Carries out what nodes need once the channels they handle are fewer or more."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph import Names, add_initializer, constant_tensor, is_op
from .channel_flow import Change, input_of


def apply_change(node: ir.Node, change: Change, graph: ir.Graph, names: Names) -> None:
    """Carry out ``change`` at ``node``; new integers become initializers of ``graph``."""
    for index, numbers in change.inputs.items():
        array = np.array(numbers, dtype=np.int64)
        old = constant_tensor(input_of(node, index))
        if old is not None:
            array = array.astype(old.numpy().dtype)
        role = "shape" if is_op(node, "Reshape") else f"input.{index}"
        name = names.fresh(f"{node.outputs[0].name}.{role}")
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, add_initializer(graph, name, array))
    for name in change.without:
        node.attributes.pop(name, None)
    for name, number in change.attributes.items():
        if isinstance(number, int):
            node.attributes.add(ir.AttrInt64(name, number))
        else:
            node.attributes.add(ir.AttrInt64s(name, number))
