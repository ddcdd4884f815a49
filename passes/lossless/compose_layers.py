"""Compose linear layers that follow one another into one, where one takes less work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..base import Array, Context, Pass, Result
from ..graph import feeds_only, graph_of, is_constant, is_op, nodes_of
from .affine import Layer
from .constants import resolve, resolved_constant
from .conv_windows import SpatialSizes, conv_window, set_frame
from .layers import LayerWriter, bias_add, constant_side, match_layer
from .windows import Window

_PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class ComposeLayers(Pass):
    """Make one layer of two linear ones in a row, where that takes no more multiplications.

    With nothing but a bias in between, two layers are one::

        V (W x + a) + b = (V W) x + (V a + b)

    ``MatMul`` and ``Gemm`` with constant weights always are. Of two ``Conv`` the second one must
    find past the borders of the first one's answer what the formula gives there. Either it does
    not pad, or ``a`` is zero and the first one sees only padding there: along each axis that the
    second one pads, the first one pads with at least ``span + 1 - stride`` zeros in front and
    ``span`` behind, where ``span = (kernel - 1) * dilation``; a 1x1 ``Conv`` always does.

    One layer is dearer than two where the tensor in between is narrow, as in a low-rank product or
    a bottleneck, or where the two are separable: those stay. Computed in float64 and rounded once.
    """

    name: ClassVar[str] = "compose-layers"
    trades: ClassVar[bool] = True
    summary: ClassVar[str] = "make one of two linear layers in a row where that is less work"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Compose every pair that pays, from the inputs on, so that rows of them become one."""
        del context
        composer = _Composer(model)
        for node in nodes_of(model):
            if is_op(node, "Conv", *_PRODUCTS):
                composer.visit(node)
        return composer.finish()


@dataclass(frozen=True)
class _Pair:
    """Layers of which ``second`` alone reads what ``first`` answers."""

    first: Layer
    second: Layer

    @property
    def between(self) -> Iterable[ir.Node]:
        """The nodes that are no longer needed, the last one first."""
        return [node for node in (self.first.add, self.first.node) if node is not None]


