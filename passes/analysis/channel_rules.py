"""What each operator does to channels: the rules behind :mod:`.channels`.

A rule reads labels from the inputs of its node and writes them on the outputs. Labels that it
meets and does not read are frozen, so a rule needs to handle only the cases it is sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from ..graph import constant
from .channel_reshapes import blocks, regrouped, reshape_request, resolved
from .channels import ChannelFlow, OpId, Rule, describe

_NO_SHAPE = "a shape is not known there"

_rules: dict[OpId, Rule] = {}

RULES: Mapping[OpId, Rule] = MappingProxyType(_rules)
"""The rule of each operator. For one of your own pass ``{**RULES, (domain, op_type): rule}``."""

_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift Cast Ceil Celu Clip Cos Cosh Div Dropout
    Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
    Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu
    Where Xor
"""
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"


def _rule(op_types: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _rules.update({("", op_type): rule for op_type in op_types.split()})
        return rule

    return register


@_rule(_ELEMENTWISE)
def elementwise(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Channel by channel, with NumPy's broadcasting; also for an operator of one input."""
    result = flow.dims(node.outputs[0])
    shapes = {i: flow.dims(value) for i, value in enumerate(node.inputs) if value is not None}
    inputs = [(index, dims) for index, dims in shapes.items() if dims is not None]
    if result is None or len(inputs) < len(shapes):
        return _NO_SHAPE
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


@_rule("Conv")
def conv(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Rows of the weight make the output channels, its columns read the input channels.

    With groups of one input channel, each input channel goes with the outputs computed from it.
    With wider groups, the j-th channels of all groups go together, so that the groups stay equal.
    """
    rows, dims = flow.weight(node, 1, 0), flow.dims(node.inputs[1])
    if rows is None or dims is None:
        return "its weight is not constant"
    groups = node.attributes.get_int("group", 1)
    by_group = rows.reshape(groups, -1)
    inputs = flow.read(node, 0, 1)
    if groups > 1 and dims[1] == 1:
        if inputs is None:
            flow.freeze(rows, f"{describe(node)} reads channels that are fixed")
        else:
            flow.tie(np.repeat(inputs, by_group.shape[1]), rows)
    else:
        for row in by_group[1:]:
            flow.tie(by_group[0], row)
        columns = None if inputs is None else flow.weight(node, 1, 1)
        if inputs is not None and columns is not None:
            flow.tie(inputs, np.tile(columns, groups))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        flow.join(node, [(1, 0), (2, 0)])
    flow.write(node, 1, rows)
    flow.carry(node, 0, 0)
    return None


@_rule("BatchNormalization InstanceNormalization")
def normalization(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Scale, shift and statistics of each channel alone."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return _NO_SHAPE
    if len(node.outputs) > 1 or node.attributes.get_int("training_mode", 0) != 0:
        return "it runs in training mode"
    flow.join(node, [(0, 1), *((index, 0) for index in range(1, len(node.inputs)))], 1)
    flow.carry(node, 0, 0)
    if node.op_type == "BatchNormalization":
        for axis in range(2, len(dims)):
            flow.carry(node, axis, axis)
    return None


@_rule("MatMul")
def matmul(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Columns of the left operand go with rows of the right; the others are handed on."""
    left, right = (flow.dims(value) for value in node.inputs)
    if left is None or right is None:
        return _NO_SHAPE
    if len(left) < 2 or len(right) < 2:
        return "an operand is a vector"
    flow.join(node, [(0, -1), (1, -2)])
    flow.write(node, -1, flow.weight(node, 1, -1))
    flow.write(node, -2, flow.weight(node, 0, -2))
    for back in range(3, max(len(left), len(right)) + 1):
        sizes = [(i, dims[-back]) for i, dims in enumerate((left, right)) if len(dims) >= back]
        wide = [(i, -back) for i, size in sizes if size != 1]
        flow.join(node, wide or [(i, -back) for i, _ in sizes], -back)
    return None


@_rule("Gemm")
def gemm(node: ir.Node, flow: ChannelFlow) -> str | None:
    """A matrix product whose operands may be transposed, and a bias that is broadcast."""
    row, column = (1, 0) if node.attributes.get_int("transA", 0) else (0, 1)
    inner, outer = (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
    flow.join(node, [(0, column), (1, inner)])
    flow.write(node, 0, flow.read(node, 0, row))
    flow.write(node, 1, flow.weight(node, 1, outer))
    bias = flow.dims(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias and bias[-1] != 1:
        flow.join(node, [(1, outer), (2, -1)])
    if bias and len(bias) == 2 and bias[0] != 1:
        flow.join(node, [(0, row), (2, 0)])
    return None


@_rule(_POOLS)
def pool(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Each channel alone."""
    if len(node.outputs) > 1:
        return "it also gives indices into the whole tensor"
    flow.carry(node, 0, 0)
    flow.carry(node, 1, 1)
    return None


@_rule(_REDUCTIONS)
def reduction(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that are not reduced."""
    dims, axes = flow.dims(node.inputs[0]), _ints(node, "axes", 1)
    if dims is None or not axes:
        return _NO_SHAPE if dims is None else "it reduces every axis, or unknown ones"
    reduced = {axis % len(dims) for axis in axes}
    keep = node.attributes.get_int("keepdims", 1)
    for place, axis in enumerate(axis for axis in range(len(dims)) if axis not in reduced):
        flow.carry(node, axis, axis if keep else place)
    return "it reduces their axis"


@_rule("Pad")
def pad(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that are not padded."""
    dims, pads = flow.dims(node.inputs[0]), _ints(node, "pads", 1)
    if dims is None or pads is None:
        return _NO_SHAPE if dims is None else "its padding is not constant"
    axes = _ints(node, "axes", 3) or tuple(range(len(dims)))
    if len(node.inputs) > 3 and node.inputs[3] is not None and _ints(node, "axes", 3) is None:
        return "the axes that it pads are not constant"
    half = len(pads) // 2
    padded = {
        axis % len(dims)
        for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True)
        if before or after
    }
    for axis in range(len(dims)):
        if axis not in padded:
            flow.carry(node, axis, axis)
    return "it pads their axis"


@_rule("Transpose")
def transpose(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Moves axes."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return _NO_SHAPE
    order = node.attributes.get_ints("perm") or tuple(reversed(range(len(dims))))
    for place, axis in enumerate(order):
        flow.carry(node, axis, place)
    return None


@_rule("Concat")
def concat(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Puts labels side by side; inputs without labels come with fixed ones."""
    shapes = [dims for value in node.inputs if (dims := flow.dims(value)) is not None]
    if len(shapes) < len(node.inputs):
        return _NO_SHAPE
    rank, every = len(shapes[0]), range(len(node.inputs))
    along = node.attributes.get_int("axis", 0) % rank
    for axis in set(range(rank)) - {along}:
        flow.join(node, [(index, axis) for index in every], axis)
    if not any(flow.labels(value, along) is not None for value in node.inputs):
        return None
    sizes = [dims[along] for dims in shapes]
    if not all(isinstance(size, int) for size in sizes):
        return "it appends a tensor of unknown size"
    parts = [flow.read(node, index, along) for index in every]
    flow.write(
        node,
        along,
        np.concatenate(
            [
                flow.fixed(int(size or 0), "they come from a tensor that is fixed")
                if part is None
                else part
                for part, size in zip(parts, sizes, strict=True)
            ]
        ),
    )
    return None


@_rule("Flatten Squeeze Unsqueeze")
def regroup(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Merges axes, and splits those whose channels come in whole blocks."""
    before, after = flow.dims(node.inputs[0]), flow.dims(node.outputs[0])
    if before is None or after is None:
        return _NO_SHAPE
    after = resolved(before, after)
    refusal = None
    for old, new in blocks(before, after):
        labelled = [axis for axis in old if flow.labels(node.inputs[0], axis) is not None]
        if not labelled:
            continue
        labels = flow.labels(node.inputs[0], labelled[0])
        moved = None
        if labels is not None and len(labelled) == 1:
            sizes = [before[axis] for axis in old], [after[axis] for axis in new]
            moved = regrouped(labels, old.index(labelled[0]), *sizes)
        if moved is None:
            refusal = "it splits them or mixes them with another axis"
        else:
            flow.write(node, new[moved[0]], moved[1])
            flow.read(node, 0, labelled[0])
    return refusal


@_rule("Reshape")
def reshape(node: ir.Node, flow: ChannelFlow) -> str | None:
    """As :func:`regroup`, and the shape it asks for can be written down anew."""
    before, after = flow.dims(node.inputs[0]), flow.dims(node.outputs[0])
    if before is None or after is None:
        return _NO_SHAPE
    request = reshape_request(node, before, resolved(before, after))
    if request is None:
        return "its result has more than one unknown size"
    refusal = regroup(node, flow)
    rank = range(len(after))
    free = {axis for axis in rank if flow.labels(node.outputs[0], axis) is not None}
    if free:
        flow.reshapes[node] = request
    for axis, sizes in enumerate(flow.read_sizes(node, 1) or ()):
        if sizes is not None and axis not in free:
            flow.freeze(sizes, f"their number is a size that {describe(node)} asks for")
    return refusal


def _ints(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """Integers that older operator versions take as attribute, newer ones as constant input."""
    if name in node.attributes:
        return tuple(node.attributes.get_ints(name, ()))
    array = constant(node.inputs[index]) if index < len(node.inputs) else None
    return None if array is None else tuple(int(number) for number in array.ravel())
