"""Shapes of the tensors in a graph, as ONNX infers them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def inferred_shapes(model: ir.Model) -> dict[ir.Value, ir.Shape]:
    """The shape of every tensor of the main graph of ``model`` whose rank ONNX can infer.

    ``model`` is not changed, and what it says of intermediate tensors is not believed: rewrites
    leave it stale. A tensor behind an operator that ONNX does not know is missing. Inference is
    ``onnx.shape_inference`` with data propagation, so shapes computed by ``Shape``, ``Gather``
    and ``Concat`` are followed.
    """
    twin = model.clone()
    for node in twin.graph:
        for output in node.outputs:
            output.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(twin)
    shapes = {value.name: value.shape for value in _values(twin.graph)}
    return {
        value: shape
        for value in _values(model.graph)
        if (shape := _constant_shape(value) or shapes.get(value.name)) is not None
    }


def _constant_shape(value: ir.Value) -> ir.Shape | None:
    return None if value.const_value is None else ir.Shape(value.const_value.shape.numpy())


def _values(graph: ir.Graph) -> list[ir.Value]:
    computed = (output for node in graph for output in node.outputs)
    return [*graph.inputs, *graph.initializers.values(), *computed]
