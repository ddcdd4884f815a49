"""How operators are done to a tensor whose axes lie in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant
from .elementwise import BROADCASTING, REDUCTIONS, UNARY
from .labels import Label
from .movement import Place, axes_of, has_input, numbers
from .sinking import Rule, Sinker, Sunk, Write, has_constants


def _again(node: ir.Node, changed: Mapping[str, Any] = {}) -> Write:
    """``node`` on other inputs, with some other attributes."""

    def write(place: Place, x: ir.Value, others: Sequence[ir.Value | None]) -> ir.Value:
        attributes = [a for name, a in node.attributes.items() if name not in changed]
        attributes += ir.convenience.convert_attributes(changed)
        return place.add(node.op_type, [x, *others], attributes, like=node.outputs[0])

    return write


def _unary(sinker: Sinker, node: ir.Node) -> Sunk | None:
    label = sinker.label(node.inputs[0], node)
    return Sunk(label, _again(node)) if label is not None else None


def _broadcasting(sinker: Sinker, node: ir.Node) -> Sunk | None:
    """All operands lie alike, or are constant; what is repeated along an axis stays so."""
    label: Label | None = None
    for value in node.inputs:
        if (found := sinker.label(value, node)) is not None:
            label = found if label is None else label.joined(found)
            if label is None:
                return None
    constants: dict[int, Array] = {}
    for index, value in enumerate(node.inputs):
        if sinker.label(value, node) is None:
            array = constant(value)
            moved = None if array is None or label is None else label.constant(array)
            if moved is None:
                return None
            constants[index] = moved
    resized = None if label is None else label.resized(sinker.dims(node.outputs[0]))
    if resized is None:
        return None

    def write(place: Place, x: ir.Value, others: Sequence[ir.Value | None]) -> ir.Value:
        operands = [x, *others]
        for index, moved in constants.items():
            old = constant(node.inputs[index])
            if old is None or old.shape != moved.shape or not np.array_equal(old, moved):
                operands[index] = place.constant("moved", moved)
        return place.add(node.op_type, operands, [*node.attributes.values()], like=node.outputs[0])

    return Sunk(resized, write)


def _matmul(sinker: Sinker, node: ir.Node) -> Sunk | None:
    """By a constant matrix: from the left, or as a convolution with a kernel of one element."""
    label, weight = sinker.label(node.inputs[0], node), constant(node.inputs[1])
    if label is None or weight is None or weight.ndim != 2 or label.rank < 2:
        return None
    along, rank = label.at(-1), len(label.dims)
    resized = label.resized(sinker.dims(node.outputs[0]))
    if along is None or resized is None:
        return None
    if along == rank - 1 and rank > 1:
        return Sunk(resized, _again(node))
    turned = np.ascontiguousarray(weight.T)
    if rank == 4 and along == 1 and weight.dtype == np.float32:
        kernel = turned.reshape(*turned.shape, 1, 1)

        def convolve(place: Place, x: ir.Value, _: Sequence[ir.Value | None]) -> ir.Value:
            operands = [x, place.constant("kernel", kernel)]
            return place.add("Conv", operands, {"kernel_shape": [1, 1]}, like=node.outputs[0])

        return Sunk(resized, convolve)
    if along != rank - 2:
        return None

    def multiply(place: Place, x: ir.Value, _: Sequence[ir.Value | None]) -> ir.Value:
        operands = [place.constant("turned", turned), x]
        return place.add("MatMul", operands, like=node.outputs[0])

    return Sunk(resized, multiply)


def _pad(sinker: Sinker, node: ir.Node) -> Sunk | None:
    label, pads = sinker.label(node.inputs[0], node), numbers(node, 1, "pads")
    if label is None or pads is None or has_input(node, 3) or len(pads) != 2 * label.rank:
        return None
    rank = len(label.dims)
    moved = [0] * 2 * rank
    for axis in range(label.rank):
        if pads[axis] or pads[axis + label.rank]:
            place = label.at(axis)
            if place is None:
                return None
            moved[place], moved[place + rank] = pads[axis], pads[axis + label.rank]
    resized = label.resized(sinker.dims(node.outputs[0]))
    if resized is None:
        return None
    if not has_input(node, 1):
        return Sunk(resized, _again(node, {"pads": moved}))

    def write(place: Place, x: ir.Value, others: Sequence[ir.Value | None]) -> ir.Value:
        return _again(node)(place, x, [place.ints("pads", moved), *others[1:]])

    return Sunk(resized, write)


def _concat(sinker: Sinker, node: ir.Node) -> Sunk | None:
    labels = [sinker.label(value, node) for value in node.inputs]
    first = labels[0]
    if first is None or not all(
        label and label.groups == first.groups and len(label.dims) == len(first.dims)
        for label in labels
    ):
        return None
    place = first.at(node.attributes.get_int("axis", 0))
    resized = first.resized(sinker.dims(node.outputs[0]))
    if place is None or resized is None:
        return None
    return Sunk(resized, _again(node, {"axis": place}))


def _softmax(sinker: Sinker, node: ir.Node) -> Sunk | None:
    label = sinker.label(node.inputs[0], node)
    if label is None or sinker.opsets.of(node) < 13:
        return None
    place = label.at(node.attributes.get_int("axis", -1))
    return None if place is None else Sunk(label, _again(node, {"axis": place}))


def _slice(sinker: Sinker, node: ir.Node) -> Sunk | None:
    label = sinker.label(node.inputs[0], node)
    starts = numbers(node, 1, "starts")
    if label is None or starts is None or not has_constants(node, 2, 3, 4):
        return None
    axes = numbers(node, 3, "axes")
    axes = list(range(len(starts))) if axes is None else axes
    places = [label.at(axis) for axis in axes]
    moved = [place for place in places if place is not None]
    resized = label.resized(sinker.dims(node.outputs[0]))
    if len(moved) < len(places) or resized is None:
        return None
    if not has_input(node, 1):
        return Sunk(resized, _again(node, {"axes": moved}))

    def write(place: Place, x: ir.Value, others: Sequence[ir.Value | None]) -> ir.Value:
        operands = [*others[:2], place.ints("axes", moved), *others[3:]]
        return _again(node)(place, x, operands)

    return Sunk(resized, write)


def _reduce(sinker: Sinker, node: ir.Node) -> Sunk | None:
    label = sinker.label(node.inputs[0], node)
    axes = None if label is None else axes_of(node, label.rank)
    found = label.without(axes) if label is not None and axes else None
    if label is None or axes is None or found is None:
        return None
    shorter, places = found
    if node.attributes.get_int("keepdims", 1):
        groups = tuple(() if axis in axes else group for axis, group in enumerate(label.groups))
        sizes = tuple(1 if axis in places else size for axis, size in enumerate(label.dims))
        shorter = Label(groups, sizes)
    attributes = {"keepdims": node.attributes.get_int("keepdims", 1)}
    places.sort()

    def write(place: Place, x: ir.Value, _: Sequence[ir.Value | None]) -> ir.Value:
        return place.with_axes(node.op_type, x, places, attributes)

    return Sunk(shorter, write)


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BROADCASTING - {"PRelu"}, _broadcasting),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "Concat": _concat,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
    "Softmax": _softmax,
}
"""For each operator that a transpose or reshape can be moved behind, how."""
