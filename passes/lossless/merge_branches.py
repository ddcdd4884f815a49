"""Merge convolutions, normalizations and shortcuts that read the same and are summed into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import onnx_ir as ir

from ..base import Context, Pass, Result
from ..graph import graph_of, graphs_of, is_constant, is_op
from .affine import Layer
from .constants import resolve
from .conv_windows import SpatialSizes, set_frame
from .layers import LayerWriter, match_layer
from .summands import NEGATION, Summand, per_channel, summand
from .sums import Slot, SumTree, sum_trees
from .windows import Window


@dataclass(frozen=True)
class MergeBranches(Pass):
    """Make one ``Conv`` of branches that read the same tensor and are added up.

    Everything in such a sum is a window over the same ``x``, which is zero outside: a ``Conv`` of
    any kernel, an ``AveragePool`` (all taps ``1 / n``, each channel by itself), a normalization or
    ``x`` itself (one tap, each channel by itself), with maps per channel (``BatchNormalization``,
    ``Mul``, ``Add`` and the like by constants) on top. Windows with the same strides and as many
    places add up, tap by tap, to the window that covers both::

        r (V x + a) + s (W x + b) + t x + c = (r V + s W + diag(t)) x + (r a + s b + c)

    ``Add``, ``Sum`` and ``Sub`` in any order; what cannot be merged stays in the sum. Computed in
    float64 and rounded once, to the weight's own type.

    Merged is what takes no more multiplications than its parts: a 1x1 into a 3x3, but neither 1x3
    and 3x1 into 3x3 nor a dilated kernel into a dense one that does not cover it anyway.
    """

    name: ClassVar[str] = "merge-branches"
    trades: ClassVar[bool] = True
    summary: ClassVar[str] = "merge parallel Convs, normalizations and shortcuts that are summed"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Merge the branches of every sum, those inside branches of others first."""
        del context
        merger = _Merger(model)
        for graph in graphs_of(model):
            for tree in sum_trees(graph):
                merger.merge(tree)
        return merger.finish()


@dataclass(frozen=True)
class _Bundle:
    """Branches of one sum that become one window, in the place of the ``Conv`` of the first."""

    summands: tuple[Summand, ...]
    layer: Layer
    window: Window


