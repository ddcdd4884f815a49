"""Which kernel an operator between DequantizeLinear and QuantizeLinear becomes, or why none.

The rules are those of ONNX Runtime's CPU provider (``qdq_selector_action_transformer.cc`` and
``qdq_selectors.cc``), with what runs before them: a ``Relu`` or ``Clip`` that rounding makes
redundant goes, Q and DQ move through operators that only move data, float weights and biases of a
dequantized ``Conv`` or ``Gemm`` are quantized, signed activations become unsigned on x86.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.targets import Target
from ..graph import constant, is_op
from .kernels import INTEGER, MOVES_DATA, sole_reader
from .qdq import integer_type, only_quantizer, quantizers, same_parameters

ARM = frozenset({"asimd", "asimddp", "i8mm", "sve"})
EIGHT_BITS = (ir.DataType.UINT8, ir.DataType.INT8)
_NEEDS_Q = "its output is not quantized"
_ADD_Q = "put a QuantizeLinear right behind it, and let nothing else read its output"
_SHARED = (
    "signed activations that several operators read, which x86 has no kernels for",
    "make the activations unsigned",
)


@dataclass(frozen=True)
class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """Why an operator runs in float, and what to change."""

    reason: str
    advice: str = ""


def kernel_of(node: ir.Node, sources: list[ir.Node | None], target: Target) -> str:
    """The kernel of ``node``, or a refusal."""
    if not is_op(
        node, "Conv", "MatMul", "Gemm", "Where", "Softmax", "ArgMax", *INTEGER, *MOVES_DATA
    ):
        raise Refusal(
            f"ONNX Runtime has no integer kernel for {node.op_type}",
            "leave what it reads and gives out in float; its neighbours gain nothing here",
        )
    present = [s for s, value in zip(sources, node.inputs, strict=True) if value is not None]
    if is_op(node, "ArgMax"):
        _check_types(target, present[:1])
        return "ArgMax"
    if is_op(node, "Conv", "Gemm"):
        return _layer(node, present, target)
    if is_op(node, "MatMul"):
        return _matmul(node, present, target)
    if is_op(node, *MOVES_DATA):
        return _mover(node, present, target)
    wanted = present[1:] if is_op(node, "Where") else present
    _all_dequantized(node, wanted)
    out = _quantize_or_refuse(node)
    _check_types(target, [*wanted, out])
    return f"QLinear{node.op_type}"


def _layer(node: ir.Node, present: list[ir.Node | None], target: Target) -> str:
    """``Conv`` and ``Gemm``: all in, 32-bit bias; a ``Gemm`` may answer in float."""
    source = present[0]
    if source is None:
        raise Refusal(
            "its first input is not dequantized",
            "quantize what it reads; with integer weights alone it runs in float",
        )
    out = None if is_op(node, "Gemm") and _answers_in_float(node) else _quantize_or_refuse(node)
    floats = [i for i, s in enumerate(present) if s is None]
    if floats and (out is None or any(constant(node.inputs[i]) is None for i in floats)):
        what = "bias" if floats[0] == 2 else "weight"
        raise Refusal(
            f"its {what} is not dequantized",
            "store a bias in 32 bits, its scale the product of both other scales"
            if what == "bias"
            else "quantize the weight as well",
        )
    bias = present[2] if len(present) > 2 else None
    if bias is not None and integer_type(bias) != ir.DataType.INT32:
        raise Refusal("its bias is not 32-bit", "store the bias as int32")
    if bias is not None and not _fitting_scale(bias, source, present[1]):
        raise Refusal(
            "the scale of its bias is not the product of both other scales",
            "quantize the bias on just that product: the kernel adds its integers as they are",
        )
    if is_op(node, "Gemm") and bias is not None and node.attributes.get_float("beta", 1.0) != 1:
        raise Refusal("its beta is not 1", "multiply the bias by beta")
    _check_types(target, [source, out])
    weight = present[1]
    if weight is not None:
        _check_types(target, [weight])
        _check_signs(source, weight, target)
    return "QLinearConv" if is_op(node, "Conv") else "QGemm"


def _matmul(node: ir.Node, present: list[ir.Node | None], target: Target) -> str:
    _all_dequantized(node, present)
    source, weight = present
    floating = not quantizers(node.outputs[0])
    out = None if floating else _quantize_or_refuse(node)
    _check_types(target, [weight])
    _check_types(target, [source, out])
    _check_signs(source, weight, target)
    if weight is not None and _scale_per_row(weight):
        raise Refusal("its weight has a scale per row", "quantize it per column, the last axis")
    return "MatMulIntegerToFloat" if floating else "QLinearMatMul"


def _mover(node: ir.Node, present: list[ir.Node | None], target: Target) -> str:
    """An operator that only moves data runs on the integers if both sides mean the same."""
    source = present[0]
    if source is None:
        raise Refusal("its input is not dequantized", "leave its output in float")
    if is_op(node, "Resize") and node.attributes.get_string("mode", "nearest") != "nearest":
        raise Refusal(
            "ONNX Runtime resizes 8-bit integers by nearest neighbours only",
            "leave what it reads and gives out in float",
        )
    for output in node.outputs:
        quantize = only_quantizer(output)
        if quantize is None:
            raise Refusal(_NEEDS_Q, _ADD_Q)
        wide = is_op(node, "MaxPool", "Resize", "DepthToSpace")
        _check_types(target, [source, quantize], sixteen=not wide)
        if not same_parameters(source, quantize):
            raise Refusal(
                "the scales and zero points before and behind it differ",
                "give both sides the same: it gives out what it was given",
            )
    return node.op_type


def _all_dequantized(node: ir.Node, sources: list[ir.Node | None]) -> None:
    if not all(sources):
        left = [
            v.name
            for v, s in zip(node.inputs[-len(sources) :], sources, strict=True)
            if not s and v
        ]
        raise Refusal(
            f"its input {left[0]!r} is not dequantized", "quantize all of its inputs, or none"
        )


def _quantize_or_refuse(node: ir.Node) -> ir.Node:
    quantize = only_quantizer(node.outputs[0])
    if quantize is not None:
        return quantize
    value = node.outputs[0]
    reader = sole_reader(value)
    if quantizers(value):
        raise Refusal(
            "something besides the QuantizeLinear reads its output",
            "let the others read a DequantizeLinear behind it",
        )
    if is_op(reader, "Relu", "Clip") and quantizers(reader.outputs[0]):
        raise Refusal(
            f"the {reader.op_type} behind it does not vanish in the QuantizeLinear",
            "take the zero point at the least value of the type, and a range within the bounds",
        )
    if reader is not None and any(map(quantizers, reader.outputs)):
        raise Refusal(
            f"{reader.op_type} stands between it and the QuantizeLinear",
            f"quantize in front of the {reader.op_type} as well, or neither",
        )
    raise Refusal(_NEEDS_Q, _ADD_Q)


def _check_types(target: Target, nodes: list[ir.Node | None], *, sixteen: bool = False) -> None:
    """The Q and DQ ``nodes`` have one integer type, of 8 bits unless ``sixteen`` are taken."""
    present = [node for node in nodes if node is not None]
    kinds = {integer_type(node) for node in present}
    wide = next((kind for kind in kinds if kind not in EIGHT_BITS), None)
    if wide is not None and not sixteen:
        raise Refusal(
            f"its inputs are {str(wide).lower()}, and there are kernels for 8 bits alone",
            "quantize it to 8 bits, or leave it in float",
        )
    if len(kinds) > 1:
        raise Refusal(
            "its input and output have different integer types", "give both the same type"
        )
    if len({_type_there(node, target) for node in present}) > 1:
        raise Refusal(*_SHARED)


def _type_there(node: ir.Node, target: Target) -> ir.DataType | None:
    """The type that remains: signed activations become unsigned where there is no Arm.

    That takes one Q, one DQ and no other reader of either (``qdq_s8_to_u8.cc``).
    """
    kind, value = integer_type(node), node.outputs[0]
    if kind != ir.DataType.INT8 or target.features & ARM:
        return kind
    if is_op(node, "DequantizeLinear"):
        if len(value.uses()) > 1 or node.inputs[0] is None:
            return kind
        value = node.inputs[0]
    return ir.DataType.UINT8 if value.const_value is None and len(value.uses()) == 1 else kind


def _check_signs(source: ir.Node | None, weight: ir.Node | None, target: Target) -> None:
    """Signed activations have kernels on Arm alone; elsewhere they become unsigned first."""
    if source is None or _type_there(source, target) != ir.DataType.INT8:
        return
    if not target.features & ARM:
        raise Refusal(*_SHARED)
    if integer_type(weight) != ir.DataType.INT8:
        raise Refusal(
            "its activations are signed and its weights are not",
            "make the activations unsigned, or the weights signed",
        )


def _answers_in_float(node: ir.Node) -> bool:
    value = node.outputs[0]
    reader = sole_reader(value)
    behind = reader.outputs[0] if is_op(reader, "Relu", "Clip") else None
    return not quantizers(value) and not (behind is not None and quantizers(behind))


def _scale_per_row(weight: ir.Node) -> bool:
    values, scale = (None if v is None else v.shape for v in weight.inputs[:2])
    if values is None or scale is None or len(scale) != 1 or scale[0] == 1:
        return False
    return weight.attributes.get_int("axis", 1) % len(values) != len(values) - 1


def _fitting_scale(bias: ir.Node, source: ir.Node, weight: ir.Node | None) -> bool:
    """Whether the bias has the scale of the products, as far as all three are known.

    ONNX Runtime 1.32 passes over a hundredth, and not over a tenth.
    """
    nodes = (bias, source, weight)
    scales = [None if node is None else constant(node.inputs[1]) for node in nodes]
    if any(scale is None or scale.ndim > 1 for scale in scales):
        return True
    own, left, right = (np.asarray(scale, np.float64) for scale in scales)
    return bool(np.allclose(own, left * right, rtol=0.02, atol=0))
