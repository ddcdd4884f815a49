"""Fold inference-time batch normalization into the linear layers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import feeds_only, graph_of, is_op, take_over
from .affine import Affine, Layer
from .constants import resolved_constant
from .layers import LINEAR, LayerWriter, bias_add, constant_side, hidden_taps, match_layer
from .normalizations import EPSILON, inference_map

_ROLES = ("scale", "shift", "mean", "variance")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Take batch normalizations into the weights of the layers around them.

    At inference a normalization is ``x * scale + shift`` per channel, with
    ``scale = gamma / sqrt(variance + epsilon)`` and ``shift = beta - mean * scale``
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html). With a layer ``W x + b``
    before it, which is always exact, and with a layer after it, exact where each output of that
    layer sees its whole kernel or where nothing is shifted::

        scale (W x + b) + shift = (scale W) x + (scale b + shift)
        W (scale x + shift) + b = (W scale) x + (b + W shift)

    Layers are ``Conv``, ``ConvTranspose``, ``Gemm`` and ``MatMul``, with a constant per-channel
    ``Add`` after them or a ``Flatten`` before the latter two. Normalizations in a row are folded
    as one; a row with no layer beside it becomes one normalization. Computed in float64 and
    rounded once, to the weight's own type.
    """

    name: ClassVar[str] = "fold-batch-norm"
    summary: ClassVar[str] = "fold batch normalization into Conv, ConvTranspose, Gemm and MatMul"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fold every normalization that can be; ``details`` tells of bytes that doubled."""
        del context
        folder = _Folder(model)
        for chain in _chains(model, folder.result):
            folder.fold(chain)
        return folder.finish()


@dataclass(frozen=True)
class _Chain:
    """Normalizations in a row, each the only reader of the one before, and what they do."""

    norms: tuple[ir.Node, ...]
    source: ir.Value
    affine: Affine

    @property
    def output(self) -> ir.Value:
        return self.norms[-1].outputs[0]


def _chains(model: ir.Model, result: Result) -> Iterator[_Chain]:
    """All normalizations of ``model`` that are affine maps, in rows as long as possible."""
    seen: set[ir.Node] = set()
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        opset = root.opset_imports.get("", 0)
        for norm in list(ir.traversal.RecursiveGraphIterator(root)):
            if norm in seen or not is_op(norm, "BatchNormalization"):
                continue
            affine, source = inference_map(norm, opset), norm.inputs[0]
            if isinstance(affine, str) or source is None:
                result.decline(norm, because=str(affine))
                continue
            norms = [norm]
            while (after := _only_reader(norms[-1].outputs[0])) is not None:
                if not is_op(after, "BatchNormalization") or after.graph is not norm.graph:
                    break
                step = inference_map(after, opset)
                if isinstance(step, str):
                    break
                affine = affine.then(step)
                norms.append(after)
            seen.update(norms)
            yield _Chain(tuple(norms), source, affine)


class _Folder:
    """Folds the normalizations of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.result = Result(model)

    @cached_property
    def writer(self) -> LayerWriter:
        return LayerWriter(self.model)

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.model)

    def has_two_axes(self, value: ir.Value) -> bool:
        """Whether ``value`` is a matrix for certain; another declared rank saves looking."""
        if value.shape is not None and len(value.shape) != 2:
            return False
        self.facts.follow_to(value)
        return len(self.facts.dims(value) or ()) == 2

    def finish(self) -> Result:
        if self.result.modified and (duplicated := self.writer.finish()):
            self.result.details["duplicated_bytes"] = duplicated
        return self.result

    def fold(self, chain: _Chain) -> None:
        """Fold ``chain`` before or behind, or say why it has to stay."""
        before = self.into_layer_before(chain)
        after = self.into_layers_after(chain) if before else ""
        if not (before and after):
            for norm in chain.norms:
                self.result.rewrote(norm)
            return
        if len(chain.norms) > 1:
            self.merge(chain)
        self.result.decline(chain.norms[-1], because=f"{before}, and {after}")

    def into_layer_before(self, chain: _Chain) -> str:
        """Fold ``chain`` into the layer whose answer it reads, or say why not."""
        layer = _layer_before(chain, self.has_two_axes)
        if isinstance(layer, str):
            return layer
        if layer.outputs != chain.affine.scale.size:
            return f"{layer.node.op_type} has another number of channels"
        parts = layer.rounded(*layer.followed_by(chain.affine))
        if isinstance(parts, str):
            return parts
        old = chain.output
        new = self.writer.write(layer, *parts, old.name or layer.node.op_type)
        new.shape = None  # a stale one might contradict that of the normalization
        take_over(new, old)
        self.remove(chain.norms)
        if layer.add is not None and layer.add.outputs[0] is not new:
            self.remove([layer.add])
        return ""

    def into_layers_after(self, chain: _Chain) -> str:
        """Fold ``chain`` into all layers that read its answer, or say why not."""
        layers = _layers_after(chain, self.has_two_axes)
        if isinstance(layers, str):
            return layers
        written = []
        for layer, affine in layers:
            parts = layer.rounded(*layer.preceded_by(affine))
            if isinstance(parts, str):
                return parts
            written.append((layer, *parts))
        for layer, weight, bias in written:
            base = layer.node.outputs[0].name or layer.node.op_type
            self.writer.write(layer, weight, bias, base)
        chain.output.replace_all_uses_with(chain.source)
        self.remove(chain.norms)
        return ""

    def remove(self, nodes: Sequence[ir.Node]) -> None:
        """Take ``nodes``, each read by the next one only, out of their graph."""
        for node in reversed(nodes):
            for value in node.inputs:
                if value is not None:
                    self.writer.retire(value)
            graph_of(node).remove(node, safe=True)

    def merge(self, chain: _Chain) -> None:
        """Make the last normalization of ``chain`` do what all of them do."""
        *first, last = chain.norms
        size = chain.affine.scale.size
        gamma = chain.affine.scale * np.sqrt(1 + last.attributes.get_float("epsilon", EPSILON))
        arrays = gamma, chain.affine.shift, np.zeros(size), np.ones(size)
        old = [resolved_constant(value) for value in last.inputs[1:5]]
        types = [array.dtype for array in old if array is not None]
        for index, (array, dtype, role) in enumerate(zip(arrays, types, _ROLES, strict=True), 1):
            self.writer.replace(last, index, f"{chain.output.name}.{role}", array.astype(dtype))
        last.replace_input_with(0, chain.source)
        self.remove(first)
        for norm in first:
            self.result.rewrote(norm)


