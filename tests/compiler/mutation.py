"""A pass that is wrong on purpose, in one of many ways and at one of many places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxpress.passes.base import Context, Pass, Result
from onnxpress.passes.graph import graphs_of, nodes_of

_OTHERS = {
    "Abs": "Identity", "Add": "Sub", "And": "Or", "ArgMax": "ArgMin", "Floor": "Ceil",
    "GlobalAveragePool": "GlobalMaxPool", "Less": "Greater", "Max": "Min", "Min": "Max",
    "Mul": "Add", "Neg": "Identity", "ReduceMax": "ReduceMin", "ReduceMean": "ReduceMax",
    "ReduceSum": "ReduceMean", "Relu": "Identity", "Sigmoid": "Tanh", "Sub": "Add",
    "Tanh": "Identity",
}  # fmt: skip
_ORDERED = ("Concat", "Div", "MatMul", "Pow", "Sub")


@dataclass(frozen=True)
class Mutate(Pass):
    """Change one weight by a hundredth, one operator, one attribute, or the order of two inputs."""

    name: ClassVar[str] = "mutate"
    place: int = 0

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        changes = list(_changes(model))
        if changes:
            changes[self.place % len(changes)]()
            result.rewrote("something")
        return result


def _changes(model: ir.Model) -> Iterator[Callable[[], None]]:
    for graph in graphs_of(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype.is_floating_point() and tensor.size:
                yield partial(_weigh, value, tensor)
    for node in nodes_of(model):
        if node.op_type in _OTHERS:
            yield partial(setattr, node, "op_type", _OTHERS[node.op_type])
        if node.op_type in _ORDERED and len(node.inputs) == 2 and len(set(node.inputs)) == 2:
            yield partial(_swap, node)
        for attribute in node.attributes.values():
            if not attribute.is_ref() and (other := _other(attribute)) is not None:
                yield partial(node.attributes.add, other)


def _weigh(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    array = tensor.numpy()
    changed = (array.astype(np.float64) * 1.01).astype(array.dtype)
    value.const_value = ir.tensor(changed, name=value.name)


def _swap(node: ir.Node) -> None:
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def _other(attribute: ir.Attr) -> ir.Attr | None:
    """``attribute`` with another value, if one is easily found."""
    if attribute.type == ir.AttributeType.FLOAT:
        return ir.AttrFloat32(attribute.name, attribute.as_float() * 1.5 + 0.1)
    if attribute.name in {"axis", "keepdims", "upper"}:
        return ir.AttrInt64(attribute.name, int(attribute.as_int() == 0))
    if attribute.name in {"pads", "perm"}:
        numbers = list(attribute.as_ints())
        return ir.AttrInt64s(attribute.name, numbers[::-1]) if numbers[::-1] != numbers else None
    return None
