"""Channel rules of the operators that treat each channel alone, or take something over an axis."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from .channel_flow import NO_SHAPE, ChannelFlow, Rule, input_of, integers

_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift Cast Ceil Celu Clip Cos Cosh Div Dropout
    Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
    Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
    ThresholdedRelu Where Xor
"""
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"


def elementwise(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Channel by channel, with NumPy's broadcasting; also for an operator of one input."""
    result = flow.dims(node.outputs[0])
    shapes = {i: flow.dims(value) for i, value in enumerate(node.inputs) if value is not None}
    inputs = [(index, dims) for index, dims in shapes.items() if dims is not None]
    if result is None or len(inputs) < len(shapes):
        return NO_SHAPE
    for axis, size in enumerate(result):
        places = []
        for index, dims in inputs:
            own = axis - len(result) + len(dims)
            if own >= 0 and (dims[own] != 1 or size == 1):
                places.append((index, own))
            elif own >= 0:
                flow.read(node, index, own)
        flow.join(node, places, axis)
        for output in range(1, len(node.outputs)):
            flow.write(node, axis, flow.labels(node.outputs[0], axis), output)
    return None


def quantization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Channel by channel; scales and zero points are one for all, or one for each channel."""
    dims, scale = flow.dims(node.inputs[0]), flow.dims(node.inputs[1])
    if dims is None or scale is None:
        return NO_SHAPE
    if len(scale) > 1:
        return "it scales them in blocks"
    along = node.attributes.get_int("axis", 1) % max(len(dims), 1) if scale else None
    for axis in range(len(dims)):
        if axis != along or scale == (1,):
            flow.carry(node, axis, axis)
    if along is not None and scale != (1,):
        places = [(i, 0) for i in range(1, len(node.inputs)) if input_of(node, i) is not None]
        flow.join(node, [(0, along), *places], along)
    return None


def pool(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Each channel alone."""
    if len(node.outputs) > 1:
        return "it also gives indices into the whole tensor"
    flow.carry(node, 0, 0)
    flow.carry(node, 1, 1)
    return None


def reduction(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that are not reduced."""
    dims, axes = flow.dims(node.inputs[0]), integers(node, "axes", 1)
    if dims is None or not axes:
        return NO_SHAPE if dims is None else "it reduces every axis, or unknown ones"
    reduced = {axis % len(dims) for axis in axes}
    keep = node.attributes.get_int("keepdims", 1)
    for place, axis in enumerate(axis for axis in range(len(dims)) if axis not in reduced):
        flow.carry(node, axis, axis if keep else place)
    return "it reduces their axis"


def over_axis(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on every axis but the one it works along; before opset 13, Softmax takes the rest."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    if node.op_type == "CumSum":
        (along,) = integers(node, "", 1) or (None,)
        if along is None:
            return "its axis is not constant"
    else:
        old = node.op_type != "LpNormalization" and flow.opset < 13
        along = node.attributes.get_int("axis", 1 if old else -1)
    rank = len(dims)
    taken = {along % rank}
    if node.op_type in {"Softmax", "LogSoftmax", "Hardmax"} and flow.opset < 13:
        taken = set(range(along % rank, rank))
    for axis in set(range(rank)) - taken:
        flow.carry(node, axis, axis)
    return "it works along their axis"


ELEMENTWISE: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_POOLS.split(), pool),
    **dict.fromkeys(_REDUCTIONS.split(), reduction),
    **dict.fromkeys(("CumSum", "Hardmax", "LogSoftmax", "LpNormalization", "Softmax"), over_axis),
    "DequantizeLinear": quantization,
    "QuantizeLinear": quantization,
}

MICROSOFT_ELEMENTWISE: Mapping[str, Rule] = dict.fromkeys(
    ("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), elementwise
)
"""Those of ONNX Runtime's own operators."""
