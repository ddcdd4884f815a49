"""Compute no rows and columns of an image that nothing reads."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import Names, add_initializer, constant, is_op
from .conv_windows import SpatialSizes, frame_of
from .windows import Axes, Frame

_WINDOWED: Final = ("Conv", "MaxPool", "AveragePool", "LpPool")
_PASSING: Final = (
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu"),
    *("BatchNormalization", "Add", "Mul", "Sub", "Div", "PRelu"),
)
_ARITHMETIC: Final = ("Add", "Mul", "Sub", "Div", "PRelu")
_WORTH: Final = 32
"""So many multiply-accumulates have to be saved for each element that a ``Slice`` copies."""


@dataclass(frozen=True)
class CropUnread(Pass):
    """Shrink windows to what is read of what they compute.

    A pooling of step 2 over 11 rows reads 10 of them; the last row, and all that only it needs, is
    computed for nothing. Going back from such windows, convolutions and poolings get less padding
    at the end, and where that is not enough, what the first of them reads is cropped::

        MaxPool2x2(Conv3x3(x))  of 13 rows  =  MaxPool2x2(Conv3x3(x[:12]))

    That ``Slice`` is written only where the convolutions save many times what it copies. Followed
    through activations, normalizations, and arithmetic with one number a channel. Sizes have to
    be fixed. Declined where a window rounds up, or more than one input is an image.
    """

    name: ClassVar[str] = "crop-unread"
    summary: ClassVar[str] = "compute no rows and columns that nothing reads"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Crop what is not read in the main graph."""
        del context
        result = Result(model)
        if any(is_op(node, *_WINDOWED) for node in model.graph):
            _Cropper(model, result).run()
        return result


@dataclass(frozen=True)
class _Window:
    """A node that reads windows: where, how many places are there, and how many are needed."""

    node: ir.Node
    frame: Frame
    places: Axes
    needed: Axes

    @property
    def reach(self) -> Axes:
        """So many entries of its input the needed places read, padding at the end included."""
        axes = zip(self.needed, self.frame.strides, self.frame.lasts, strict=True)
        return tuple((places - 1) * stride + last + 1 for places, stride, last in axes)

    @property
    def saved(self) -> int:
        """Multiply-accumulates that are not done where only what is needed is computed."""
        weight = self.node.inputs[1] if self.node.op_type == "Conv" else None
        array = constant(weight)
        per_place = 0 if array is None else array.size
        return (math.prod(self.places) - math.prod(self.needed)) * per_place


