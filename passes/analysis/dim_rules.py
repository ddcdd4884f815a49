"""The sizes of what operators answer, from what is known of their inputs.

Common operators are followed here, with names for sizes that are not fixed; the rest is left to
``onnx.shape_inference``, one node at a time.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import onnx
import onnx_ir as ir

from ..graph import constant_tensor
from .operator_dims import OPERATOR_DIMS, NotFollowedError, join
from .partial import Call, Dims, Item, UnknownError

_READABLE_BYTES = 1024
"""Constants up to this size are shown to ``onnx.shape_inference``: axes, sizes and scales."""

# fmt: off
_SAME: Final = frozenset({
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Cast", "Ceil",
    "Celu", "Clip", "Cos", "Cosh", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Log",
    "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu",
    "RMSNormalization", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh",
    "ThresholdedRelu", "Trilu",
})
"""Operators whose first output has the sizes of their first input."""

_BROADCAST: Final = frozenset({
    "Add", "And", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
})
"""Operators whose output has the sizes of all their inputs, broadcast."""
# fmt: on


def infer(call: Call) -> Sequence[Dims | None]:
    """The sizes of a node's outputs, in order, where known. Raises ``UnknownError`` if none is."""
    kind = call.node.op_type
    if kind in _SAME:
        return [_dims(call, 0)]
    if kind in _BROADCAST:
        return [_broadcast(call)]
    if (rule := _RULES.get(kind)) is not None:
        return [rule(call)]
    if (frequent := OPERATOR_DIMS.get(kind)) is not None:
        try:
            return [named(frequent(call), call.node.outputs[0])]
        except NotFollowedError:
            pass
    return _infer_with_onnx(call)


def _dims(call: Call, index: int) -> Dims | None:
    value = call.node.inputs[index]
    return None if value is None else call.sizes(value)


def named(dims: Sequence[Item], value: ir.Value) -> Dims:
    """``dims`` with a name, that no other tensor's size has, for each that is unknown."""
    return tuple(f"{value.name}:{axis}" if d is None else d for axis, d in enumerate(dims))


def _broadcast(call: Call) -> Dims | None:
    shapes = [_dims(call, index) for index in range(len(call.node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    return _joined(call, known) if len(known) == len(shapes) else None


def _joined(call: Call, shapes: Sequence[Sequence[Item]]) -> Dims:
    """The sizes of several shapes broadcast together."""
    return named(join(shapes), call.node.outputs[0])


def _shape(call: Call) -> Dims:
    dims = call.dims()
    return (len(dims[call.number("start", 0) : call.number("end", len(dims))]),)


def _size(call: Call) -> Dims:
    del call
    return ()


def _items(call: Call, index: int) -> list[Item]:
    """A vector of sizes, as far as it is known, or at least its length."""
    try:
        return list(call.partial(index).items.tolist())
    except UnknownError:
        (length,) = call.dims(index)
        if not isinstance(length, int):
            raise
        return [None] * length


def _reshape(call: Call) -> Dims:
    source, target = _dims(call, 0), _items(call, 1)
    if not call.number("allowzero", 0):
        for axis, size in enumerate(target):
            if size == 0:
                target[axis] = source[axis] if source is not None else None
    if -1 in target:
        hole = target.index(-1)
        others = named([size for axis, size in enumerate(target) if axis != hole], _NOBODY)
        target[hole] = None if source is None else _quotient(source, others)
    return named(target, call.node.outputs[0])


_NOBODY = ir.Value(name="?")


def _quotient(whole: Dims, part: Dims) -> Item:
    """The one size by which ``part`` falls short of ``whole``, if that can be told."""
    (total, rest), (divisor, left) = _factors(whole), _factors(part)
    if left - rest or not divisor or total % divisor:
        return None
    names, times = list((rest - left).elements()), total // divisor
    if not names:
        return times
    if len(names) > 1 or not times:
        return None
    return names[0] if times == 1 else f"{times}{_TIMES}{names[0]}"


_TIMES = "\N{MULTIPLICATION SIGN}"


def _factors(dims: Dims) -> tuple[int, Counter[str]]:
    """The number and the names whose product is that of ``dims``."""
    number, names = 1, Counter[str]()
    for size in dims:
        times, sign, name = size.partition(_TIMES) if isinstance(size, str) else (size, "", "")
        if sign and isinstance(times, str) and times.isdecimal():
            number, names = number * int(times), names + Counter([name])
        elif isinstance(size, str):
            names[size] += 1
        else:
            number *= size
    return number, names


def _expand(call: Call) -> Dims:
    source, target = call.dims(), _items(call, 1)
    return _joined(call, [source, target])


def _constant_of_shape(call: Call) -> Dims:
    return named(_items(call, 0), call.node.outputs[0])


def _range(call: Call) -> Dims | None:
    """Counting from 0 to a size has that size."""
    try:
        start, limit, delta = (call.partial(index).items.item() for index in range(3))
    except UnknownError:
        limit = None
    if isinstance(limit, str) and (start, delta) == (0, 1):
        return (limit,)
    return _infer_with_onnx(call)[0]


_RULES: Final[dict[str, Callable[[Call], Dims | None]]] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
}

_schema = functools.cache(onnx.defs.get_schema)


def _infer_with_onnx(call: Call) -> Sequence[Dims | None]:
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
    except (
        onnx.defs.SchemaError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise UnknownError from error
    outputs = zip(proto.output, node.outputs, strict=True)
    return [_found(found.get(name), output) for name, output in outputs]


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


def _found(proto: onnx.TypeProto | None, output: ir.Value) -> Dims | None:
    if proto is None or not proto.tensor_type.HasField("shape"):
        return None
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in proto.tensor_type.shape.dim
    ]
    return named(sizes, output)
