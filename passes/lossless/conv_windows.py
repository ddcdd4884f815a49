"""Reading ``Conv`` nodes as windows, and writing windows back."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from .affine import Layer
from .windows import Axes, Frame, Window


class SpatialSizes:
    """Tells the sizes of values behind their first two axes."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._model)

    def of(self, value: ir.Value | None) -> Axes | None:
        """The spatial sizes of ``value``, if all of them are fixed."""
        if value is None:
            return None
        self._facts.follow_to(value)
        dims = self._facts.dims(value)
        sizes = tuple(size for size in (dims or ())[2:] if isinstance(size, int))
        return sizes if dims is not None and len(sizes) == len(dims) - 2 else None


def conv_window(layer: Layer, sizes: SpatialSizes) -> Window | str:
    """The ``Conv`` that ``layer`` is as a window, or why it is none."""
    frame = frame_of(layer.node, layer.weight.shape[2:], sizes)
    if isinstance(frame, str):
        return frame
    if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
        return "a weight of Conv is not finite"
    bias = np.broadcast_to(layer.bias, layer.outputs)
    return Window(frame, layer.weight, bias, layer.groups)


def frame_of(node: ir.Node, kernel: Axes, sizes: SpatialSizes) -> Frame | str:
    """Where ``node``, with a window as large as ``kernel``, reads, or why that is not known."""
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    get = node.attributes.get_ints
    strides, dilations = tuple(get("strides", ones)), tuple(get("dilations", ones))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "VALID":
        return Frame(kernel, strides, dilations, zeros, zeros)
    if mode == "NOTSET":
        pads = tuple(get("pads", zeros + zeros))
        if min(pads, default=0) < 0:
            return f"{node.op_type} crops what it reads"
        return Frame(kernel, strides, dilations, pads[: len(kernel)], pads[len(kernel) :])
    spans = [(taps - 1) * step for taps, step in zip(kernel, dilations, strict=True)]
    fixed = sizes.of(node.inputs[0])
    missing = []
    for axis, (span, stride) in enumerate(zip(spans, strides, strict=True)):
        if stride == 1 or not span:
            missing.append(span)
        elif fixed is None:
            return f"how {node.op_type} pads depends on sizes that are not known"
        else:
            missing.append(max(0, span - (fixed[axis] - 1) % stride))
    less = [total // 2 for total in missing]
    more = [total - half for total, half in zip(missing, less, strict=True)]
    begins, ends = (less, more) if mode == "SAME_UPPER" else (more, less)
    return Frame(kernel, strides, dilations, tuple(begins), tuple(ends))


def set_frame(conv: ir.Node, window: Window) -> None:
    """Let ``conv`` read where ``window`` does."""
    frame = window.frame
    conv.attributes.pop("auto_pad", None)
    conv.attributes["group"] = ir.AttrInt64("group", window.groups)
    for name, numbers in (
        ("kernel_shape", frame.kernel),
        ("strides", frame.strides),
        ("dilations", frame.dilations),
        ("pads", (*frame.begins, *frame.ends)),
    ):
        conv.attributes[name] = ir.AttrInt64s(name, numbers)
