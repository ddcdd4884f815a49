"""The sizes of what operators answer, from what is known of their inputs.

Common operators are followed here, with names for sizes that are not fixed; the rest is left to
``onnx.shape_inference``, one node at a time.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import onnx
import onnx_ir as ir

from ..graph import constant_tensor
from .partial import Call, Dims, Item, UnknownError

Tensor: TypeAlias = tuple[ir.DataType | None, Dims | None]
"""The type and the sizes of one output."""

_READABLE_BYTES = 1024
"""Constants up to this size are shown to ``onnx.shape_inference``: axes, sizes and scales."""

# fmt: off
_SAME: Final = frozenset({
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "LRN", "LayerNormalization",
    "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg",
    "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Trilu",
})
"""Operators whose first output has the type and sizes of their first input."""

_BROADCAST: Final = frozenset({
    "Add", "BitShift", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "Sub", "Sum",
})
_COMPARE: Final = frozenset({
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not",
    "Or", "Xor",
})
# fmt: on


def infer(call: Call) -> Sequence[Tensor]:
    """The outputs of a node, in order, as far as known. Raises ``UnknownError`` if none is."""
    kind = call.node.op_type
    if kind in _SAME:
        return [(_type(call, 0), _dims(call, 0))]
    if kind in _BROADCAST or kind in _COMPARE:
        dtype = ir.DataType.BOOL if kind in _COMPARE else _type(call, 0)
        return [(dtype, _broadcast(call, range(len(call.node.inputs))))]
    if (rule := _RULES.get(kind)) is not None:
        return [rule(call)]
    return _infer_with_onnx(call)


def _type(call: Call, index: int) -> ir.DataType | None:
    value = call.node.inputs[index]
    return None if value is None else call.types(value)


def _dims(call: Call, index: int) -> Dims | None:
    value = call.node.inputs[index]
    return None if value is None else call.sizes(value)


def named(dims: Sequence[Item], value: ir.Value) -> Dims:
    """``dims`` with a name, that no other tensor's size has, for each that is unknown."""
    return tuple(f"{value.name}:{axis}" if d is None else d for axis, d in enumerate(dims))


def _broadcast(call: Call, indices: Iterable[int]) -> Dims | None:
    shapes = [_dims(call, index) for index in indices]
    known = [shape for shape in shapes if shape is not None]
    return _joined(call, known) if len(known) == len(shapes) else None


def _joined(call: Call, shapes: Sequence[Sequence[Item]]) -> Dims:
    """The sizes of several shapes broadcast together: a fixed size wins over a name."""
    rank = max(map(len, shapes))
    joined: list[Item] = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        fixed = [size for size in sizes if isinstance(size, int)]
        joined.append(fixed[0] if fixed else sizes.pop() if len(sizes) == 1 else None)
        if not fixed and not sizes and joined[-1] is None:
            joined[-1] = 1
    return named(joined, call.node.outputs[0])


def _where(call: Call) -> Tensor:
    return _type(call, 1), _broadcast(call, range(3))


def _cast(call: Call) -> Tensor:
    return ir.DataType(call.number("to", 0)), _dims(call, 0)


def _shape(call: Call) -> Tensor:
    dims = call.dims()
    part = dims[call.number("start", 0) : call.number("end", len(dims))]
    return ir.DataType.INT64, (len(part),)


def _size(call: Call) -> Tensor:
    del call
    return ir.DataType.INT64, ()


def _items(call: Call, index: int) -> list[Item]:
    """A vector of sizes, as far as it is known, or at least its length."""
    try:
        return list(call.partial(index).items.tolist())
    except UnknownError:
        (length,) = call.dims(index)
        if not isinstance(length, int):
            raise
        return [None] * length


def _reshape(call: Call) -> Tensor:
    source, target = _dims(call, 0), _items(call, 1)
    if not call.number("allowzero", 0):
        for axis, size in enumerate(target):
            if size == 0:
                target[axis] = source[axis] if source is not None else None
    if -1 in target:
        hole = target.index(-1)
        others = named([size for axis, size in enumerate(target) if axis != hole], _NOBODY)
        target[hole] = None if source is None else _quotient(source, others)
    return _type(call, 0), named(target, call.node.outputs[0])


_NOBODY = ir.Value(name="?")


def _quotient(whole: Dims, part: Dims) -> Item:
    """The one size by which ``part`` falls short of ``whole``, if that can be told."""
    rest, left = Counter(filter(_is_name, whole)), Counter(filter(_is_name, part))
    total, divisor = (math.prod(d for d in dims if isinstance(d, int)) for dims in (whole, part))
    if left - rest or not divisor or total % divisor:
        return None
    names = list((rest - left).elements())
    if not names:
        return total // divisor
    return names[0] if len(names) == 1 and total == divisor else None


def _is_name(size: Item) -> bool:
    return isinstance(size, str)


def _expand(call: Call) -> Tensor:
    source, target = call.dims(), _items(call, 1)
    return _type(call, 0), _joined(call, [source, target])


def _constant_of_shape(call: Call) -> Tensor:
    value = call.node.attributes.get_tensor("value", None)
    dtype = ir.DataType.FLOAT if value is None else value.dtype
    return dtype, named(_items(call, 0), call.node.outputs[0])


_RULES: Final[dict[str, Callable[[Call], Tensor]]] = {
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Where": _where,
}

_schema = functools.cache(onnx.defs.get_schema)


def _infer_with_onnx(call: Call) -> Sequence[Tensor]:
    node = call.node
    proto = onnx.NodeProto(op_type=node.op_type)
    for attribute in node.attributes.values():
        if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            raise UnknownError
        ir.serde.serialize_attribute_into(proto.attribute.add(), attribute)
    types, data = {}, {}
    for index, value in enumerate(node.inputs):
        if value is None:
            proto.input.append("")
            continue
        name = str(index)
        proto.input.append(name)
        types[name] = _type_proto(call, value)
        if (tensor := _readable(call, value)) is not None:
            data[name] = tensor
    proto.output.extend(f"out{index}" for index in range(len(node.outputs)))
    try:
        schema = _schema(node.op_type, call.opset)
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", call.opset)]
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError) as error:
        raise UnknownError from error
    outputs = zip(proto.output, node.outputs, strict=True)
    return [
        _tensor(found[name], output) if name in found else (None, None) for name, output in outputs
    ]


def _type_proto(call: Call, value: ir.Value) -> onnx.TypeProto:
    dtype, dims = call.types(value), call.sizes(value)
    if dtype is None:
        raise UnknownError
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = dtype.value
    if dims is not None:
        proto.tensor_type.shape.SetInParent()
        for size in dims:
            dim = proto.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
    return proto


def _readable(call: Call, value: ir.Value) -> onnx.TensorProto | None:
    """What ``value`` holds, if it is small: axes, sizes or scales."""
    tensor = constant_tensor(value)
    if tensor is not None:
        if tensor.nbytes > _READABLE_BYTES or isinstance(tensor, ir.ExternalTensor):
            return None
        return ir.serde.serialize_tensor(tensor)
    partial = call.values(value)
    known = None if partial is None else partial.known()
    return None if known is None else onnx.numpy_helper.from_array(known)


def _tensor(proto: onnx.TypeProto, output: ir.Value) -> Tensor:
    if not proto.HasField("tensor_type"):
        return None, None
    dtype = ir.DataType(proto.tensor_type.elem_type)
    if not proto.tensor_type.HasField("shape"):
        return dtype, None
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in proto.tensor_type.shape.dim
    ]
    return dtype, named(sizes, output)
