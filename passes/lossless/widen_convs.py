"""Run convolutions of one axis as ones of two, which ONNX Runtime has faster kernels for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..base import Array, Context, Pass, Result
from ..graph import constant, constant_tensor, is_op, nodes_of
from .constants import ConstantWriter, drop_unused, resolve
from .wide_rules import RULES, Wide, widened

_PLAIN: Final = 7
"""Input channels up to which the first layer of a network reads them unblocked."""
BLOCK: Final = 16
"""Channels in a block with AVX-512; a multiple of it is one of AVX2's 8 as well."""
_FEWEST: Final = 48
"""Products per answer from which blocking pays."""
_FEWEST_POINTS: Final = 256
"""The same for kernels of one element, for which nothing is gathered before they are multiplied."""
_MOST: Final = 1536
"""Products per answer up to which it pays: beyond, a packed matrix product is as fast or faster."""


@dataclass(frozen=True)
class WidenConvs(Pass):
    """Give 1-D convolutions a second axis of size one, and so a place in the blocked layout.

    ``Conv`` of ``x[N, C, L]`` and ``w[M, C/g, k]`` is that of ``x[N, C, 1, L]`` and
    ``w[M, C/g, 1, k]``. ONNX Runtime's CPU provider multiplies im2col matrices for the first and
    runs blocked (NCHWc) kernels for the second, on which activations are fused and which do not
    need many positions to be fast. Operators in between that treat each element alone, pools, and
    those that cut and join channels go along, so that the axis comes and goes once for a chain.

    Measured on one thread with AVX-512 (``python -m benchmarks probe``): depthwise 1.8 to 16 times
    faster, strided ones 1.1 to 2 times, others up to 1.4 times. Declined where the blocked kernels
    do not run or do not win: channels and groups that are not whole blocks, but for up to 7 input
    channels; few products per answer, or very many. Only float32, and only for CPUs.
    """

    name: ClassVar[str] = "widen-convs"
    trades: ClassVar[bool] = True
    summary: ClassVar[str] = "run 1-D convolutions in ONNX Runtime's blocked layout"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Widen every convolution that gains, and what stands between two of them."""
        result = Result(model)
        if context.target.name == "cpu" and any(map(_is_narrow, nodes_of(model))):
            widener = _Widener(model, result)
            for root in (model.graph, *(body.graph for body in model.functions.values())):
                opset = root.opset_imports.get("", 0)
                for graph in (root, *root.subgraphs()):
                    widener.widen(graph, opset)
        return result


def _is_narrow(node: ir.Node) -> bool:
    """Whether ``node`` is a convolution of one axis with a constant weight."""
    weight = constant_tensor(resolve(node.inputs[1])) if is_op(node, "Conv") else None
    return weight is not None and len(weight.shape) == 3


class _Widener:
    """Widens the graphs of one model."""

    def __init__(self, model: ir.Model, result: Result) -> None:
        self._result = result
        self._writer = ConstantWriter(model)

    def widen(self, graph: ir.Graph, opset: int) -> None:
        """Widen ``graph``, without its subgraphs."""
        wide = Wide(graph, opset, self._writer)
        narrow: list[ir.Node] = []
        for node in graph:
            if any(attribute.is_ref() for attribute in node.attributes.values()):
                continue
            if _is_narrow(node):
                if not self._widen_conv(node, wide):
                    continue
            elif (rule := RULES.get((node.domain, node.op_type))) is None or not rule(wide, node):
                continue
            narrow.append(node)
        read: list[ir.Value | None] = []
        for node in reversed(narrow):
            for output in node.outputs:
                if output.uses() or output.is_graph_output():
                    wide.narrow(output, node)
            read += node.inputs
            graph.remove(node, safe=True)
        drop_unused(*read)

    def _widen_conv(self, node: ir.Node, wide: Wide) -> bool:
        source, held = node.inputs[0], resolve(node.inputs[1])
        weight = constant(held)
        if weight is None or held is None or source is None:
            return False
        if reason := _refusal(node, weight, source):
            self._result.decline(node, because=reason)
            return False
        first, second = wide.twin(source, node), wide.parameter(held, weight, node)
        biases = [None if value is None else wide.local(value, node) for value in node.inputs[2:]]
        wide.emit(node, [first, second, *biases], **widened(node))
        self._result.rewrote(node)
        return True


def _refusal(node: ir.Node, weight: Array, source: ir.Value) -> str:
    """Why the blocked kernels do not run ``node``, or do not win; empty if they do."""
    if weight.dtype != np.float32:
        return "the blocked kernels are for float32"
    if is_op(source.producer(), "DequantizeLinear"):
        return "its input is dequantized"
    return refusal_of_sizes(weight.shape, node.attributes.get_int("group", 1))


def refusal_of_sizes(shape: Sequence[int], groups: int) -> str:
    """Why a weight of ``shape`` gains nothing in the blocked layout; empty if it does."""
    outputs, inputs, taps = shape
    if groups > 1 and (inputs, groups) == (1, outputs):
        return "" if outputs % BLOCK == 0 else _NO_BLOCKS
    if groups > 1:
        whole = inputs % BLOCK == 0 and (outputs // groups) % BLOCK == 0
        return "" if whole else _NO_BLOCKS
    if inputs > _PLAIN and (inputs % BLOCK or outputs % BLOCK):
        return _NO_BLOCKS
    fewest = _FEWEST if taps > 1 else _FEWEST_POINTS
    if outputs < BLOCK or not fewest <= inputs * taps < _MOST:
        return "with these sizes it would be no faster"
    return ""


_NO_BLOCKS: Final = "its channels do not fill blocks"
