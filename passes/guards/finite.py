"""The nodes that tell whether tensors are finite, as one output beside the model's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..graph import Names, add_initializer

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
LEAST_OPSET = 9
"""From this version on there is ``IsNaN``, and every type of floats can be compared."""
MARK = "onnxpress.guard"
"""The metadata that says of an output that a guard added it to those of the model."""


def is_floats(value: ir.Value) -> bool:
    """Whether ``value`` is a tensor of floats, and no sequence or optional of them."""
    return isinstance(value.type, ir.TensorType) and value.dtype in FLOATS


def guarded(value: ir.Value) -> bool:
    """Whether a guard made ``value`` what it is."""
    return MARK in value.metadata_props


def add_check(
    graph: ir.Graph, names: Names, values: Sequence[ir.Value], output: str
) -> list[ir.Node]:
    """Give ``graph`` one more output: whether all of ``values`` are finite, a boolean scalar.

    The nodes that it comes from are given back, and are not in the graph yet. Empty tensors are
    finite. Comparisons with NaN are false, so that what is not less than infinity is counted.
    """
    nodes: list[ir.Node] = []

    def new(operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes)
        node.name = node.outputs[0].name = names.fresh(f"{output}.{operator.lower()}")
        nodes.append(node)
        return node.outputs[0]

    def scalar(name: str, number: float, dtype: type[np.floating]) -> ir.Value:
        return add_initializer(graph, names.fresh(f"{output}.{name}"), np.array(number, dtype))

    half = scalar("half", 0.5, np.float32)
    fine = None
    for value in values:
        wide = value.dtype == ir.DataType.DOUBLE
        infinity = scalar("infinity", np.inf, np.float64 if wide else np.float32)
        small = value.dtype == ir.DataType.FLOAT16
        plain = new("Cast", value, to=ir.DataType.FLOAT.value) if small else value
        wrong = new("Not", new("Less", new("Abs", plain), infinity))
        ones = new("Cast", wrong, to=ir.DataType.FLOAT.value)
        this = new("Less", new("ReduceSum", ones, keepdims=0), half)
        fine = this if fine is None else new("And", fine, this)
    if fine is not None:
        names.release(fine.name or "")
        fine.name = names.fresh(output)
        fine.type, fine.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
        fine.metadata_props[MARK] = "finite"
        graph.outputs.append(fine)
    return nodes
