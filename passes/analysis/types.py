"""The element types of tensors, from the type constraints of ONNX's operators."""

from __future__ import annotations

import functools
from typing import Final

import onnx
import onnx_ir as ir

from ..graph import constant_tensor, is_op, subgraphs_of
from ..held import is_standard

_GIVEN: Final[dict[str, str]] = {
    "Bernoulli": "dtype",
    "Cast": "to",
    "EyeLike": "dtype",
    "Multinomial": "dtype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}
"""Operators whose answer has the type that an attribute says."""


def is_contrib_activation(node: ir.Node) -> bool:
    """Whether ``node`` is one of ONNX Runtime's own functions of each element of an input."""
    return node.domain == "com.microsoft" and node.op_type in _CONTRIB_ACTIVATIONS


_CONTRIB_ACTIVATIONS: Final = frozenset({"BiasGelu", "FastGelu", "Gelu", "QuickGelu"})


class ElementTypes:
    """Tells the element type of any tensor, looking back only as far as it has to.

    A declared type is believed, since runtimes check those; ``opset`` is the version of ONNX's
    own operators.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._known: dict[ir.Value, ir.DataType | None] = {}

    def of(self, value: ir.Value) -> ir.DataType | None:
        """The element type of ``value``; ``None`` if it is no tensor or cannot be told."""
        path: list[ir.Value] = []
        found: ir.DataType | ir.Value | None = value
        while isinstance(found, ir.Value) and found not in self._known:
            path.append(found)
            found = self._step(found)
        dtype = self._known[found] if isinstance(found, ir.Value) else found
        self._known.update(dict.fromkeys(path, dtype))
        return dtype

    def _step(self, value: ir.Value) -> ir.DataType | ir.Value | None:
        """The type of ``value``, or a value that has the same."""
        if (tensor := constant_tensor(value)) is not None:
            return tensor.dtype
        if value.type is not None:
            return value.dtype if isinstance(value.type, ir.TensorType) else None
        node, index = value.producer(), value.index()
        if node is not None and is_contrib_activation(node):
            return node.inputs[0]
        if node is None or index is None or not is_standard(node.domain):
            return None
        if is_op(node, "If"):
            return subgraphs_of(node)[0].outputs[index]
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return None
        if is_op(node, "ConstantOfShape"):
            filled = node.attributes.get("value")
            return ir.DataType.FLOAT if filled is None else filled.value.dtype
        if (given := node.attributes.get(_GIVEN.get(node.op_type, ""))) is not None:
            return ir.DataType(given.as_int())
        source = _source(node.op_type, self._opset, index)
        if source is None or isinstance(source, ir.DataType):  # which is an integer as well
            return source
        return node.inputs[source] if source < len(node.inputs) else None


@functools.cache
def _source(op_type: str, opset: int, index: int) -> ir.DataType | int | None:
    """The type that output ``index`` always has, or the input that has the same."""
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return None
    formal = schema.outputs[min(index, len(schema.outputs) - 1)]
    if len(formal.types) == 1:
        return _LITERALS.get(next(iter(formal.types)))
    for number, parameter in enumerate(schema.inputs):
        if parameter.type_str == formal.type_str:
            return number
    return None


_LITERALS: Final = {
    f"tensor({name})": dtype
    for name, dtype in (
        ("bool", ir.DataType.BOOL),
        ("float", ir.DataType.FLOAT),
        ("int32", ir.DataType.INT32),
        ("int64", ir.DataType.INT64),
        ("string", ir.DataType.STRING),
        ("uint8", ir.DataType.UINT8),
    )
}