class _Cropper:
    """Asks back from readers what is needed, then shrinks forward."""

    def __init__(self, model: ir.Model, result: Result) -> None:
        self.model, self.result = model, result
        self.graph = model.graph
        self.sizes, self.facts = SpatialSizes(model), Facts(model)
        self.names = Names(model)
        self.asked: dict[ir.Value, list[Axes]] = defaultdict(list)
        self.windows: dict[ir.Node, _Window] = {}
        self.root: dict[ir.Value, ir.Value] = {}
        self.now: dict[ir.Value, Axes] = {}

    def run(self) -> None:
        nodes = list(self.graph)
        for node in reversed(nodes):
            self.ask(node)
        saved: dict[ir.Value, int] = defaultdict(int)
        for node in nodes:
            if (source := _image(node, self.sizes)) is not None:
                self.root[node.outputs[0]] = self.root.get(source, source)
            if node in self.windows and source is not None:
                saved[self.root[node.outputs[0]]] += self.windows[node].saved
        for root in dict.fromkeys(self.root.values()):
            self.crop(root, saved[root])
        for node in nodes:
            self.shrink(node)

    def needed(self, value: ir.Value) -> Axes | None:
        """How much of ``value`` is read from its beginning; ``None`` if its sizes are not known."""
        full = self.sizes.of(value)
        asked = self.asked[value]
        if full is None or value.is_graph_output() or len(asked) < len(value.uses()) or not asked:
            return full
        return tuple(map(min, full, map(max, *asked) if len(asked) > 1 else asked[0]))

    def ask(self, node: ir.Node) -> None:
        source = _image(node, self.sizes)
        if source is None:
            return
        output = node.outputs[0]
        full, needed, before = self.sizes.of(output), self.needed(output), self.sizes.of(source)
        if full is None or needed is None or before is None or 0 in full or 0 in before:
            return
        if not is_op(node, *_WINDOWED):
            if full == before:
                self.asked[source].append(needed)
            return
        frame = self.frame(node)
        if frame is None or frame.places(before) != full:
            return
        window = _Window(node, frame, full, needed)
        self.windows[node] = window
        self.asked[source].append(tuple(map(min, before, window.reach)))

    def frame(self, node: ir.Node) -> Frame | None:
        """Where ``node`` reads, if that is plain."""
        if node.attributes.get_int("ceil_mode", 0) != 0 or len(node.outputs) > 1:
            return None
        kernel = node.attributes.get_ints("kernel_shape", None)
        if kernel is None and node.inputs[1:] and node.inputs[1] is not None:
            self.facts.follow_to(node.inputs[1])
            dims = self.facts.dims(node.inputs[1]) or ()
            kernel = [size for size in dims[2:] if isinstance(size, int)]
        if not kernel:
            return None
        frame = frame_of(node, tuple(kernel), self.sizes)
        return None if isinstance(frame, str) else frame

    def crop(self, root: ir.Value, saved: int) -> None:
        """Slice ``root``, which is computed elsewhere, to what is needed, if that is worth it."""
        full, needed = self.sizes.of(root), self.needed(root)
        if full is None or needed is None or full == needed:
            return
        self.facts.follow_to(root)
        channels = (self.facts.dims(root) or (0, 0))[1]
        first = next(iter(root.uses())).node
        if not isinstance(channels, int) or saved < _WORTH * channels * math.prod(full):
            self.result.decline(first, because="cropping what it reads saves too little")
            return
        if self.model.opset_imports.get("", 0) < 10:
            self.result.decline(first, because="before opset 10, Slice takes no axes as inputs")
            return
        rank = len(full) + 2
        bounds = {"starts": [0] * len(full), "ends": list(needed), "axes": list(range(2, rank))}
        operands = [
            add_initializer(
                self.graph, self.names.fresh(f"{root.name}.{role}"), np.array(content, np.int64)
            )
            for role, content in bounds.items()
        ]
        name = self.names.fresh(f"{root.name}.cropped")
        node = ir.Node("", "Slice", [root, *operands], name=name)
        node.outputs[0].name, node.outputs[0].type = name, root.type
        readers = [use for use in root.uses() if use.node is not node]
        self.graph.insert_before(min((use.node for use in readers), key=self._place), node)
        for use in readers:
            use.node.replace_input_with(use.idx, node.outputs[0])
        self.now[node.outputs[0]] = needed
        self.result.rewrote(node)

    def _place(self, node: ir.Node) -> int:
        return self.graph.index(node)

    def shrink(self, node: ir.Node) -> None:
        """Let ``node`` compute what is needed, of what its input now is."""
        source = _image(node, self.sizes)
        if source is None:
            return
        window = self.windows.get(node)
        if window is None:
            if source in self.now:
                self.resize(node, self.now[source])
            return
        before = self.now.get(source) or self.sizes.of(source)
        if before is None or (source not in self.now and window.needed == window.places):
            return
        frame = window.frame
        ends = tuple(max(0, reach - size) for reach, size in zip(window.reach, before, strict=True))
        shrunk = Frame(frame.kernel, frame.strides, frame.dilations, frame.begins, ends)
        places = shrunk.places(before)
        if places == window.places and source not in self.now:
            return
        node.attributes.pop("auto_pad", None)
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", frame.kernel)
        node.attributes["pads"] = ir.AttrInt64s("pads", (*frame.begins, *ends))
        self.result.rewrote(node)
        if places != window.places:
            self.resize(node, places)

    def resize(self, node: ir.Node, sizes: Axes) -> None:
        output = node.outputs[0]
        output.shape = None
        self.now[output] = sizes


def _image(node: ir.Node, sizes: SpatialSizes) -> ir.Value | None:
    """What ``node`` reads as an image, if it computes each place from places around it alone."""
    if is_op(node, *_WINDOWED):
        return node.inputs[0]
    if not is_op(node, *_PASSING) or len(node.outputs) > 1:
        return None
    if node.op_type not in _ARITHMETIC:
        return node.inputs[0]
    full = sizes.of(node.outputs[0])
    images = [value for value in node.inputs if constant(value) is None]
    others = [array for value in node.inputs if (array := constant(value)) is not None]
    if not full or len(images) != 1 or len(others) != 1:
        return None
    everywhere_alike = all(size == 1 for size in others[0].shape[-len(full) :])
    return images[0] if everywhere_alike else None
