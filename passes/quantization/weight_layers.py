"""The layers whose weights alone can be stored in few bits, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, constant_tensor, is_op, nodes_in, nodes_of

SMALLEST = 1 << 14
"""Weights in a matrix below which its layer is faster, and hardly larger, in float."""


@dataclass(frozen=True)
class Layer:
    """A ``MatMul``, ``Gemm`` or ``Gather`` and its matrix.

    Attributes:
        node: The operator.
        weight: The constant matrix.
        axis: The axis of ``weight`` along which blocks lie: the one that is summed over, and that
            of the columns of a table.
        bias: What a ``Gemm`` adds, one number per output.
        factor: What the matrix is multiplied with.
    """

    node: ir.Node
    weight: ir.Value
    axis: int
    bias: Array | None = None
    factor: float = 1.0

    @property
    def is_table(self) -> bool:
        """Whether rows of the matrix are looked up."""
        return is_op(self.node, "Gather")

    @property
    def weight_array(self) -> Array:
        """The matrix as it is stored."""
        array = constant(self.weight)
        if array is None:
            raise ValueError(f"{self.weight.name} is not constant")
        return array

    def rows(self) -> Array:
        """The matrix, a row for each output or token; a view, where it can be one."""
        rows = self.weight_array.T if self.axis == 0 else self.weight_array
        return rows if self.factor == 1 else rows * np.float32(self.factor)


@dataclass
class Layers:
    """What is to be stored in few bits, and why the rest is not."""

    found: list[Layer] = field(default_factory=list)
    declined: dict[ir.Node, str] = field(default_factory=dict)


def find_layers(model: ir.Model, unwanted: Callable[[ir.Node], str], *, contrib: bool) -> Layers:
    """Every layer of ``model``, in subgraphs as well.

    Args:
        model: The model.
        unwanted: Says why the user does not want a node rewritten, or nothing.
        contrib: Whether layers become operators of ONNX Runtime, which take fewer forms.
    """
    layers = Layers()
    inside = {node for function in model.functions.values() for node in nodes_in(function)}
    for node in nodes_of(model):
        if is_op(node, "Conv", "ConvTranspose"):
            layers.declined[node] = f"a {node.op_type} reads no weights in blocks"
            continue
        constant_input = _weight_of(node)
        if constant_input is None:
            continue
        weight, tensor = constant_input
        reason = unwanted(node) or _refusal(weight, tensor)
        layer = reason or _layer(node, weight, tensor.shape.numpy(), contrib=contrib)
        if isinstance(layer, Layer) and node in inside:
            layer = "it stands in a function: inline-functions would put it into the graph"
        if isinstance(layer, str):
            layers.declined[node] = layer
        else:
            layers.found.append(layer)
    _keep_shared(layers)
    return layers


def _weight_of(node: ir.Node) -> tuple[ir.Value, ir.TensorProtocol] | None:
    """The constant matrix that ``node`` multiplies by or looks up in, if there is one."""
    if is_op(node, "MatMul", "Gemm"):
        at = 1
    elif is_op(node, "Gather"):
        at = 0
    else:
        return None
    weight = node.inputs[at]
    tensor = constant_tensor(weight)
    if weight is None or tensor is None:
        return None
    known = tensor.dtype in _FLOATS and len(tensor.shape) >= 2
    return (weight, tensor) if known else None


_FLOATS: Mapping[ir.DataType, str] = {
    ir.DataType.FLOAT: "",
    ir.DataType.DOUBLE: "double",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
}


def _refusal(weight: ir.Value, tensor: ir.TensorProtocol) -> str:
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weights are {_FLOATS[tensor.dtype]}, and only float32 is stored in few bits"
    if len(tensor.shape) != 2:
        return "its weights are a stack of matrices"
    if tensor.size < SMALLEST:
        return f"it has only {tensor.size} weights"
    if weight.is_graph_output():
        return "its weights are an output of the model"
    if not np.isfinite(tensor.numpy()).all():
        return "its weights hold infinities or NaN"
    return ""


def _layer(node: ir.Node, weight: ir.Value, shape: Sequence[int], *, contrib: bool) -> Layer | str:
    if is_op(node, "Gather"):
        if node.attributes.get_int("axis", 0) not in {0, -2}:
            return "it looks up columns"
        return Layer(node, weight, axis=1)
    if is_op(node, "MatMul"):
        return Layer(node, weight, axis=0)
    if node.attributes.get_int("broadcast", 0):
        return "it is of a form older than opset 7"
    axis = 1 if node.attributes.get_int("transB", 0) else 0
    if not contrib:
        return Layer(node, weight, axis)
    if node.attributes.get_int("transA", 0):
        return "it transposes what it is fed"
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    added = node.inputs[2] if len(node.inputs) > 2 else None
    if added is None or beta == 0:
        return Layer(node, weight, axis, factor=alpha)
    bias = constant(added)
    outputs = shape[1 - axis]
    if bias is None:
        return "what it adds is not constant"
    if bias.size != 1 and (bias.size != outputs or bias.shape[-1] != outputs):
        return "what it adds is not one number per output"
    bias = np.broadcast_to(bias.reshape(-1), (outputs,)) * np.float32(beta)
    return Layer(node, weight, axis, np.ascontiguousarray(bias, np.float32), alpha)


def _keep_shared(layers: Layers) -> None:
    """Leave layers alone whose float matrix would have to stay for others."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in layers.found:
        readers.setdefault(layer.weight, []).append(layer)
    kept = []
    for weight, sharing in readers.items():
        ours = {layer.node for layer in sharing}
        other = next((use.node for use in weight.uses() if use.node not in ours), None)
        once = all(sum(v is weight for v in layer.node.inputs) == 1 for layer in sharing)
        alike = len({(one.is_table, one.axis, one.factor) for one in sharing if not one.is_table})
        reason = ""
        if other is not None or not once:
            reason = f"its weights are read by {other.op_type if other else 'itself'} as well"
        elif alike > 1:
            reason = "its weights are read in another way as well"
        for layer in sharing:
            if reason:
                layers.declined[layer.node] = reason
            else:
                kept.append(layer)
    layers.found = kept
