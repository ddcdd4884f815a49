"""Who quantizes a tensor and who dequantizes it, as ONNX Runtime will see it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph import constant, is_op
from .kernels import VANISHING, sole_reader

TRAVELS = ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
"""Operators through which ONNX Runtime moves a Q to the front and a DQ to the back."""

EPSILON = float(np.finfo(np.float32).eps)


def dequantize_of(value: ir.Value | None) -> ir.Node | None:
    """The ``DequantizeLinear`` behind ``value``, seen through what it moves through."""
    while value is not None:
        producer = value.producer()
        if is_op(producer, "DequantizeLinear"):
            return producer
        if not is_op(producer, *VANISHING, *TRAVELS) or sole_reader(value) is None:
            return None
        value = producer.inputs[0]
    return None


def only_quantizer(value: ir.Value) -> ir.Node | None:
    """The ``QuantizeLinear`` that is all that reads ``value``, activations that vanish aside."""
    while (reader := sole_reader(value)) is not None:
        if is_op(reader, "QuantizeLinear"):
            return reader
        if is_op(reader, *VANISHING, *TRAVELS):
            value = reader.outputs[0]
            continue
        if is_op(reader, "Relu", "Clip"):
            quantize = sole_reader(reader.outputs[0])
            return (
                quantize
                if is_op(quantize, "QuantizeLinear") and _swallows(quantize, reader)
                else None
            )
        return None
    return None


def _swallows(quantize: ir.Node, activation: ir.Node) -> bool:
    """Whether all that ``quantize`` can say lies within the bounds of ``activation``."""
    scale, zero = (constant(v) for v in quantize.inputs[1:3])
    if scale is None or zero is None or scale.size != 1:
        return False
    least, most = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    if is_op(activation, "Relu"):
        return int(zero.reshape(-1)[0]) == least
    bounds = [constant(value) for value in activation.inputs[1:3]]
    low, high = (
        float(b) if b is not None and b.size == 1 else None for b in (*bounds, None, None)[:2]
    )
    if low is None or high is None:
        return False
    step, offset, slack = (
        np.float32(scale.reshape(-1)[0]),
        int(zero.reshape(-1)[0]),
        np.float32(EPSILON),
    )
    lower, upper = step * np.float32(least - offset), step * np.float32(most - offset)
    return bool(np.float32(low) - lower <= slack and upper - np.float32(high) <= slack)


def quantizers(value: ir.Value) -> list[ir.Node]:
    return [use.node for use in value.uses() if is_op(use.node, "QuantizeLinear")]


def integer_type(node: ir.Node | None) -> ir.DataType | None:
    """The integer type of a ``QuantizeLinear`` or ``DequantizeLinear``."""
    if node is None:
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and (zero.dtype is not None or zero.const_value is not None):
        return zero.dtype or (zero.const_value.dtype if zero.const_value is not None else None)
    if is_op(node, "DequantizeLinear"):
        source = node.inputs[0]
        if source is None:
            return None
        if source.const_value is not None:
            return source.const_value.dtype
        return source.dtype or integer_type(source.producer())
    given = node.attributes.get_int("outputinteger_type", 0)
    return ir.DataType(given) if given else ir.DataType.UINT8


def same_parameters(one: ir.Node, other: ir.Node) -> bool:
    arrays = [[constant(v) for v in node.inputs[1:3]] for node in (one, other)]
    if len(arrays[0]) != len(arrays[1]):
        return False
    return all(
        a is not None
        and b is not None
        and a.size == 1
        and np.array_equal(a.reshape(-1), b.reshape(-1))
        for a, b in zip(*arrays, strict=True)
    )
