"""A static cost model of ONNX Runtime's CPU provider: how long a graph takes, from its shapes.

It counts what a run consists of, and multiplies by what that costs: products by the kernel that
does them, elements that operators answer with, changes of the layout (:mod:`.blocked_layout`), and
the start of each operator. It is for comparing two graphs that compute the same, not for telling
milliseconds: on another CPU all rates change, most of them alike. The rates are from AVX-512; how
well they foretell what was measured on real models, ``python -m benchmarks forecast`` prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import onnx_ir as ir

from ...backends.errors import ModelError
from ..graph import subgraphs_of
from .blocked_layout import BlockedLayout
from .macs import node_macs, with_fixed_shapes

START: Final = 0.4
"""Microseconds that an operator takes to start, however small it is."""
PRODUCT: Final = 1.9e-5
"""Microseconds of one multiply-accumulate in a dense kernel, blocked or a packed matrix product."""
_UNBLOCKED: Final = 2.6e-5
"""The same in a convolution that gathers its input first (im2col)."""
_DEPTHWISE: Final = 8e-5
"""The same in a depthwise convolution, which is bound by memory."""
_RECURRENT: Final = 7e-5
"""The same in recurrent layers, whose products are of a vector."""
_WEIGHT: Final = 1.3e-5
"""Microseconds to read a byte of a weight, which is all that counts where it is used once."""
REORDER: Final = 4e-4
"""Microseconds to bring one element into the blocked layout or back."""

_ELEMENT: Final[Mapping[str, float]] = {
    **dict.fromkeys(("Relu", "Clip", "Neg", "Abs", "LeakyRelu", "HardSigmoid"), 1.1e-4),
    **dict.fromkeys(("Sigmoid", "Tanh", "Exp"), 2.8e-4),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization", "PRelu", "Sqrt"), 4e-4),
    **dict.fromkeys(("Transpose", "QuickGelu", "Erf", "Gelu", "FastGelu"), 6e-4),
    **dict.fromkeys(("Where", "Log", "Elu"), 1.5e-3),
    **dict.fromkeys(("Pow", "Sin", "Cos"), 4.4e-3),
    **dict.fromkeys(("Softplus", "Mish"), 1.1e-2),
}
"""Microseconds for each element that an operator answers with."""
_OTHER_ELEMENT: Final = 2e-4
_VIEWS: Final = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_FREE: Final = frozenset(("Constant", "Dropout", "Identity", "Shape", "Size", *_VIEWS))
"""Operators that only give a tensor another name or shape, or become constants."""
_NOT_KNOWN: Final = frozenset(("Loop", "Scan", "QuantizeLinear", "DequantizeLinear"))
"""Operators with which a graph takes a time that shapes do not tell."""


def predicted_latency(
    model: ir.Model,
    dims: Mapping[str, int] | None = None,
    *,
    features: frozenset[str] = frozenset(),
) -> float | None:
    """Microseconds that one run of ``model`` takes on one thread of a CPU, about.

    Args:
        model: The model; it is not changed.
        dims: Sizes of dynamic dimensions by their names in :mod:`~onnxpress.backends.feeds`; the
            others have the size that made-up inputs start with.
        features: Features of the CPU, by archspec's names; none means one with AVX-512.

    Returns:
        The time, or ``None`` where the size of a tensor does not follow from those of the inputs,
        where it depends on how often a loop runs, and for quantized graphs, whose kernels it does
        not know.
    """
    try:
        clone = with_fixed_shapes(model, dims)
    except ModelError:
        return None
    return _of_graph(clone.graph, features)


def _of_graph(graph: ir.Graph, features: frozenset[str]) -> float | None:
    layout = BlockedLayout(graph, features)
    total = 0.0
    for node in graph:
        if (own := _of_node(node, layout, features)) is None:
            return None
        total += own
    return total + REORDER * layout.reordered + START * layout.reorders


def _of_node(node: ir.Node, layout: BlockedLayout, features: frozenset[str]) -> float | None:
    if node.op_type in _NOT_KNOWN:
        return None
    if bodies := [_of_graph(graph, features) for graph in subgraphs_of(node)]:
        known = [body for body in bodies if body is not None]
        return START + max(known) if len(known) == len(bodies) else None
    if node in layout.fused or node.op_type in _FREE:
        return 0.0
    products = node_macs(node)
    answered = [_size(output) for output in node.outputs if output.name]
    if products is None or None in answered:
        return None
    if products:
        weights = sum(_weights(node))
        return START + max(products * _rate(node, layout), weights * _WEIGHT)
    elements = sum(size for size in answered if size is not None)
    return START + elements * _ELEMENT.get(node.op_type, _OTHER_ELEMENT)


def _rate(node: ir.Node, layout: BlockedLayout) -> float:
    if node.op_type in {"LSTM", "GRU", "RNN"}:
        return _RECURRENT
    if node.op_type not in {"Conv", "ConvTranspose", "FusedConv"}:
        return PRODUCT
    if layout.is_depthwise(node):
        return _DEPTHWISE
    return PRODUCT if node in layout.convolutions else _UNBLOCKED


def _weights(node: ir.Node) -> Iterator[int]:
    """The bytes of the constants that ``node`` reads."""
    for value in node.inputs:
        if value is not None and value.const_value is not None:
            yield value.const_value.nbytes


def _size(value: ir.Value) -> int | None:
    if value.shape is None or not value.shape.is_static():
        return None
    return math.prod(int(str(size)) for size in value.shape)