class _Composer:
    """Composes the layers of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.result = Result(model)
        self.sizes = SpatialSizes(model)

    @cached_property
    def writer(self) -> LayerWriter:
        return LayerWriter(self.model)

    def finish(self) -> Result:
        if self.result.modified and (duplicated := self.writer.finish()):
            self.result.details["duplicated_bytes"] = duplicated
        return self.result

    def visit(self, node: ir.Node) -> None:
        """Let ``node`` do what the layer before it does as well, if that pays."""
        pair = _pair(node)
        if pair is None or isinstance(pair, str):
            if pair is not None:
                self.result.decline(node, because=pair)
            return
        why = self.compose_convs(pair) if is_op(node, "Conv") else self.compose_products(pair)
        if why:
            self.result.decline(node, because=why)

    def compose_convs(self, pair: _Pair) -> str:
        """Make one ``Conv`` of ``pair``, or say why not."""
        first, second = (conv_window(layer, self.sizes) for layer in (pair.first, pair.second))
        if isinstance(first, str) or isinstance(second, str):
            return first if isinstance(first, str) else str(second)
        if why := _seen_borders(first, second):
            return why
        pads = zip(second.frame.begins, second.frame.ends, second.frame.spans, strict=True)
        grows = any(begin + end > span for begin, end, span in pads)
        if second.work_after(first) > second.work + (0 if grows else first.work):
            return "one Conv would take more multiplications"
        window = second.after(first)
        layer = replace(pair.second, groups=window.groups)
        rounded = layer.rounded(window.weight, window.bias)
        if isinstance(rounded, str):
            return rounded
        self.put(pair, layer, *rounded)
        set_frame(layer.node, window)
        return ""

    def compose_products(self, pair: _Pair) -> str:
        """Make one product of ``pair``, or say why not."""
        first, second = pair.first, pair.second
        turned = first.node.attributes.get_int("transA", 0)
        if second.node.attributes.get_int("transA", 0):
            return "Gemm reads it transposed"
        if turned and second.node.op_type != "Gemm":
            return "the first one reads its input transposed"
        if first.inputs * second.outputs > first.weight.size + second.weight.size:
            return "one product would take more multiplications"
        wide = _matrix(second)
        matrix = first.alpha * _matrix(first) @ wide
        start = np.broadcast_to(first.bias, (*first.bias.shape[:-1], first.outputs))
        bias = second.bias + second.alpha * start @ wide
        rounded = second.rounded(matrix if second.swapped else matrix.T, bias)
        if isinstance(rounded, str):
            return rounded
        self.put(pair, second, *rounded)
        if turned:
            second.node.attributes["transA"] = ir.AttrInt64("transA", 1)
        return ""

    def put(self, pair: _Pair, layer: Layer, weight: Array, bias: Array) -> None:
        """Let ``layer``, the second of ``pair``, read what the first one reads."""
        node = layer.node
        answer = (layer.add or node).outputs[0]
        self.writer.write(layer, weight, bias, answer.name or node.op_type)
        node.replace_input_with(0, pair.first.node.inputs[0])
        for old in pair.between:
            for value in old.inputs:
                if value is not None and is_constant(resolve(value)):
                    self.writer.retire(value)
            graph_of(old).remove(old, safe=True)
        self.result.rewrote(node)


def _pair(node: ir.Node) -> _Pair | str | None:
    """``node`` and the layer before it; why they are no layers; ``None`` if there is none."""
    value = node.inputs[0]
    below = None if value is None else value.producer()
    if value is None or below is None or below.graph is not node.graph:
        return None
    add = None
    if is_op(below, "Add") and (side := constant_side(below)) is not None:
        add, inner = below, below.inputs[1 - side]
        below = None if inner is None else inner.producer()
        if inner is None or below is None or not feeds_only(inner, add):
            return None
    kinds = ("Conv",) if node.op_type == "Conv" else _PRODUCTS
    if not is_op(below, *kinds) or below.graph is not node.graph:
        return None
    if not feeds_only(value, node):
        return "what is in between is read elsewhere as well"
    if not _keeps_rank(below, add):
        return "what is added in between may have more axes"
    first = match_layer(below, add)
    if isinstance(first, str):
        return first
    behind = bias_add(node) if node.op_type == "MatMul" else None
    second = match_layer(node, behind if _keeps_rank(node, behind) else None)
    if isinstance(second, str):
        second = match_layer(node)
    return second if isinstance(second, str) else _Pair(first, second)


def _keeps_rank(node: ir.Node, add: ir.Node | None) -> bool:
    """Whether what ``add`` adds to the answer of ``node`` has no more axes than that."""
    side = None if add is None or node.op_type != "MatMul" else constant_side(add)
    number = None if add is None or side is None else resolved_constant(add.inputs[side])
    return number is None or number.ndim <= 1


def _matrix(layer: Layer) -> Array:
    """The weight of ``layer`` as ``[inputs, outputs]``, in float64."""
    weight = layer.weight.astype(np.float64)
    return weight if layer.swapped else weight.T


def _seen_borders(first: Window, second: Window) -> str:
    """Why ``second`` sees past the borders of what ``first`` answers; empty if it does not."""
    if not any(second.frame.begins + second.frame.ends):
        return ""
    if first.bias.any():
        return "the second Conv pads with zeros where the first one would answer with its bias"
    one, two = first.frame, second.frame
    for axis, span in enumerate(one.spans):
        front = two.begins[axis] == 0 or one.begins[axis] > span - one.strides[axis]
        back = two.ends[axis] == 0 or one.ends[axis] >= span
        if not (front and back):
            return "the second Conv pads with zeros where the first one would see its input"
    return ""
