"""What becomes of each operator among 8-bit integers on a target, and what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.targets import Target
from ..base import Array
from ..graph import constant, is_op, nodes_of
from .kernel_rules import Refusal, kernel_of
from .kernels import READS_SHAPE, VANISHING
from .qdq import TRAVELS, dequantize_of, integer_type, only_quantizer, quantizers
from .saturation import as_rows, can_saturate, largest_sum, worst_sums

_UNCONCERNED = ("QuantizeLinear", "DequantizeLinear", "Constant", *VANISHING, *READS_SHAPE)


@dataclass(frozen=True)
class Group:
    """An operator that touches 8-bit integers.

    Attributes:
        node: The operator.
        kernel: What runs instead: ``QLinearConv`` and the like, the operator itself where it runs
            on integers as it is; empty if it runs in float.
        reason: Why it runs in float.
        advice: What to change, or what else is worth knowing.
        channels: Output channels with constant weights.
        saturating: How many of them can overflow 16 bits on the target.
    """

    node: ir.Node
    kernel: str = ""
    reason: str = ""
    advice: str = ""
    channels: int = 0
    saturating: int = 0


def find_groups(model: ir.Model, target: Target) -> list[Group]:
    """Every group of ``model``, subgraphs included, in order."""
    nodes = [node for node in nodes_of(model) if not is_op(node, *_UNCONCERNED)]
    return [group for node in nodes if (group := _group_of(node, target)) is not None]


def _group_of(node: ir.Node, target: Target) -> Group | None:
    sources = [dequantize_of(value) for value in node.inputs]
    if not any(sources) and not any(map(quantizers, node.outputs)):
        return None
    if _vanishes(node) or (is_op(node, *TRAVELS) and not all(_own(v) for v in node.inputs[:1])):
        return None
    try:
        kernel = kernel_of(node, sources, target)
    except Refusal as refusal:
        return Group(node, "", refusal.reason, refusal.advice)
    if not is_op(node, "Conv", "MatMul", "Gemm"):
        return Group(node, kernel)
    channels, saturating = _overflows(node, sources[1], target)
    return Group(node, kernel, "", _speed(sources, saturating, target), channels, saturating)


def _vanishes(node: ir.Node) -> bool:
    """Whether ``node`` is an activation that its producer's ``QuantizeLinear`` swallows."""
    if not is_op(node, "Relu", "Clip") or node.inputs[0] is None:
        return False
    producer = node.inputs[0].producer()
    made_here = producer is not None and not is_op(producer, "DequantizeLinear")
    return made_here and only_quantizer(node.inputs[0]) is not None


def _own(value: ir.Value | None) -> bool:
    return value is not None and is_op(value.producer(), "DequantizeLinear")


def _overflows(node: ir.Node, weights: ir.Node | None, target: Target) -> tuple[int, int]:
    """The output channels of ``node``, and how many of them can overflow on ``target``."""
    weight: Array | None = constant(weights.inputs[0]) if weights is not None else None
    if weight is None or weights is None or weight.ndim < 2:
        return 0, 0
    axis: int | None = 0
    if is_op(node, "Gemm"):
        axis = 0 if node.attributes.get_int("transB", 0) else 1
    elif is_op(node, "MatMul"):
        axis = 1 if weight.ndim == 2 else None
    channels = weight.shape[axis] if axis is not None else weight.shape[-1]
    rows = as_rows(node, weight, axis)
    if weight.dtype != np.int8 or rows is None or not can_saturate(target):
        return channels, 0
    bad = worst_sums(rows) > largest_sum()
    return channels, int(bad.sum()) if axis is not None else channels * int(bad.any())


def _speed(sources: list[ir.Node | None], saturating: int, target: Target) -> str:
    """What is to be said about a group that does become a kernel."""
    if saturating:
        return "weights overflow 16-bit sums on this target: quantize for it again"
    x86 = target.name != "portable" and any(f.startswith(("avx", "amx")) for f in target.features)
    if x86 and integer_type(sources[0]) == ir.DataType.INT8:
        return "signed activations are slow on x86: make them unsigned"
    if x86 and integer_type(sources[1]) == ir.DataType.UINT8:
        return "unsigned weights are slower than signed ones on x86"
    return ""


def integer_kernels(operators: Iterable[str]) -> Iterator[str]:
    """Those of ``operators`` that only ever run on integers; ``Nhwc`` marks a layout."""
    for operator in operators:
        name = operator.removeprefix("Nhwc")
        if name.startswith("QLinear") or name in {"QGemm", "MatMulIntegerToFloat"}:
            yield name
