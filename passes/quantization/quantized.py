"""What a quantized graph says of its layers: integers, scales, and the floats they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, constant, graph_of, is_op, nodes_in
from .emit import FLOAT
from .kernels import WEIGHTED

UNKNOWN = "its weights before rounding are not known; they are in the run that quantizes"
INSIDE = "it stands in a subgraph, whose values are not kept"


@dataclass(frozen=True)
class QuantizedLayer:
    """A ``Conv``, ``Gemm`` or ``MatMul`` on 8-bit integers.

    ``weight`` and ``bias`` are the ``DequantizeLinear`` of its constants; without the latter the
    bias stays out of reach.
    """

    node: ir.Node
    weight: ir.Node
    bias: ir.Node | None

    @property
    def input(self) -> ir.Value:
        """The dequantized activation."""
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.node.name!r} reads nothing")
        return value

    @property
    def integer_input(self) -> ir.Value:
        """The activation in 8 bits."""
        value = _producer(self.input).inputs[0]
        if value is None:
            raise ValueError(f"{self.node.name!r} reads nothing")
        return value

    def dequantized(self, integers: Array) -> Array:
        """The activation in float."""
        zero_point = _producer(self.input).inputs[2:3]
        zero = _array(zero_point[0]).astype(np.float32) if zero_point else np.float32(0)
        return np.asarray((integers.astype(np.float32) - zero) * self.input_scale)

    @property
    def integers(self) -> Array:
        """The weight's integers, as they are stored."""
        return _array(self.weight.inputs[0])

    @property
    def scale(self) -> Array:
        """The weight's scale: a scalar, or one number for each entry along :attr:`axis`."""
        return _array(self.weight.inputs[1])

    @property
    def axis(self) -> int:
        """The axis of the weight that :attr:`scale` runs along."""
        return self.weight.attributes.get_int("axis", 1)

    @property
    def input_scale(self) -> np.float32:
        """The scale of the activation."""
        return np.float32(_array(_producer(self.input).inputs[1]).item())

    @property
    def float_bias(self) -> Array:
        """The bias before rounding; 0 without one."""
        if self.bias is None:
            return np.zeros(())
        return np.asarray(self.bias.outputs[0].meta[FLOAT])

    @property
    def name(self) -> str:
        """The name of what it computes, which is that in :func:`float_twin` as well."""
        return self.node.outputs[0].name or ""

    def write(self, integers: Array, scale: Array, bias: Array | None, names: Names) -> None:
        """Store new integers of the weight, their scale, and a float ``bias``, rounded."""
        self._set(self.weight, 0, integers, names)
        self._set(self.weight, 1, scale, names)
        if self.bias is None or bias is None:
            return
        steps = (self.input_scale * scale).astype(np.float32)
        steps = np.ascontiguousarray(np.broadcast_to(steps, bias.shape))
        limits = np.iinfo(np.int32)
        rounded = np.clip(np.rint(bias / steps.astype(np.float64)), limits.min, limits.max)
        self._set(self.bias, 0, rounded.astype(np.int32), names)
        self._set(self.bias, 1, steps, names)

    def _set(self, node: ir.Node, index: int, array: Array, names: Names) -> None:
        value, graph = node.inputs[index], node.graph
        if value is None or not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name!r} has no input {index}")
        if np.array_equal(_array(value), array):
            return
        new = add_initializer(graph, names.fresh(f"{value.name}.fitted"), array)
        node.replace_input_with(index, new)
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "", None)


def quantized_layers(graph: ir.Graph) -> tuple[list[QuantizedLayer], dict[ir.Node, str]]:
    """The quantized layers of a main graph whose floats are known, and why the others do not count.

    They are in order. Layers that are not quantized at all are in neither.
    """
    found: list[QuantizedLayer] = []
    declined: dict[ir.Node, str] = {}
    for node in nodes_in(graph):
        if not is_op(node, *WEIGHTED):
            continue
        parameters = [value for value in node.inputs[1:] if value is not None]
        producers = [value.producer() for value in parameters]
        if not producers or not all(is_op(one, "DequantizeLinear") for one in producers):
            continue
        source = node.inputs[0]
        if source is None or not is_op(source.producer(), "DequantizeLinear"):
            continue
        if not all(FLOAT in value.meta and _is_plain(_producer(value)) for value in parameters):
            declined[node] = UNKNOWN
            continue
        if node.graph is not graph:
            declined[node] = INSIDE
            continue
        first = _producer(parameters[0])
        found.append(
            QuantizedLayer(node, first, _producer(parameters[1]) if len(parameters) > 1 else None)
        )
    return found, declined


def float_twin(model: ir.Model) -> ir.Model:
    """A copy of the quantized ``model`` that computes in float, with the weights before rounding.

    Values have the same names, so that what is computed can be compared one by one.
    """
    twin = model.clone()
    names = Names(twin)
    for node in nodes_in(twin.graph):
        graph = node.graph
        if not is_op(node, "DequantizeLinear") or not isinstance(graph, ir.Graph):
            continue
        value = node.outputs[0]
        quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
        source = quantize.inputs[0] if is_op(quantize, "QuantizeLinear") else None
        if FLOAT in value.meta:
            array = np.ascontiguousarray(value.meta[FLOAT])
            source = add_initializer(graph, names.fresh(f"{value.name}.float"), array)
        if source is not None:
            value.replace_all_uses_with(source, replace_graph_outputs=True)
            graph.remove(node)
            if quantize is not None and not quantize.outputs[0].uses():
                graph_of(quantize).remove(quantize)
    return twin


def _is_plain(dequantize: ir.Node) -> bool:
    """Whether it reads 8 or 32-bit constants, by one scale or one per channel."""
    integers, scale = (constant(value) for value in dequantize.inputs[:2])
    if integers is None or scale is None:
        return False
    return integers.dtype in (np.int8, np.int32) and scale.ndim < 2


def _producer(value: ir.Value | None) -> ir.Node:
    node = None if value is None else value.producer()
    if node is None:
        raise ValueError(f"{value!r} is not computed")
    return node


def _array(value: ir.Value | None) -> Array:
    array = constant(value)
    if array is None:
        raise ValueError(f"{value!r} is not constant")
    return array
