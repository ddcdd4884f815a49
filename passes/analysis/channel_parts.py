"""Channel rules of the operators that take a part of an axis, or put parts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ..graph import constant
from .channel_flow import (
    NO_SHAPE,
    Change,
    ChannelFlow,
    Rule,
    Stays,
    describe,
    input_of,
    integers,
)


def concat(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Puts labels side by side; inputs without labels come with fixed ones."""
    shapes = [dims for value in node.inputs if (dims := flow.dims(value)) is not None]
    if len(shapes) < len(node.inputs):
        return NO_SHAPE
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


def split(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands each output its part of the labels; the sizes of the parts are written anew."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    along = node.attributes.get_int("axis", 0) % len(dims)
    for axis in set(range(len(dims))) - {along}:
        labels = flow.read(node, 0, axis)
        for output in range(len(node.outputs)):
            flow.write(node, axis, labels, output)
    if flow.labels(node.inputs[0], along) is None:
        return None
    size = dims[along]
    given = integers(node, "split", 1)
    if not isinstance(size, int) or (given is None and input_of(node, 1) is not None):
        return "the sizes of its parts are not known"
    each = -(-size // len(node.outputs))
    parts = given or tuple(min(each, size - start) for start in range(0, size, each))
    labels = flow.read(node, 0, along)
    if labels is None or sum(parts) != size or len(parts) != len(node.outputs):
        return "the sizes of its parts are not known"
    for output, (start, end) in enumerate(_bounds(parts)):
        flow.write(node, along, labels[start:end], output)

    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[0], along)
        if mask is None:
            return None
        left = [int(mask[start:end].sum()) for start, end in _bounds(parts)]
        if flow.opset < 13:
            return Change(attributes={"split": left})
        return Change(inputs={1: left}, without=("num_outputs",))

    flow.repairs[node] = repair
    return None


def _bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = np.cumsum(sizes).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def slice_(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the labels within constant bounds, which are written anew."""
    dims = flow.dims(node.inputs[0])
    if dims is None:
        return NO_SHAPE
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    axes, steps = integers(node, "axes", 3), integers(node, "steps", 4)
    unknown = [index for index in (3, 4) if input_of(node, index) is not None]
    if (axes is None and 3 in unknown) or (steps is None and 4 in unknown):
        return "what it takes is not constant"
    if axes is None and (starts is None or ends is None):
        return "what it takes is not constant"
    places = [axis % len(dims) for axis in (axes or range(len(starts or ())))]
    for axis in set(range(len(dims))) - set(places):
        flow.carry(node, axis, axis)
    cuts: dict[int, tuple[int, int, int]] = {}
    for place, axis in enumerate(places):
        labels, size = flow.labels(node.inputs[0], axis), dims[axis]
        if labels is None:
            continue
        if starts is None or ends is None or not isinstance(size, int):
            return "what it takes is not constant"
        step = 1 if steps is None else steps[place]
        if step != 1:
            return "it takes every other one of them"
        start, end, _ = slice(starts[place], ends[place]).indices(size)
        cuts[place] = (axis, start, max(start, end))
        flow.write(node, axis, labels[start:end])
        flow.read(node, 0, axis)
    if not cuts or starts is None or ends is None:
        return None
    given = list(starts), list(ends)

    def repair(stays: Stays) -> Change | None:
        new = list(given[0]), list(given[1])
        for place, (axis, start, end) in cuts.items():
            mask = stays(node.inputs[0], axis)
            if mask is not None:
                new[0][place] = int(mask[:start].sum())
                new[1][place] = int(mask[:end].sum())
        if new == given:
            return None
        if flow.opset < 10:
            return Change(attributes={"starts": new[0], "ends": new[1]})
        return Change(inputs={1: new[0], 2: new[1]})

    flow.repairs[node] = repair
    return None


def gather(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the other axes, and those of constant indices, which are written anew.

    Rows of a constant, an embedding, have labels along its other axes.
    """
    dims, indices = flow.dims(node.inputs[0]), flow.dims(node.inputs[1])
    if dims is None or indices is None:
        return NO_SHAPE
    along = node.attributes.get_int("axis", 0) % len(dims)
    for axis in set(range(len(dims))) - {along}:
        embeds = along == 0 and len(dims) == 2
        labels = flow.weight(node, 0, axis) if embeds else flow.read(node, 0, axis)
        flow.write(node, axis if axis < along else axis + len(indices) - 1, labels)
    if flow.labels(node.inputs[0], along) is None:
        return None
    chosen, size = constant(node.inputs[1]), dims[along]
    if chosen is None or chosen.ndim != 1 or not isinstance(size, int):
        return "which of them it takes is not constant"
    labels = flow.read(node, 0, along)
    if labels is None:
        return None
    places = chosen.astype(np.int64) % size
    flow.write(node, along, labels[places])

    def repair(stays: Stays) -> Change | None:
        mask = stays(node.inputs[0], along)
        if mask is None:
            return None
        number = np.cumsum(mask) - 1
        return Change(inputs={1: [int(number[place]) for place in places if mask[place]]})

    flow.repairs[node] = repair
    return None


def pad(node: ir.Node, flow: ChannelFlow) -> str | None:
    """Hands on the axes that are not padded; padding with a constant comes with fixed labels."""
    dims, pads = flow.dims(node.inputs[0]), integers(node, "pads", 1)
    if dims is None or pads is None:
        return NO_SHAPE if dims is None else "its padding is not constant"
    axes = integers(node, "axes", 3)
    if axes is None and input_of(node, 3) is not None:
        return "the axes that it pads are not constant"
    half = len(pads) // 2
    padded = {
        axis % len(dims): (before, after)
        for axis, before, after in zip(
            axes or range(len(dims)), pads[:half], pads[half:], strict=True
        )
        if before or after
    }
    for axis in range(len(dims)):
        if axis not in padded:
            flow.carry(node, axis, axis)
    if node.attributes.get_string("mode", "constant") != "constant":
        return "it pads their axis with copies of them"
    for axis, (before, after) in padded.items():
        labels = flow.labels(node.inputs[0], axis)
        if labels is not None and before >= 0 and after >= 0 and isinstance(dims[axis], int):
            why = f"{describe(node)} adds them"
            flow.read(node, 0, axis)
            parts = [flow.fixed(before, why), labels, flow.fixed(after, why)]
            flow.write(node, axis, np.concatenate(parts))
    return "it cuts off some of them"


PARTS: Mapping[str, Rule] = {
    "Concat": concat,
    "Gather": gather,
    "Pad": pad,
    "Slice": slice_,
    "Split": split,
}
