"""Branches that are summed: what each reads, and as which window over it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import feeds_only, is_op
from .affine import Affine, Layer
from .constants import resolved_constant
from .conv_windows import SpatialSizes, conv_window, frame_of
from .normalizations import inference_map
from .sums import Slot
from .windows import Frame, Window, diagonal, pointwise

NEGATION = Affine(np.array(-1.0), np.array(0.0))
"""The map that changes the sign."""


@dataclass(frozen=True)
class Summand:
    """One branch of a sum: maps per channel on top of a window over ``source``.

    Attributes:
        slot: Where the sum reads it.
        source: What it reads.
        node: The ``Conv`` or ``AveragePool`` that reads ``source``; ``None`` if nothing but the
            maps does.
        maps: The maps, the last one first; nothing else reads what stands between them.
    """

    slot: Slot
    source: ir.Value
    node: ir.Node | None
    maps: tuple[ir.Node, ...]

    @property
    def is_conv(self) -> bool:
        """Whether it is a ``Conv`` with maps on top."""
        return self.node is not None and self.node.op_type == "Conv"

    def over_conv(self, layer: Layer, sizes: SpatialSizes, opset: int) -> Window | str:
        """All of it as one window, or why it is none; ``layer`` is its ``Conv``."""
        window = conv_window(layer, sizes)
        return window if isinstance(window, str) else self._mapped(window, opset)

    def over_channels(self, like: Window, sizes: SpatialSizes, opset: int) -> Window | str:
        """All of it as one window over what ``like`` reads, or why it is none; not for a Conv."""
        if like.inputs != like.outputs:
            return "its branches have different numbers of channels"
        frame = pointwise(like.weight.ndim - 2)
        value = 1.0
        if self.node is not None:
            pool = _pool_frame(self.node, like.weight.ndim - 2, sizes)
            if isinstance(pool, str):
                return pool
            frame, value = pool, 1 / math.prod(pool.kernel)
        return self._mapped(diagonal(like.outputs, frame, value), opset)

    def _mapped(self, window: Window, opset: int) -> Window | str:
        for node in reversed(self.maps):
            step = _map_of(node, window.outputs, window.weight.ndim, opset)
            if isinstance(step, str):
                return step
            if not (np.isfinite(step.scale).all() and np.isfinite(step.shift).all()):
                return f"what {node.op_type} scales or shifts by is not finite"
            window = window.then(step)
        return window.then(NEGATION) if self.slot.negative else window


def summand(slot: Slot) -> Summand:
    """What stands in ``slot``, followed down to what it reads."""
    value, reader = slot.value, slot.node
    maps: list[ir.Node] = []
    while True:
        node = value.producer()
        if node is None or node.graph is not slot.node.graph or not feeds_only(value, reader):
            break
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            break
        if is_op(node, "Conv", "AveragePool") and node.inputs[0] is not None:
            return Summand(slot, node.inputs[0], node, tuple(maps))
        below = _mapped(node)
        if below is None:
            break
        maps.append(node)
        value, reader = below, node
    return Summand(slot, value, None, tuple(maps))


def _mapped(node: ir.Node) -> ir.Value | None:
    """What ``node`` may be a map per channel of."""
    if is_op(node, "BatchNormalization", "Identity", "Neg"):
        return node.inputs[0]
    if is_op(node, "Mul", "Add", "Sub", "Div") and not node.attributes:
        known = [resolved_constant(value) is not None for value in node.inputs]
        if known == [False, True] or (known == [True, False] and node.op_type != "Div"):
            return node.inputs[known.index(False)]
    return None


def _map_of(node: ir.Node, channels: int, rank: int, opset: int) -> Affine | str:
    kind = node.op_type
    if kind == "BatchNormalization":
        affine = inference_map(node, opset)
        if isinstance(affine, Affine) and affine.scale.size != channels:
            return "BatchNormalization has another number of channels"
        return affine
    one, zero = np.array(1.0), np.array(0.0)
    if kind in {"Identity", "Neg"}:
        return Affine(one if kind == "Identity" else -one, zero)
    known = [per_channel(value, channels, rank) for value in node.inputs]
    number = known[0] if known[1] is None else known[1]
    if number is None:
        return f"{kind} has no single constant per channel"
    if kind == "Mul":
        return Affine(number, zero)
    if kind == "Div":
        with np.errstate(divide="ignore"):
            return Affine(1 / number, zero)
    if kind == "Add":
        return Affine(one, number)
    return Affine(one, -number) if known[0] is None else Affine(-one, number)


def per_channel(value: ir.Value | None, channels: int, rank: int) -> Array | None:
    """The constant ``value`` as one number, or one per channel, in float64.

    ``None`` if it is not constant, or differs along another axis than that of the ``channels`` of
    a tensor with ``rank`` axes.
    """
    array = resolved_constant(value)
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[1] not in {1, channels} or any(size != 1 for size in (shape[0], *shape[2:])):
        return None
    return array.astype(np.float64).reshape(-1 if shape[1] > 1 else ())


def _pool_frame(node: ir.Node, rank: int, sizes: SpatialSizes) -> Frame | str:
    """Where the ``AveragePool`` ``node`` reads, or why it is no window with equal weights."""
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    if len(kernel) != rank:
        return "AveragePool has another number of axes"
    frame = frame_of(node, kernel, sizes)
    if isinstance(frame, str):
        return frame
    if node.attributes.get_int("ceil_mode", 0):
        return "AveragePool rounds its sizes up"
    if any(frame.begins + frame.ends) and not node.attributes.get_int("count_include_pad", 0):
        return "AveragePool divides by less where it pads"
    return frame
