"""The operators that ONNX Runtime's CPU provider runs on 8-bit integers, and on which conditions.

ONNX Runtime turns ``DequantizeLinear -> operator -> QuantizeLinear`` into one integer kernel when
every input of the operator is dequantized, its types agree, and its output goes to nothing but
that one ``QuantizeLinear`` (``onnxruntime/core/optimizer/qdq_transformer/selectors_actions``).
Other fusions run before that one and take groups apart; what is put behind an operator here keeps
them off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, is_constant, is_op

WEIGHTED = ("Conv", "MatMul", "Gemm")

INTEGER = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid")
"""Operators without weights for which ONNX Runtime has a kernel on 8-bit integers."""

MOVES_DATA = (
    "MaxPool", "Resize", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Gather", "Split", "Expand", "Tile", "DepthToSpace", "ReduceMax", "ReduceMin",
)  # fmt: skip
"""Operators that give out values they were given: they keep the quantization parameters."""

VANISHING = ("Identity", "Dropout")
"""Operators that ONNX Runtime removes, and what is behind them then counts."""

READS_SHAPE = ("Shape", "Size")
"""Operators that do not care what a tensor holds."""


@dataclass(frozen=True)
class Kernel:
    """An operator that is to run on integers.

    Attributes:
        node: The operator.
        inputs: Which of its inputs are activations in 8 bits.
        outputs: What leaves the kernel: the outputs of ``node``, or of what is merged into it.
        weight: The constant weight in float, factors of ``Gemm`` included; ``None`` without one.
        axis: The axis of ``weight`` with one entry per output channel, ``None`` for none.
        bias: One constant per output channel, if there is a bias.
        as_gemm: A ``MatMul`` that has to become a ``Gemm``.
        bias_add: The ``Add`` of the bias behind it that goes into that ``Gemm``.
        activation: The ``Relu`` or ``Clip`` behind it, which rounding into 8 bits makes redundant.
        float_output: It can give out float, so that its output is quantized only where that is
            of use.
    """

    node: ir.Node
    inputs: tuple[int, ...]
    outputs: tuple[ir.Value, ...]
    weight: Array | None = None
    axis: int | None = None
    bias: Array | None = None
    as_gemm: bool = False
    bias_add: ir.Node | None = None
    activation: ir.Node | None = None
    float_output: bool = False

    @property
    def moves_data(self) -> bool:
        """Whether the output has the quantization parameters of the input."""
        return is_op(self.node, *MOVES_DATA)

    def reads(self) -> Iterator[ir.Value]:
        """The activations it reads in 8 bits."""
        for index in self.inputs:
            value = self.node.inputs[index]
            if value is not None:
                yield value


def weighted_kernel(node: ir.Node) -> Kernel | str:
    """The kernel of a ``Conv``, ``MatMul`` or ``Gemm``, or why there is none."""
    source, weight_value = node.inputs[0], node.inputs[1]
    if source is None or any(is_op(v.producer(), "DequantizeLinear") for v in node.inputs if v):
        return "it is quantized already"
    if is_constant(source):
        return "its first input is constant"
    weight = constant(weight_value)
    if weight is None:
        return "its weight is not constant"
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}, and only float32 is quantized"
    if weight.ndim < 2 or weight.size == 0:
        return f"its weight has the shape {list(weight.shape)}"
    if not np.isfinite(weight).all():
        return "its weight holds infinities or NaN"
    output = node.outputs[0]
    if not output.uses() and not output.is_graph_output():
        return "nothing reads its output"
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if bias_value is not None and bias is None:
        return "its bias is not constant"

    if is_op(node, "Conv"):
        return _finish(node, weight, 0, bias)
    if is_op(node, "MatMul"):
        return _matmul(node, weight)
    transposed = bool(node.attributes.get_int("transB", 0))
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    weight = weight * np.float32(alpha) if alpha != 1 else weight
    axis = 0 if transposed else 1
    if bias is not None:
        channels = weight.shape[axis]
        if bias.size not in {1, channels} or (bias.size > 1 and bias.shape[-1] != channels):
            return "its bias is not one number per column"
        bias = np.broadcast_to(bias.reshape(-1), (channels,))
        bias = bias * np.float32(beta)
    return _gemm(node, weight, axis, bias)


def _matmul(node: ir.Node, weight: Array) -> Kernel | str:
    """A ``MatMul``; as a ``Gemm`` where ONNX Runtime would make one of it and the ``Add`` behind.

    It does so to matrices of known rank (``matmul_add_fusion.cc``), finds that what is added is not
    quantized, and runs the ``Gemm`` in float. A bias can be quantized as 32 bits; what else is
    added is added in float to what a ``Gemm`` without a bias gives out.
    """
    if weight.ndim > 2:
        return _finish(node, weight, None, None, float_output=True)
    add = sole_reader(node.outputs[0])
    source = node.inputs[0]
    rank = None if source is None or source.shape is None else len(source.shape)
    if rank != 2 or add is None or not is_op(add, "Add"):
        return _finish(node, weight, 1, None, float_output=True)
    bias = next((array for v in add.inputs if (array := constant(v)) is not None), None)
    columns = weight.shape[1]
    if bias is None or not (bias.size == 1 or bias.shape in {(columns,), (1, columns)}):
        return _gemm(node, weight, 1, None)
    return _gemm(node, weight, 1, np.broadcast_to(bias.reshape(-1), (columns,)), add)


def _gemm(
    node: ir.Node, weight: Array, axis: int, bias: Array | None, bias_add: ir.Node | None = None
) -> Kernel | str:
    """A ``Gemm`` always has a bias, or ``GemmSumFusion`` and ``GemmTransposeFusion`` take it."""
    if bias is None:
        bias = np.zeros(weight.shape[axis], np.float32)
    as_gemm = is_op(node, "MatMul")
    return _finish(node, weight, axis, bias, as_gemm=as_gemm, bias_add=bias_add, float_output=True)


def _finish(
    node: ir.Node,
    weight: Array,
    axis: int | None,
    bias: Array | None,
    *,
    as_gemm: bool = False,
    bias_add: ir.Node | None = None,
    float_output: bool = False,
) -> Kernel | str:
    if bias is not None and not np.isfinite(bias).all():
        return "its bias holds infinities or NaN"
    output = (bias_add or node).outputs[0]
    activation = sole_reader(output)
    if is_op(activation, *VANISHING):
        float_output = False
    if not is_op(activation, "Relu", "Clip"):
        activation = None
    if activation is not None:
        after = activation.outputs[0]
        # ONNX Runtime takes a Relu with one reader for part of the kernel, and then wants the one
        # reader to be a QuantizeLinear (NodeGroupSelector::GetQDQSelection).
        if len(after.uses()) == 1 and not after.is_graph_output():
            float_output = False
        if _redundant(activation):
            output = after
        else:
            activation = None
    return Kernel(
        node, (0,), (output,), weight, axis, bias, as_gemm, bias_add, activation, float_output
    )


def other_kernel(node: ir.Node) -> Kernel | str:
    """The kernel of an operator without weights, or why there is none."""
    if is_op(node, "MaxPool") and any(value.uses() for value in node.outputs[1:]):
        return "its indices are read"
    if is_op(node, "Split") and not all(v.uses() or v.is_graph_output() for v in node.outputs):
        return "nothing reads one of its outputs"
    if is_op(node, "Resize") and node.attributes.get_string("mode", "nearest") != "nearest":
        return "ONNX Runtime resizes 8-bit integers by nearest neighbours only"
    if is_op(node, *MOVES_DATA):
        outputs = tuple(node.outputs) if is_op(node, "Split") else (node.outputs[0],)
        return Kernel(node, (0,), outputs)
    if is_op(node, "AveragePool") and set(node.attributes.get_ints("dilations", [1])) != {1}:
        return "ONNX Runtime has no integer kernel for a dilated AveragePool"
    if any(is_constant(value) for value in node.inputs):
        return "one of its inputs is constant, and 8 bits would lose too much of it"
    output, activation = node.outputs[0], sole_reader(node.outputs[0])
    if activation is not None and is_op(activation, "Relu", "Clip") and _redundant(activation):
        output = activation.outputs[0]
    else:
        activation = None
    return Kernel(node, tuple(range(len(node.inputs))), (output,), activation=activation)


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, in the same graph, if nothing else does."""
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    reader = next(iter(uses)).node
    producer = value.producer()
    return reader if producer is not None and reader.graph is producer.graph else None


def _redundant(activation: ir.Node) -> bool:
    """Whether a range of 8-bit values that was seen behind ``activation`` makes it redundant.

    Behind a ``Relu`` the zero point is 0. A ``Clip`` has to have both bounds, with zero in
    between (``IsClipMadeRedundantByQ``).
    """
    if is_op(activation, "Relu"):
        return True
    bounds = [constant(value) for value in activation.inputs[1:3]]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    return -1e6 <= float(bounds[0]) <= 0 <= float(bounds[1]) <= 1e6
