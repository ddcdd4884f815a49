"""The search for layers that can take an affine map in, before and behind it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import feeds_only, is_op
from .affine import Affine, Layer
from .affine_carriers import Passage, Rule, carried
from .affine_sizes import Sizes
from .constants import resolve
from .layers import LINEAR, bias_add, constant_side, hidden_taps, match_layer

_BUDGET: Final = 64
"""Nodes that are looked at for one map, so that time stays linear in the size of the model."""

_LARGE: Final = 1 << 24
"""Bytes from which on a weight that others read as well is not copied."""

_JOINS: Final = frozenset({"Add", "Concat", "Mul", "Sub"})
_COUNTS: Final = {1: "one axis", 2: "two axes"}


@dataclass
class Plan:
    """New parameters for layers, which together do the work of a map.

    Attributes:
        writes: Each layer with its new weight and bias.
        added: How many nodes are needed for what layers have no bias for.
    """

    writes: list[tuple[Layer, Array, Array]] = field(default_factory=list)
    added: int = 0
    _seen: set[ir.Node] = field(default_factory=set)
    _looked_at: int = 0

    def enters(self, node: ir.Node) -> str:
        """Why the search does not go on at ``node``; empty if it does."""
        self._looked_at += 1
        if node in self._seen:
            return f"two ways lead to {node.op_type}"
        if self._looked_at > _BUDGET:
            return "no layer is near"
        self._seen.add(node)
        return ""

    def mark(self) -> tuple[int, int, set[ir.Node]]:
        """Where the search stands, for :meth:`reset`."""
        return len(self.writes), self.added, set(self._seen)

    def reset(self, mark: tuple[int, int, set[ir.Node]]) -> None:
        """Forget what was planned after ``mark``."""
        count, self.added, self._seen = mark
        del self.writes[count:]

    def take(self, layer: Layer, weight: Array, bias: Array) -> str:
        """Plan to give ``layer`` new parameters, or say why not."""
        parts = layer.rounded(weight, bias)
        if isinstance(parts, str):
            return parts
        node = layer.node
        if parts[0] is not layer.weight and layer.weight.nbytes > _LARGE:
            stored = resolve(node.inputs[1])
            if stored is not None and len(stored.uses()) > 1:
                return f"the weight of {node.op_type} is large and read elsewhere as well"
        self.writes.append((layer, *parts))
        self.added += node.op_type == "MatMul" and layer.add is None and bool(parts[1].any())
        return ""


@dataclass(frozen=True)
class Search:
    """Looks for layers through the operators that ``rules`` and ``joins`` name."""

    sizes: Sizes
    rules: dict[str, Rule]
    joins: frozenset[str] = _JOINS

    def before(self, value: ir.Value, affine: Affine, reader: ir.Node, plan: Plan) -> str:
        """Let what computes ``value``, for ``reader`` alone, do ``affine`` too, or say why not."""
        if not (affine.scales or affine.shifts):
            return ""
        node, add = value.producer(), None
        if node is None:
            return "no node computes its input"
        if is_op(node, "Add") and (side := constant_side(node)) is not None:
            summed = node.inputs[1 - side]
            below = summed.producer() if summed is not None else None
            if below is not None and summed is not None and is_op(below, *LINEAR):
                if not feeds_only(summed, node):
                    return f"the output of {below.op_type} is read elsewhere as well"
                node, add = below, node
        kind = node.op_type
        passage = Passage(node, affine, False, self.sizes)
        inner: Affine | str | None = None
        if not (linear := is_op(node, *LINEAR)) and value is node.outputs[0]:
            inner = carried(passage, self.rules)
        if isinstance(inner, str):
            return f"its input comes from {kind}, {inner}"
        if not (linear or inner or self._joins(node)):
            return f"its input comes from {kind}"
        if node.graph is not reader.graph:
            return "its input is computed in an outer graph"
        if not feeds_only(value, reader):
            return f"the output of {(add or node).op_type} is read elsewhere as well"
        if why := plan.enters(node):
            return why
        if linear:
            return self._layer_before(node, add, value, affine, plan)
        if inner is not None:
            return self.before(passage.far, inner, node, plan)
        return self._join_before(node, affine, plan)

    def after(self, value: ir.Value, affine: Affine, source: ir.Value, plan: Plan) -> str:
        """Let all that read ``value`` do ``affine`` first, or say why not.

        ``source`` has the sizes of ``value``, and what is known of them.
        """
        if value.is_graph_output():
            return "it is an output of the graph"
        uses = tuple(value.uses())
        for node, index in uses:
            kind = node.op_type
            if is_op(node, *LINEAR) and index == 0:
                inner: Affine | str | None = affine
            elif index == 0:
                inner = carried(Passage(node, affine, True, self.sizes), self.rules)
            else:
                inner = None
            if isinstance(inner, str):
                return f"it is read by {kind}, {inner}"
            if inner is None and not self._joins(node):
                return f"it is read by {kind}"
            if node.graph is not value.graph:
                return "it is read in an inner graph"
            if why := plan.enters(node):
                return why
            if is_op(node, *LINEAR):
                why = self._layer_after(node, affine, source, plan)
            elif inner is not None:
                why = self.after(node.outputs[0], inner, node.outputs[0], plan)
            else:
                why = self._join_after(node, index, source, affine, plan)
            if why:
                return why
        return "" if uses else "nothing reads it"

    def _joins(self, node: ir.Node) -> bool:
        """Whether ``node`` puts computed values together in a way that maps may pass."""
        return node.op_type in self.joins and is_op(node, node.op_type)

    def _layer_before(
        self, node: ir.Node, add: ir.Node | None, value: ir.Value, affine: Affine, plan: Plan
    ) -> str:
        layer = match_layer(node, add)
        if isinstance(layer, str):
            return layer
        if why := self._misplaced(layer, affine, value, "answer"):
            return why
        wide = affine.for_channels(layer.outputs)
        if wide is None:
            return f"{node.op_type} has another number of channels"
        return plan.take(layer, *layer.followed_by(wide))

    def _layer_after(self, node: ir.Node, affine: Affine, source: ir.Value, plan: Plan) -> str:
        kind = node.op_type
        layer = match_layer(node, bias_add(node) if kind == "MatMul" else None)
        if isinstance(layer, str):
            layer = match_layer(node)
        if isinstance(layer, str):
            return layer
        if kind == "Gemm" and node.attributes.get_int("transA", 0) != 0:
            return "Gemm reads it transposed"
        if why := self._misplaced(layer, affine, source, "input"):
            return why
        wide = affine.for_channels(layer.inputs)
        if wide is None:
            return f"{kind} has another number of channels"
        if wide.shifts and (why := hidden_taps(layer)):
            return f"its shift is not zero and {why}"
        return plan.take(layer, *layer.preceded_by(wide))

    def _misplaced(self, layer: Layer, affine: Affine, value: ir.Value, side: str) -> str:
        """Why the channels of ``affine`` are not those of ``layer``; empty if they are."""
        kind, axis = layer.node.op_type, affine.axis
        if affine.uniform or affine.spread:
            return ""
        if kind != "MatMul":
            rank = layer.weight.ndim
            return "" if axis in {1, 1 - rank} else f"{kind} has its channels along another axis"
        if axis == -1 or self.sizes.rank(value) == axis + 1:
            return ""
        return f"MatMul's {side} is not known to have {_COUNTS.get(axis + 1, f'{axis + 1} axes')}"

    def _join_before(self, node: ir.Node, affine: Affine, plan: Plan) -> str:
        """Let all that ``node`` joins do ``affine``."""
        kind, result = node.op_type, node.outputs[0]
        if kind == "Concat":
            parts = self._split(node, affine)
            if isinstance(parts, str):
                return parts
            ways = [list(zip(node.inputs, parts, strict=True))]
        else:
            ways = _shares(node, affine)
        why = f"its input comes from {kind}"
        for way in ways:
            mark, why = plan.mark(), ""
            for value, part in way:
                if value is None or not self._passes(kind, value, result, part):
                    why = f"its input comes from {kind}, which broadcasts"
                else:
                    why = self.before(value, part, node, plan)
                if why:
                    plan.reset(mark)
                    break
            if not why:
                return ""
        return why

    def _join_after(
        self, node: ir.Node, index: int, value: ir.Value, affine: Affine, plan: Plan
    ) -> str:
        """Let all that read what ``node`` joins do what is left of ``affine`` there."""
        kind, result = node.op_type, node.outputs[0]
        if kind == "Concat":
            whole = self._widened(node, index, value, affine)
            if isinstance(whole, str):
                return whole
            return self.after(result, whole, result, plan)
        if kind == "Mul" and affine.shifts:
            return "it is read by Mul, which a shift does not pass"
        if kind != "Mul" and affine.scales:
            return f"it is read by {kind}, which a factor does not pass"
        if not self._passes(kind, value, result, affine):
            return f"it is read by {kind}, which broadcasts"
        if kind == "Sub" and index == 1:
            affine = replace(affine, shift=-affine.shift)
        return self.after(result, affine, result, plan)

    def _passes(self, kind: str, value: ir.Value, result: ir.Value, affine: Affine) -> bool:
        """Whether ``affine`` has its channels in the same place of ``value`` and of ``result``."""
        if affine.uniform or kind == "Concat":
            return self.sizes.dtype(value) != ir.DataType.FLOAT16 or kind == "Concat"
        if affine.spread or self.sizes.dtype(value) == ir.DataType.FLOAT16:
            return False  # half precision overflows where a product is not scaled at once
        ranks = {self.sizes.rank(value), self.sizes.rank(result)}
        sizes = {self.sizes.size(one, affine.axis) for one in (value, result)}
        return len(ranks) == 1 and None not in ranks and sizes == {affine.scale.size}

    def _split(self, node: ir.Node, affine: Affine) -> list[Affine] | str:
        """``affine`` on a concatenation as maps on its parts."""
        if affine.uniform:
            return [affine] * len(node.inputs)
        layout = self._layout(node, affine, node.outputs[0])
        if isinstance(layout, str):
            return layout
        axis, joined, sizes = layout
        if not joined:
            return [affine.along(axis)] * len(node.inputs)
        stops = np.cumsum(sizes)[:-1]
        scales, shifts = np.split(affine.scale, stops), np.split(affine.shift, stops)
        return [Affine(a, b, axis) for a, b in zip(scales, shifts, strict=True)]

    def _widened(self, node: ir.Node, index: int, value: ir.Value, affine: Affine) -> Affine | str:
        """``affine`` on one part of a concatenation as a map on the whole."""
        layout = self._layout(node, affine, value)
        if isinstance(layout, str):
            return layout
        axis, joined, sizes = layout
        part = affine.for_channels(sizes[index])
        if not joined or part is None:
            return "it is read by Concat, which joins it with what is not mapped"
        scales, shifts = [np.ones(size) for size in sizes], [np.zeros(size) for size in sizes]
        scales[index], shifts[index] = part.scale, part.shift
        return Affine(np.concatenate(scales), np.concatenate(shifts), axis)

    def _layout(
        self, node: ir.Node, affine: Affine, value: ir.Value
    ) -> tuple[int, bool, list[int]] | str:
        """Where the channels lie, whether they are joined there, and how many of each part."""
        rank, given = self.sizes.rank(value), node.attributes.get("axis")
        if affine.spread or rank is None or given is None or given.is_ref():
            return "the axis of Concat is not known"
        joint = given.as_int() % rank
        axis = joint if affine.uniform else affine.axis % rank
        parts = [None if one is None else self.sizes.size(one, axis) for one in node.inputs]
        sizes = [size for size in parts if size is not None]
        if len(sizes) < len(parts):
            return "not all parts of Concat have a known number of channels"
        return axis, axis == joint, sizes


def _shares(node: ir.Node, affine: Affine) -> list[list[tuple[ir.Value | None, Affine]]]:
    """The ways to share ``affine`` among what is added, subtracted or multiplied, best first."""
    first, second = node.inputs
    if node.op_type == "Mul":
        return [] if affine.shifts else [[(first, affine)], [(second, affine)]]
    scaling = affine.scaling()
    other = replace(affine, shift=-affine.shift) if node.op_type == "Sub" else affine
    ways = [[(first, affine), (second, scaling)], [(first, scaling), (second, other)]]
    return ways if affine.shifts else ways[:1]
