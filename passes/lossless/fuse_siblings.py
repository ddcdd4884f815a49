"""Compute narrow layers that read the same tensor at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..graph import graph_of, is_op, nodes_in, take_over
from .affine import Layer
from .constants import ConstantWriter, drop_unused, resolve
from .layers import bias_add, match_layer

_WIDEST: Final = 8
"""The most channels that a layer may answer with: less than a block of ONNX Runtime's kernels."""
_MANY_ROWS: Final = 32
"""From how many rows on a product of matrices takes longer than the Split behind it."""


@dataclass(frozen=True)
class FuseSiblings(Pass):
    """Make one layer of layers that read the same tensor and answer with few channels each.

    With the weights side by side, and a ``Split`` of the answer::

        Conv(x, W, a), Conv(x, V, b)        ->  Split(Conv(x, [W; V], [a; b]))
        MatMul(x, W) + a, MatMul(x, V) + b  ->  Split(MatMul(x, [W, V]) + [a, b])

    ``Gemm`` as well. ONNX Runtime computes channels in blocks, so that two layers of 4 channels
    take twice as long as one of 8. Wide ones fill their blocks anyway, and the ``Split`` comes on
    top. What was measured on ONNX Runtime 1.32, one thread, two or three layers against one:

    | layers | channels of each | times faster |
    | --- | --- | --- |
    | Conv, kernels of 1 and 3, two axes | 1 to 8 | 1.0 to 2.0 |
    | | 9 to 15 | 0.98 to 1.04 |
    | | 16 | **0.74 to 0.93** |
    | | 17 to 96 | **0.80** to 1.3 |
    | Conv of one axis | 4 and 8 | 1.0 to 1.34 |
    | MatMul and Add, three axes | 1 to 8 | 1.03 to 2.16 |
    | MatMul or Gemm of 100 rows | 1 to 8 | 1.26 to 2.19 |
    | Gemm of one row | 1 to 64 | **0.78 to 1.02** |
    | MatMul and Add, three axes, 64 rows and more | 64 to 768 | **0.66** to 0.99 |
    | queries, keys and values before ``Attention`` | 192 to 768 | **0.92** to 1.01 |

    So layers of up to 8 channels are fused; of products of matrices those of 32 rows and more, and
    those of three axes and more with an ``Add`` each, whatever their rows. float32 on ONNX
    Runtime's CPU provider only: that is where it was measured.
    """

    name = "fuse-siblings"
    summary = "compute narrow layers that read the same tensor at once"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fuse what is narrow enough; the reasons say what is too wide."""
        result = Result(model)
        if context.target.name != "cpu":
            return result
        facts, writer = Facts(model), _Writer(model)
        bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for body in bodies:
            opset = body.opset_imports.get("", 0)
            for nodes in _siblings(body):
                for layers in _alike(nodes, facts, result):
                    result.rewrote(layers[0].node)
                    writer.write(layers, opset)
        writer.finish()
        return result


def _siblings(body: ir.Graph | ir.Function) -> list[list[ir.Node]]:
    """Layers in one graph that read the same tensor, several at a time."""
    readers: dict[Hashable, list[ir.Node]] = {}
    for node in nodes_in(body):
        if is_op(node, "Conv", "Gemm", "MatMul") and node.inputs[0] is not None:
            key = graph_of(node), node.op_type, resolve(node.inputs[0])
            readers.setdefault(key, []).append(node)
    return [nodes for nodes in readers.values() if len(nodes) > 1]


def _alike(nodes: Iterable[ir.Node], facts: Facts, result: Result) -> Iterator[list[Layer]]:
    """Those of ``nodes`` that differ in their parameters only, and are better one layer."""
    alike: dict[Hashable, list[Layer]] = {}
    for node in nodes:
        layer = match_layer(node, bias_add(node) if node.op_type == "MatMul" else None)
        if isinstance(layer, Layer) and layer.weight.dtype == np.float32:
            alike.setdefault(_signature(layer), []).append(layer)
    for layers in alike.values():
        narrow = []
        for layer in layers if len(layers) > 1 else ():
            if why := _objection(layer, facts):
                result.decline(layer.node, because=why)
            else:
                narrow.append(layer)
        if len(narrow) > 1:
            yield narrow


def _signature(layer: Layer) -> Hashable:
    """What layers have in common that can be one; biases are scaled by ``beta`` already."""
    node = layer.node
    attributes = {
        name: tuple(attribute.value) if isinstance(attribute.value, list) else attribute.value
        for name, attribute in node.attributes.items()
        if name not in {"beta", "kernel_shape"}
    }
    shape = [size for axis, size in enumerate(layer.weight.shape) if axis != _across(layer)]
    return layer.add is None, *shape, *sorted(attributes.items())


def _across(layer: Layer) -> int:
    """The axis of the weight along which the outputs lie."""
    return 1 if layer.swapped else 0


def _objection(layer: Layer, facts: Facts) -> str:
    """Why ``layer`` is not fused with others."""
    node, source = layer.node, layer.node.inputs[0]
    if layer.outputs > _WIDEST:
        return "it answers with so many channels that one layer for all would not be faster"
    if source is None or is_op(source.producer(), "DequantizeLinear"):
        return "what it reads is dequantized"
    if node.op_type == "Conv":
        if layer.groups > 1 or layer.weight.ndim > 4:
            return "its Conv has groups, or more axes than were measured"
        return ""
    facts.follow_to(source)
    dims = facts.dims(source)
    if dims is None or len(dims) < 2 or node.attributes.get_int("transA"):
        return "its factors are not known to be matrices"
    if len(dims) > 2 and layer.add is not None:
        return ""
    rows = math.prod(size if isinstance(size, int) else 1 for size in dims[:-1])
    return (
        ""
        if rows >= _MANY_ROWS
        else "it is not known to have so many rows that one layer for all would be faster"
    )


class _Writer:
    """Writes fused layers into one model."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._constants: ConstantWriter | None = None
        self._retired: list[ir.Value | None] = []

    @property
    def constants(self) -> ConstantWriter:
        """Made when it is needed: it reads every name."""
        self._constants = self._constants or ConstantWriter(self._model)
        return self._constants

    def write(self, layers: Sequence[Layer], opset: int) -> None:
        """Put one layer and a ``Split`` in the place of ``layers``."""
        first = layers[0]
        place, op_type = first.node, first.node.op_type
        weight = np.concatenate([layer.weight for layer in layers], axis=_across(first))
        bias = np.concatenate([np.broadcast_to(one.bias, (one.outputs,)) for one in layers])
        inputs = [place.inputs[0], self.constant(place, "weight", weight)]
        attributes = [one for name, one in place.attributes.items() if name != "beta"]
        shift = None
        if bias.any() or first.add is not None:
            shift = self.constant(place, "bias", bias.astype(weight.dtype))
        if shift is not None and op_type != "MatMul":
            inputs.append(shift)
        answer = self.node(place, op_type, inputs, attributes)[0]
        if shift is not None and op_type == "MatMul":
            answer = self.node(place, "Add", [answer, shift])[0]
        parts = self.split(place, answer, [layer.outputs for layer in layers], opset)
        for layer, part in zip(layers, parts, strict=True):
            self.replace(layer, part)

    def finish(self) -> None:
        """Drop the parameters that nothing reads any more."""
        drop_unused(*self._retired)

    def split(
        self, place: ir.Node, answer: ir.Value, sizes: Sequence[int], opset: int
    ) -> Sequence[ir.Value]:
        inputs, attributes = [answer], [ir.AttrInt64("axis", 1 if place.op_type == "Conv" else -1)]
        if opset < 13:
            attributes.append(ir.AttrInt64s("split", sizes))
        else:
            inputs.append(self.constant(place, "sizes", np.array(sizes)))
        return self.node(place, "Split", inputs, attributes, len(sizes))

    def replace(self, layer: Layer, part: ir.Value) -> None:
        gone = [layer.node] if layer.add is None else [layer.add, layer.node]
        take_over(part, gone[0].outputs[0])
        self._retired += (value for node in gone for value in node.inputs)
        for node in gone:
            graph_of(node).remove(node, safe=True)

    def constant(self, place: ir.Node, role: str, array: Array) -> ir.Value:
        return self.constants.add(graph_of(place), f"{_base(place)}.{role}", array, place)

    def node(
        self,
        place: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (),
        count: int = 1,
    ) -> Sequence[ir.Value]:
        """The outputs of a new node before ``place``."""
        node = ir.Node("", op_type, inputs, attributes, num_outputs=count)
        for output in node.outputs:
            output.name = self.constants.names.fresh(f"{_base(place)}.{op_type.lower()}")
        graph_of(place).insert_before(place, node)
        return node.outputs


def _base(place: ir.Node) -> str:
    return place.outputs[0].name or place.op_type
