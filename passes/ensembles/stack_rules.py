"""How operators that hold no weights, or one number per channel, run on stacked values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..graph import constant
from .bundles import Bundle
from .stacker import NEW, Stacked, Stacker, Unfit

Inputs: TypeAlias = Sequence[Stacked | None]
"""The inputs of a bundle as they are stacked; ``None`` for those that are not."""

Rule: TypeAlias = Callable[[Stacker, Bundle, Inputs], Stacked | Sequence[Stacked | None]]
"""Writes a bundle as one node, or raises :class:`~.stacker.Unfit`.

The answer is its first output, or one entry an output with ``None`` for those that nothing reads.
"""

UNARY: Final = frozenset(
    {
        "Abs",
        "Cast",
        "Ceil",
        "Cos",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "QuickGelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    }
)
BINARY: Final = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Mul",
        "Or",
        "Pow",
        "PRelu",
        "Sub",
        "Xor",
    }
)
POOLS: Final = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"}
)
REDUCTIONS: Final = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
    }
)


def the_only(inputs: Inputs) -> Stacked:
    """The stacked input of a bundle that has just one."""
    if not inputs or inputs[0] is None or any(one is not None for one in inputs[1:]):
        raise Unfit("it does not read stacked values alone")
    return inputs[0]


def unary(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Entry by entry: the layout stays. Bounds have to be the same in all."""
    stacked = the_only(inputs)
    others = [same_input(stacker, bundle, at) for at in range(1, len(inputs))]
    value = stacker.op(bundle.first.op_type, [stacked.value, *others], like=bundle.first)
    return Stacked(value, stacked.count, stacked.dims, stacked.axis, stacked.tail)


