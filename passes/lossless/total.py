"""Which nodes answer whatever they are given."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..analysis.values import Facts
from ..graph import constant_tensor
from .elementwise import UNARY

_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
_ARITHMETIC: Final = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})
_MORE: Final = frozenset({"Shape", "Size", "Transpose"})


def never_fails(node: ir.Node, facts: Facts) -> bool:
    """Whether ``node``, which is valid, answers for inputs of any sizes and values.

    Elementwise operators of one tensor do, and arithmetic on floats with a constant number. Not
    known to: others, among them integer division and what reads strings.
    """
    if node.domain:
        return False
    types = {None if value is None else facts.dtype(value) for value in node.inputs}
    if None in types or ir.DataType.STRING in types:
        return False
    if node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to", 0)) != ir.DataType.STRING
    if node.op_type in _MORE or (node.op_type in UNARY and len(node.inputs) == 1):
        return True
    return node.op_type in _ARITHMETIC and types <= _FLOATS and _has_number(node)


def _has_number(node: ir.Node) -> bool:
    """Whether ``node`` reads two tensors, and one is a constant with one element and no axes."""
    tensors = [constant_tensor(value) for value in node.inputs]
    return len(tensors) == 2 and any(t is not None and len(t.shape) == 0 for t in tensors)
