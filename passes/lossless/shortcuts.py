"""Nodes that can read what stands one operator further back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import onnx_ir as ir

from ..graph import constant, feeds_only, is_op
from .elementwise import BROADCASTING
from .movement import has_input, is_settled, numbers
from .noops import NoOps

_BITS: Final = {
    ir.DataType.INT8: (8, True),
    ir.DataType.INT16: (16, True),
    ir.DataType.INT32: (32, True),
    ir.DataType.INT64: (64, True),
    ir.DataType.UINT8: (8, False),
    ir.DataType.UINT16: (16, False),
    ir.DataType.UINT32: (32, False),
    ir.DataType.UINT64: (64, False),
}
"""Integers: how wide they are, and whether they have a sign."""
_WIDER: Final = {
    ir.DataType.FLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.BFLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
    ir.DataType.DOUBLE: set[ir.DataType](),
}
"""Floats, each with those that hold all its values."""

_Rule: TypeAlias = Callable[[NoOps, ir.Node], bool]


def shorten(known: NoOps, node: ir.Node) -> bool:
    """Let ``node`` read further back where it answers the same, and say whether it now does."""
    rule = _RULES.get(node.op_type)
    return rule is not None and is_settled(node) and rule(known, node)


def _before(node: ir.Node, index: int, kind: str) -> ir.Node | None:
    source = node.inputs[index] if has_input(node, index) else None
    before = None if source is None else source.producer()
    return before if is_op(before, kind) and is_settled(before) else None


def _cast(known: NoOps, node: ir.Node) -> bool:
    """A cast of a cast that loses nothing is one cast."""
    before = _before(node, 0, "Cast")
    source = None if before is None else before.inputs[0]
    first = None if source is None else known.dtype(source)
    if before is None or first is None:
        return False
    second, third = (ir.DataType(one.attributes.get_int("to", 0)) for one in (before, node))
    if not _loses_nothing(first, second, third):
        return False
    node.replace_input_with(0, source)
    return True


def _loses_nothing(first: ir.DataType, second: ir.DataType, third: ir.DataType) -> bool:
    if first in _WIDER:
        return second in _WIDER[first] and (third in _WIDER or third == ir.DataType.BOOL)
    if third not in _WIDER and third not in _BITS and third != ir.DataType.BOOL:
        return False
    if first == ir.DataType.BOOL:
        return second in _WIDER or second in _BITS
    if first not in _BITS or second not in _BITS:
        return False  # what is too large for the last integer wraps around, or does not
    (narrow, signed), (wide, keeps) = _BITS[first], _BITS[second]
    return narrow < wide and (keeps or not signed)


def _expanded(known: NoOps, node: ir.Node) -> bool:
    """What is repeated to the size of another operand is repeated by the operator itself."""
    for index in range(len(node.inputs)):
        before = _before(node, index, "Expand")
        wide, source = (None, None) if before is None else (before.outputs[0], before.inputs[0])
        if wide is None or source is None:
            continue
        others = [value for at, value in enumerate(node.inputs) if at != index and value]
        if any(_is_as_wide(known, source, wide, other) for other in others):
            node.replace_input_with(index, source)
            return True
    return False


def _is_as_wide(known: NoOps, source: ir.Value, wide: ir.Value, other: ir.Value) -> bool:
    before, after, beside = (known.dims(value) for value in (source, wide, other))
    if before is None or after is None or beside is None:
        return False
    if len(after) > max(len(before), len(beside)):
        return False  # an axis that Expand adds
    missing = (1,) * (len(after) - len(before))
    absent = (None,) * (len(after) - len(beside))
    sizes = (*absent, *beside[max(len(beside) - len(after), 0) :])
    # The same name is the same size.
    return all(
        old == new or (old == 1 and new == size)
        for old, new, size in zip((*missing, *before), after, sizes, strict=True)
    )


def _padding(node: ir.Node) -> tuple[list[int], float] | None:
    """What a ``Pad`` appends on each side, and of what value."""
    pads = numbers(node, 1, "pads")
    if pads is None or min(pads, default=0) < 0 or has_input(node, 3):
        return None
    if node.attributes.get_string("mode", "constant") != "constant":
        return None
    if not has_input(node, 2):
        return pads, node.attributes.get_float("value", 0.0)
    value = constant(node.inputs[2])
    if value is None or value.size != 1 or value.dtype.kind not in "fiu":
        return None
    return pads, float(value.item())


def _pad(known: NoOps, node: ir.Node) -> bool:
    """A pad of a pad with the same value is one pad."""
    before = _before(node, 0, "Pad")
    inner = None if before is None else _padding(before)
    outer = _padding(node)
    if before is None or inner is None or outer is None or inner[1] != outer[1]:
        return False
    if len(inner[0]) != len(outer[0]) or not feeds_only(before.outputs[0], node):
        return False
    pads = [one + two for one, two in zip(inner[0], outer[0], strict=True)]
    if has_input(node, 1):
        node.replace_input_with(1, known.places.before(node).ints("pads", pads))
    else:
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    node.replace_input_with(0, before.inputs[0])
    return True


def _window(known: NoOps, node: ir.Node) -> bool:
    """What is padded before a window slides over it can be padded by the window's operator."""
    del known
    before = _before(node, 0, "Pad")
    found = None if before is None else _padding(before)
    if before is None or found is None or len(node.outputs) > 1:
        return False
    (pads, value), rank = found, len(found[0]) // 2
    get = node.attributes.get_ints
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    none = (0,) * 2 * (rank - 2)
    mine = list(none if mode == "VALID" else get("pads", none))
    if rank < 3 or len(mine) != 2 * (rank - 2) or mode not in {"NOTSET", "VALID"}:
        return False
    if any(pads[:2]) or any(pads[rank : rank + 2]) or min(mine) < 0:
        return False
    both = [one + two for one, two in zip(mine, pads[2:rank] + pads[rank + 2 :], strict=True)]
    if node.op_type == "Conv":
        fits = value == 0
    else:
        kernel = [*get("kernel_shape", ())] * 2
        inside = all(pad < size for pad, size in zip(both, kernel, strict=True))
        plain = not node.attributes.get_int("ceil_mode", 0) and set(get("dilations", (1,))) == {1}
        fits = inside and plain and _pools(node, before, value, mine)
    if not fits:
        return False
    node.attributes["pads"] = ir.AttrInt64s("pads", both)
    node.attributes.pop("auto_pad", None)
    if node.op_type == "AveragePool":
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, before.inputs[0])
    return True


def _pools(node: ir.Node, pad: ir.Node, value: float, mine: list[int]) -> bool:
    """Whether a pool takes ``value`` for what it pads with itself."""
    if node.op_type == "AveragePool":
        counts = node.attributes.get_int("count_include_pad", 0) != 0
        return value == 0 and (counts or not any(mine))
    source = pad.inputs[0]
    # Every window holds a number that is no padding, and after Relu none is below 0.
    positive = source is not None and is_op(source.producer(), "Relu")
    return value == -math.inf or (value == 0 and positive)


_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys(BROADCASTING - {"PRelu"}, _expanded),
    **dict.fromkeys(("AveragePool", "Conv", "MaxPool"), _window),
    "Cast": _cast,
    "Pad": _pad,
}
"""For each operator that may read further back, when it does."""