def binary(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Two stacks of one layout, or a stack with constants or with what all branches share."""
    left, right = inputs
    op_type = bundle.first.op_type
    if left is not None and right is not None:
        return _both(stacker, bundle, left, right)
    stacked = left or right
    if stacked is None:
        raise Unfit("it reads nothing that is stacked")
    values = bundle.reads(1 if left is not None else 0)
    shared = stacker.shared(values)
    if shared is not None:
        stacked = stacker.in_front(stacked)
        _check_smaller(stacker.dims(shared), stacked)
        other = shared
    else:
        other = stacker.operand(values, stacked)
    pair = [stacked.value, other] if left is not None else [other, stacked.value]
    value = stacker.op(op_type, pair, like=bundle.first)
    return Stacked(value, stacked.count, stacked.dims, stacked.axis, stacked.tail)


def _check_smaller(dims: Sequence[object], stacked: Stacked) -> None:
    """Refuse what would broadcast the values of ``stacked`` to a larger shape."""
    if len(dims) > stacked.rank:
        raise Unfit("what it meets has more axes")
    for size, known in zip(reversed(dims), reversed(stacked.dims), strict=False):
        if size != 1 and (size is None or size != known):
            raise Unfit("what it meets may be larger")


def _both(stacker: Stacker, bundle: Bundle, left: Stacked, right: Stacked) -> Stacked:
    if left.rank != right.rank:
        raise Unfit("it broadcasts values of different ranks")
    axis = left.axis
    if (
        axis != right.axis
        or left.tail != right.tail
        or (axis != NEW and (left.dims[axis] != right.dims[axis] or left.dims[axis] is None))
    ):
        left, right = stacker.in_front(left), stacker.in_front(right)
    value = stacker.op(bundle.first.op_type, [left.value, right.value], like=bundle.first)
    dims = stacker.dims(bundle.first.outputs[0])
    return Stacked(value, left.count, dims, left.axis, left.tail)


def variadic(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Any number of stacks of one layout."""
    parts = [one for one in inputs if one is not None]
    if len(parts) < len(inputs) or len({one.rank for one in parts}) > 1:
        raise Unfit("it does not read stacked values of one rank alone")
    layouts = {
        (one.axis, one.tail, NEW if one.axis == NEW else one.dims[one.axis]) for one in parts
    }
    if len(layouts) > 1 or None in next(iter(layouts)):
        parts = [stacker.in_front(one) for one in parts]
    first = parts[0]
    value = stacker.op(bundle.first.op_type, [one.value for one in parts])
    dims = stacker.dims(bundle.first.outputs[0])
    return Stacked(value, first.count, dims, first.axis, first.tail)


def pool(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Channel by channel, whatever channels there are."""
    stacked = the_only(inputs)
    if len(bundle.first.outputs) > 1:
        raise Unfit("it also answers with indices")
    stacked = stacker.along(stacked, 1)
    value = stacker.op(bundle.first.op_type, [stacked.value], like=bundle.first)
    return Stacked(value, stacked.count, stacker.dims(bundle.first.outputs[0]), 1)


def softmax(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Along an axis that is not the branches' own."""
    if stacker.opset < 13:
        raise Unfit("before opset 13 it normalizes over all later axes at once")
    stacked = stacker.untailed(the_only(inputs))
    axis = bundle.first.attributes.get_int("axis", -1) % stacked.rank
    if axis == stacked.axis:
        stacked = stacker.in_front(stacked)
    axis += stacked.axis == NEW
    value = stacker.op(bundle.first.op_type, [stacked.value], {"axis": axis}, like=bundle.first)
    return Stacked(value, stacked.count, stacked.dims, stacked.axis)


def concat(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Side by side in each branch, along another axis than the branches'."""
    if not inputs or any(one is None for one in inputs):
        raise Unfit("it does not read stacked values alone")
    parts = [stacker.untailed(one) for one in inputs if one is not None]
    axis = bundle.first.attributes.get_int("axis", 0) % parts[0].rank
    layouts = {part.axis for part in parts}
    if len(layouts) > 1 or axis in layouts:
        parts = [stacker.in_front(part) for part in parts]
    layout = parts[0].axis
    whole = axis + 1 if layout == NEW else axis
    value = stacker.op("Concat", [part.value for part in parts], {"axis": whole})
    return Stacked(value, parts[0].count, stacker.dims(bundle.first.outputs[0]), layout)


def reduce(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Along axes that are not the branches'."""
    stacked = stacker.untailed(the_only(inputs))
    node = bundle.first
    by_input = len(node.inputs) > 1 and node.inputs[1] is not None
    axes = constant(node.inputs[1]) if by_input else node.attributes.get_ints("axes")
    if axes is None or not len(axes):
        raise Unfit("it reduces all axes, or some that are not known")
    own = sorted(int(axis) % stacked.rank for axis in axes)
    if stacked.axis in own:
        stacked = stacker.in_front(stacked)
    whole = [axis + (stacked.axis == NEW) for axis in own]
    if by_input:
        value = stacker.op(
            node.op_type, [stacked.value, stacker.constant(np.array(whole, np.int64))], like=node
        )
    else:
        value = stacker.op(node.op_type, [stacked.value], {"axes": whole}, like=node)
    return _reduced(stacker, bundle, stacked, own, value)


def arg_reduce(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """As :func:`reduce`, along one axis."""
    stacked = stacker.untailed(the_only(inputs))
    axis = bundle.first.attributes.get_int("axis", 0) % stacked.rank
    if stacked.axis == axis:
        stacked = stacker.in_front(stacked)
    whole = axis + (stacked.axis == NEW)
    value = stacker.op(bundle.first.op_type, [stacked.value], {"axis": whole}, like=bundle.first)
    return _reduced(stacker, bundle, stacked, [axis], value)


def _reduced(
    stacker: Stacker, bundle: Bundle, stacked: Stacked, axes: Sequence[int], value: ir.Value
) -> Stacked:
    layout = stacked.axis
    if layout != NEW and not bundle.first.attributes.get_int("keepdims", 1):
        layout -= sum(axis < layout for axis in axes)
    return Stacked(value, stacked.count, stacker.dims(bundle.first.outputs[0]), layout)


def pad(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Along other axes than the branches'."""
    stacked = stacker.untailed(the_only(inputs))
    node, rank = bundle.first, stacked.rank
    if len(node.inputs) < 2 or len(node.inputs) > 3 or (pads := constant(node.inputs[1])) is None:
        raise Unfit("it pads by what is not constant")
    before, after = pads[:rank].tolist(), pads[rank:].tolist()
    if stacked.axis != NEW and (before[stacked.axis] or after[stacked.axis]):
        stacked = stacker.in_front(stacked)
    front = [0] if stacked.axis == NEW else []
    whole = stacker.constant(np.array([*front, *before, *front, *after], np.int64))
    rest = [same_input(stacker, bundle, 2)] if len(node.inputs) > 2 else []
    value = stacker.op("Pad", [stacked.value, whole, *rest], like=node)
    return Stacked(value, stacked.count, stacker.dims(node.outputs[0]), stacked.axis)


def same_input(stacker: Stacker, bundle: Bundle, index: int) -> ir.Value | None:
    """The input that is the same in all branches."""
    values = bundle.reads(index)
    if all(value is None for value in values):
        return None
    if (shared := stacker.shared(values)) is not None:
        return shared
    arrays = stacker.weights(values)
    if any(not np.array_equal(array, arrays[0]) for array in arrays):
        raise Unfit("a bound or fill value differs")
    return values[0]


RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(UNARY, unary),
    "Clip": unary,
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), variadic),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "Concat": concat,
    "Pad": pad,
}
"""The rule of each operator of the standard domain."""
