"""What ONNX Runtime fuses as it stands, and what must not be rounded in another way."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..graph import is_op
from .constants import resolved_constant

_STOPS: Final = frozenset(
    {
        "BatchNormalization", "Celu", "Conv", "ConvTranspose", "Cos", "Elu", "Erf", "Exp", "GRU",
        "Gelu", "Gemm", "InstanceNormalization", "LSTM", "LayerNormalization", "Log", "LogSoftmax",
        "MatMul", "Mish", "RNN", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Tanh",
    }
)  # fmt: skip
"""Operators that hardly answer whole numbers, so that one difference is as good as another."""

_JUMPS: Final = frozenset(
    {
        "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor",
        "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "NonMaxSuppression", "NonZero",
        "QuantizeLinear", "Round", "Sign", "TopK",
    }
)  # fmt: skip
"""Operators whose answer may jump where their input changes by the last place."""

_FAR: Final = 12


def fused_by_runtime(source: ir.Value, output: ir.Value, *, factor: bool) -> str:
    """Why ONNX Runtime fuses what makes ``output`` of ``source`` with what is beside it.

    ``factor`` says whether that multiplies by one number. Empty where it does not fuse.
    """
    before = source.producer()
    if is_op(before, "Div", "Mul") and any(map(_is_deviation, before.inputs)):
        return "it ends a normalization that ONNX Runtime fuses"
    if is_op(before, "Erf", "Tanh") or (is_op(before, "Mul") and any(map(_is_gate, before.inputs))):
        return "it belongs to a GELU that ONNX Runtime fuses"
    readers = [use.node for use in output.uses()]
    if any(is_op(node, "Erf") for node in readers):
        return "it belongs to a GELU that ONNX Runtime fuses"
    if any(is_op(node, "Mul") and any(map(_is_gate, node.inputs)) for node in readers):
        return "it belongs to a GELU that ONNX Runtime fuses"
    if factor and any(_is_product(node) for node in (before, *readers)):
        return "ONNX Runtime takes the factor into MatMul"
    return ""


def _is_product(node: ir.Node | None) -> bool:
    """Whether ``node`` multiplies matrices of which none is constant."""
    return is_op(node, "MatMul") and all(resolved_constant(one) is None for one in node.inputs)


def _is_deviation(value: ir.Value | None) -> bool:
    """Whether ``value`` is a square root, or one divided by it."""
    node = None if value is None else value.producer()
    if is_op(node, "Reciprocal") or (
        is_op(node, "Div") and resolved_constant(node.inputs[0]) is not None
    ):
        inner = node.inputs[-1]
        node = None if inner is None else inner.producer()
    return is_op(node, "Sqrt")


def _is_gate(value: ir.Value | None) -> bool:
    """Whether ``value`` is ``1 + erf(...)`` or ``1 + tanh(...)``."""
    node = None if value is None else value.producer()
    if not is_op(node, "Add"):
        return False
    return any(one is not None and is_op(one.producer(), "Erf", "Tanh") for one in node.inputs)


def may_jump(value: ir.Value) -> bool:
    """Whether something near that reads ``value`` may jump if its last place changes.

    As ``Floor`` of a quotient does that is a whole number.
    """
    waiting, seen = [value], 0
    while waiting:
        for node in waiting.pop().consumers():
            seen += 1
            if node.op_type in _JUMPS or seen > _FAR:
                return True
            if node.op_type not in _STOPS:
                waiting.extend(node.outputs)
    return False