def _layer_before(chain: _Chain, is_matrix: Callable[[ir.Value], bool]) -> Layer | str:
    norm, source = chain.norms[0], chain.source
    node, add = source.producer(), None
    if node is None:
        return "no node computes its input"
    if is_op(node, "Add") and (side := constant_side(node)) is not None:
        summed = node.inputs[1 - side]
        below = summed.producer() if summed is not None else None
        if below is not None and summed is not None and is_op(below, *LINEAR):
            if not feeds_only(summed, node):
                return f"the output of {below.op_type} is read elsewhere as well"
            node, add = below, node
    if not is_op(node, *LINEAR):
        return f"its input comes from {node.op_type}"
    if node.graph is not norm.graph:
        return "its input is computed in an outer graph"
    if not feeds_only(source, norm):
        return f"the output of {(add or node).op_type} is read elsewhere as well"
    if node.op_type == "MatMul" and not is_matrix(source):
        return "MatMul's answer is not known to have two axes"
    return match_layer(node, add)


def _layers_after(
    chain: _Chain, is_matrix: Callable[[ir.Value], bool]
) -> list[tuple[Layer, Affine]] | str:
    if chain.output.is_graph_output():
        return "it is an output of the graph"
    layers = []
    for node, index in chain.output.uses():
        reader, flat = node, _flattened(node)
        if flat is not None and (below := _only_reader(flat)) is not None:
            reader, index = below, below.inputs.index(flat)  # noqa: PLW2901
        if index or not is_op(reader, *LINEAR):
            return f"it is read by {reader.op_type}"
        if reader.graph is not chain.norms[0].graph:
            return "it is read in an inner graph"
        flattened = reader is not node
        if reader.op_type == "MatMul" and not (flattened or is_matrix(chain.source)):
            return "MatMul's input is not known to have two axes"
        layer = _layer_after(reader, chain.affine, flattened=flattened)
        if isinstance(layer, str):
            return layer
        layers.append(layer)
    return layers or "nothing reads it"


def _layer_after(node: ir.Node, affine: Affine, *, flattened: bool) -> tuple[Layer, Affine] | str:
    kind = node.op_type
    layer = match_layer(node, bias_add(node) if kind == "MatMul" else None)
    if isinstance(layer, str):
        layer = match_layer(node)
    if isinstance(layer, str):
        return layer
    if kind == "Gemm" and node.attributes.get_int("transA", 0) != 0:
        return "Gemm reads it transposed"
    if flattened and layer.inputs % affine.scale.size == 0:
        affine = affine.repeated(layer.inputs // affine.scale.size)
    if layer.inputs != affine.scale.size:
        return f"{kind} has another number of channels"
    if affine.shift.any() and (why := hidden_taps(layer)):
        return f"its shift is not zero and {why}"
    return layer, affine


def _flattened(node: ir.Node) -> ir.Value | None:
    """What ``node`` computes, if it keeps the first axis and makes one of all others."""
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    if is_op(node, "Flatten") and node.attributes.get_int("axis", 1) == 1:
        return node.outputs[0]
    if is_op(node, "Reshape") and node.attributes.get_int("allowzero", 0) == 0:
        target = resolved_constant(node.inputs[1])
        return node.outputs[0] if target is not None and target.tolist() == [0, -1] else None
    return None


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads ``value``, once."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