class _Merger:
    """Merges the branches of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.result = Result(model)
        self.sizes = SpatialSizes(model)
        self._main = model.opset_imports.get("", 0)
        self._opsets = {
            graph: function.opset_imports.get("", 0)
            for function in model.functions.values()
            for graph in (function.graph, *function.graph.subgraphs())
        }

    @cached_property
    def writer(self) -> LayerWriter:
        return LayerWriter(self.model)

    def finish(self) -> Result:
        if self.result.modified and (duplicated := self.writer.finish()):
            self.result.details["duplicated_bytes"] = duplicated
        return self.result

    def merge(self, tree: SumTree) -> None:
        """Merge what can be merged of the branches that ``tree`` adds up."""
        constants, by_source = [], dict[ir.Value | None, list[Summand]]()
        for slot in tree.slots:
            if is_constant(resolve(slot.value)):
                constants.append(slot)
            else:
                found = summand(slot)
                by_source.setdefault(resolve(found.source), []).append(found)
        gone: list[Slot] = []
        done: list[_Bundle] = []
        for source, summands in by_source.items():
            if len(summands) > 1 and any(one.is_conv for one in summands):
                for bundle in self.bundles(tree, summands):
                    slots = [] if done else constants
                    if (more := self.write(tree, bundle, slots, gone)) is not None:
                        gone += more
                        done.append(bundle)
            maker = None if source is None else source.producer()
            if is_op(maker, "Conv") and resolve(maker.inputs[0]) in by_source:
                self.result.decline(maker, because="what it answers is read elsewhere as well")
        if done:
            self.result.rewrote(tree.root)
            values = [slot.value for slot in gone]
            tree.take_away(gone)
            for value in values:
                if is_constant(resolve(value)):
                    self.writer.retire(value)
            for bundle in done:
                self.clear(bundle)

    def bundles(self, tree: SumTree, summands: Sequence[Summand]) -> Iterator[_Bundle]:
        """The branches among ``summands``, which read the same, that are better one window."""
        opset = self._opsets.get(graph_of(tree.root), self._main)
        convs, others = [], []
        for one in summands:
            layer = match_layer(one.node) if one.is_conv and one.node is not None else None
            if isinstance(layer, str):
                self.result.decline(tree.root, because=layer)
            elif layer is None:
                others.append(one)
            elif isinstance(window := one.over_conv(layer, self.sizes, opset), str):
                self.result.decline(tree.root, because=window)
            else:
                convs.append((one, layer, window))
        convs.sort(key=lambda conv: -conv[2].work)
        while convs:
            (host, layer, window), *left = convs
            convs, taken = [], [host]
            for conv in left:
                if why := self.apart(host.source, window, conv[2]):
                    self.result.decline(tree.root, because=why)
                    convs.append(conv)
                else:
                    window = window.plus(conv[2])
                    taken.append(conv[0])
            for one in list(others):
                small = one.over_channels(window, self.sizes, opset)
                why = small if isinstance(small, str) else self.apart(host.source, window, small)
                if isinstance(small, str) or why:
                    self.result.decline(tree.root, because=why)
                else:
                    window = window.plus(small)
                    taken.append(one)
                    others.remove(one)
            if len(taken) > 1:
                yield _Bundle(tuple(taken), layer, window)

    def apart(self, source: ir.Value, window: Window, other: Window) -> str:
        """Why ``window`` and ``other``, both over ``source``, are not to be one."""
        if (window.outputs, window.inputs) != (other.outputs, other.inputs):
            return "its branches have different numbers of channels"
        one, two = window.frame, other.frame
        if one.strides != two.strides:
            return "its branches have different strides"
        if one.excess != two.excess:
            sizes = self.sizes.of(source)
            if sizes is None or one.places(sizes) != two.places(sizes):
                return "its branches are not known to answer with the same sizes"
        if window.work_with(other) > window.work + other.work:
            return "one window for its branches would take more multiplications"
        return ""

    def write(
        self, tree: SumTree, bundle: _Bundle, constants: Iterable[Slot], gone: Sequence[Slot]
    ) -> list[Slot] | None:
        """Put ``bundle``, and those of ``constants`` that fit, into one of its slots.

        Returns the other slots, which ``tree`` has to lose together with those ``gone`` already.
        """
        window, slots = bundle.window, [one.slot for one in bundle.summands]
        added = []
        for slot in constants:
            number = per_channel(slot.value, window.outputs, window.weight.ndim)
            if number is not None:
                window = replace(window, bias=window.bias + (-number if slot.negative else number))
                added.append(slot)
        losses = ([*added, *(slot for slot in slots if slot is not kept)] for kept in slots)
        fitting = (
            (kept, lost)
            for kept, lost in zip(slots, losses, strict=True)
            if tree.stands_without([*gone, *lost])
        )
        kept, lost = next(fitting, (None, []))
        if kept is None:
            self.result.decline(tree.root, because="only what is subtracted would be left")
            return None
        window = window.then(NEGATION) if kept.negative else window
        layer = replace(bundle.layer, groups=window.groups)
        rounded = layer.rounded(window.weight, window.bias)
        if isinstance(rounded, str):
            self.result.decline(tree.root, because=rounded)
            return None
        conv = layer.node
        if kept is not slots[0]:  # what reads it from now on may stand before it
            graph_of(conv).remove(conv)
            graph_of(kept.node).insert_before(kept.node, conv)
        base = tree.root.outputs[0].name or conv.op_type
        self.writer.write(layer, *rounded, base)
        set_frame(conv, window)
        conv.outputs[0].shape = None  # it may come from an exporter who was wrong
        kept.node.replace_input_with(kept.index, conv.outputs[0])
        return lost

    def clear(self, bundle: _Bundle) -> None:
        """Take the nodes of ``bundle``, which nothing reads any more, out of their graph."""
        for index, one in enumerate(bundle.summands):
            below = () if index == 0 or one.node is None else (one.node,)
            for node in (*one.maps, *below):
                for value in node.inputs[1:] if node in below else node.inputs:
                    if value is not None and is_constant(resolve(value)):
                        self.writer.retire(value)
                graph_of(node).remove(node, safe=True)
