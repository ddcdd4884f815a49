"""Give the channels between two layers like ranges, by factors moved from one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.errors import UsageError
from ..base import Array, Context, Pass, Result
from ..graph import Names, constant, is_op
from .channel_scales import Side, along, makes, move, powers_of_two, reads

SWEEPS = 10
"""How often all pairs are gone through at most: what one gains another may want to share."""

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


@dataclass(frozen=True)
class Pair:
    """Two layers in a row; ``sources`` also holds a bias that is added in between."""

    sources: list[Side]
    reader: Side


@dataclass(frozen=True)
class Equalize(Pass):
    """Make the weights of two layers in a row alike in range, channel by channel.

    For ``y = W2 f(W1 x + b1)`` with ``f(s z) = s f(z)`` for positive ``s``, and any ``s_i > 0``::

        y = (W2 S) f(S^-1 W1 x + S^-1 b1),    S = diag(s),    s_i = sqrt(max|W1_i| / max|W2_i|)

    (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction").
    One scale for all channels of the tensor in between then wastes less. ``s`` is rounded to powers
    of two, so that no float changes by more than its exponent and every answer stays the same.

    Layers are ``Conv`` of any groups, depthwise as well, ``Gemm`` and ``MatMul`` by a matrix; ``f``
    is ``Relu``, ``LeakyRelu``, ``PRelu``, pooling, ``Flatten`` or nothing. ``Clip`` (as in ReLU6)
    has bounds that would need scales of their own, and is declined unless it only cuts at zero.
    What is read in more than one place is left alone.

    Options:

    - ``spread``: equalize only pairs in which the largest weight of some channel is that many times
      the one of the channel in the middle, by either layer; 0 for all pairs. A factor per channel
      also spoils what evenly spread channels had, if by less than a decibel. At 16 the channel in
      the middle has fewer than 8 of the 127 steps of 8 bits left.
    """

    name: ClassVar[str] = "equalize"
    summary: ClassVar[str] = "Give the channels between two layers like ranges, for quantization"

    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread < np.inf:
            raise UsageError(f"a spread of {self.spread} is not a number from zero on")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Equalize the pairs of layers in the main graph."""
        del context
        result, names = Result(model), Names(model)
        pairs = [pair for pair in _pairs(model.graph, result) if _spread(pair) >= self.spread]
        touched: dict[ir.Node, None] = {}
        for _ in range(SWEEPS):
            moved = [pair.reader.node for pair in pairs if _equalize(pair, names)]
            touched.update(dict.fromkeys(moved))
            if not moved:
                break
        for node in touched:
            result.rewrote(node)
        return result


def _spread(pair: Pair) -> float:
    """How far above the channel in the middle the largest one of either layer is."""
    ratios = []
    for largest in _largest(pair):
        known = largest[largest > 0]
        ratios.append(float(known.max() / np.median(known)) if known.size else 1.0)
    return max(ratios)


def _largest(pair: Pair) -> tuple[Array, Array]:
    """By channel, the largest weights that make it and that read it."""
    made = pair.sources[0].largest()
    return made, pair.reader.largest().reshape(made.size, -1).max(axis=1)


def _equalize(pair: Pair, names: Names) -> bool:
    made, read = _largest(pair)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = powers_of_two(np.sqrt(made / read))
    if (factors == 1).all():
        return False
    return move(pair.sources, [pair.reader], factors, names)


def _pairs(graph: ir.Graph, result: Result) -> list[Pair]:
    found = []
    for node in graph:
        sources = makes(node)
        if sources is not None:
            pair = _pair(node, sources, result)
            if pair is not None:
                found.append(pair)
    return found


def _pair(first: ir.Node, sources: list[Side], result: Result) -> Pair | None:
    """``first`` and the layer behind it, if nothing in between or beside them minds the factors."""
    channels = len(sources[0].largest())
    # Where the channels lie: along the last axis behind a matrix, along the second behind a Conv,
    # and several columns for each behind a Flatten.
    matrix = not is_op(first, "Conv")
    flat = False
    value = first.outputs[0]
    while True:
        uses = value.uses()
        if value.is_graph_output() or len(uses) != 1:
            return None
        node, index = next(iter(uses))
        if node.graph is not first.graph:
            return None
        if index == 0 and (reader := reads(node)) is not None:
            inputs = len(reader.view(reader.array))
            if is_op(node, "Conv") == (matrix or flat):
                return None
            if inputs % channels or (inputs != channels and not flat):
                return None
            return Pair(sources, reader)
        if is_op(node, "Clip") and not _cuts_at_zero(node):
            result.decline(first, because="the bounds of the Clip behind it would not fit any more")
            return None
        if is_op(node, "Add") and matrix and (bias := _bias(node, 1 - index, channels)):
            sources = [*sources, bias]
        elif index != 0 or not _passes_on(node, matrix=matrix or flat):
            return None
        flat |= is_op(node, "Flatten")
        value = node.outputs[0]


def _passes_on(node: ir.Node, *, matrix: bool) -> bool:
    """Whether ``node`` multiplies its results by what each channel it reads is multiplied by."""
    if is_op(node, "PRelu"):
        return constant(node.inputs[1]) is not None
    if is_op(node, "Relu", "LeakyRelu", "Identity", "Clip"):
        return True
    if matrix:
        return False
    if is_op(node, "Flatten"):
        return node.attributes.get_int("axis", 1) == 1
    return is_op(node, *POOLS) and len(node.outputs) == 1


def _bias(add: ir.Node, index: int, channels: int) -> Side | None:
    array: Array | None = constant(add.inputs[index])
    if array is None or array.dtype.kind != "f" or array.shape[-1:] != (channels,):
        return None
    return Side(add, index, *along(array.ndim - 1)) if array.size == channels else None


def _cuts_at_zero(clip: ir.Node) -> bool:
    """Whether ``clip`` is a ``Relu``: nothing below zero, no bound above."""
    low, high = ([*clip.inputs[1:], None, None])[:2]
    bound = constant(low)
    return bound is not None and bound.size == 1 and not bound.any() and high is None
