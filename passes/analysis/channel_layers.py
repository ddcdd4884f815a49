"""Channel rules of the layers: convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .channel_flow import NO_SHAPE, Change, ChannelFlow, Repair, Rule, Stays, describe, input_of


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
        flow.repairs[node] = _groups_repair(node, groups)
    else:
        for row in by_group[1:]:
            flow.tie(by_group[0], row)
        columns = None if inputs is None else flow.weight(node, 1, 1)
        if inputs is not None and columns is not None:
            flow.tie(inputs, np.tile(columns, groups))
    if input_of(node, 2) is not None:
        flow.join(node, [(1, 0), (2, 0)])
    flow.write(node, 1, rows)
    flow.carry(node, 0, 0)
    return None


def conv_transpose(node: ir.Node, flow: ChannelFlow) -> str | None:
    """As :func:`conv`, with rows that read and columns that make channels, of each group anew."""
    rows, dims = flow.weight(node, 1, 0), flow.dims(node.inputs[1])
    inputs = flow.read(node, 0, 1)
    if rows is None or dims is None:
        return "its weight is not constant"
    groups = node.attributes.get_int("group", 1)
    makes = dims[1]
    if not isinstance(makes, int):
        return NO_SHAPE
    if inputs is None:
        flow.freeze(rows, f"{describe(node)} reads channels that are fixed")
    else:
        flow.tie(inputs, rows)
    if groups > 1 and len(rows) == groups:
        results = np.repeat(rows, makes)
        flow.repairs[node] = _groups_repair(node, groups)
    else:
        by_group = rows.reshape(groups, -1)
        for row in by_group[1:]:
            flow.tie(by_group[0], row)
        columns = flow.weight(node, 1, 1)
        if columns is None:
            return "its weight is not constant"
        results = np.tile(columns, groups)
    bias = flow.weight(node, 2, 0)
    if bias is not None:
        flow.tie(results, bias)
    elif input_of(node, 2) is not None:
        flow.freeze(results, f"{describe(node)} adds a bias that is not constant")
    flow.write(node, 1, results)
    flow.carry(node, 0, 0)
    return None


def _groups_repair(node: ir.Node, groups: int) -> Repair:
    """Depthwise, there are as many groups as input channels; other groups only get narrower."""

    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[1], 0)
        if mask is None:
            return None
        return Change(attributes={"group": groups * int(mask.sum()) // len(mask)})

    return repair


def matmul(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Columns of the left operand go with rows of the right; the others are handed on."""
    left, right = (flow.dims(value) for value in node.inputs)
    if left is None or right is None:
        return NO_SHAPE
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


def recurrent(node: ir.Node, flow: ChannelFlow) -> str | None:
    """The hidden units: a row of each gate, a column of what reads the state, in all directions."""
    weight, dims = flow.weight(node, 1, 1), flow.dims(node.inputs[1])
    recurrence, hidden = flow.weight(node, 2, 1), flow.weight(node, 2, 2)
    if weight is None or recurrence is None or hidden is None or dims is None:
        return "its weights are not constant"
    units = len(hidden)
    for labels in (weight, recurrence):
        for gate in labels.reshape(-1, units):
            flow.tie(hidden, gate)
    inputs = flow.read(node, 0, 2)
    if inputs is not None and (columns := flow.weight(node, 1, 2)) is not None:
        flow.tie(inputs, columns)
    for index in (3, 7):
        if input_of(node, index) is None:
            continue
        extra = flow.weight(node, index, 1)
        if extra is None:
            flow.freeze(hidden, f"{describe(node)} adds what is not constant")
            continue
        for part in extra.reshape(-1, units):
            flow.tie(hidden, part)
    for index in (5, 6):
        if input_of(node, index) is not None:
            flow.join(node, [(2, 2), (index, 2)])
    flow.write(node, 3, hidden, 0)
    for output in range(1, len(node.outputs)):
        flow.write(node, 2, hidden, output)

    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[2], 2)
        return None if mask is None else Change(attributes={"hidden_size": int(mask.sum())})

    flow.repairs[node] = repair
    return None


LAYERS: Mapping[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GRU": recurrent,
    "Gemm": gemm,
    "LSTM": recurrent,
    "MatMul": matmul,
    "RNN": recurrent,
}
