"""Writes a plan into the graph: Q/DQ pairs, integer weights and their parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, constant, graph_of, is_op, take_over
from .arithmetic import QMAX, Affine, quantize_bias, quantize_weight, shifted
from .kernels import READS_SHAPE, Kernel, sole_reader
from .placement import Plan
from .saturation import keep_from_saturating

FLOAT = "onnxpress.float"
"""Under this name a dequantized constant remembers in ``meta`` what it was before rounding, for the
passes that look for better integers. Files do not hold it."""

ORIGIN = "onnxpress.origin"
"""Under this name a dequantized weight remembers what its layer computed in the float model."""


@dataclass
class Emitter:
    """One rewrite of ``graph``.

    Every kernel that reads a tensor in 8 bits gets a ``DequantizeLinear`` of its own, by which
    ONNX Runtime recognizes it; readers in float share one.

    Attributes:
        graph: What is rewritten: a main graph, or one inside it.
        names: Those of the whole model.
        affines: The quantization parameters of each root of the plan.
        largest: The largest unsigned value of each tensor that neighbouring weights are kept small
            enough for on CPUs without VNNI; 255 for those not in it. ``None`` keeps none small.
        unsigned_weights: Store weights as uint8 around a zero point of 128.
        powers: Scales are powers of two.
        channels: How many output channels have been quantized.
        shrunk: How many of them have a coarser scale to avoid saturation.
    """

    graph: ir.Graph
    names: Names
    affines: Mapping[ir.Value, Affine]
    largest: Mapping[ir.Value, int] | None
    unsigned_weights: bool = False
    powers: bool = False
    channels: int = 0
    shrunk: int = 0
    _origins: dict[ir.Node, str] = field(default_factory=dict)
    _quantized: dict[ir.Value, ir.Node] = field(default_factory=dict)
    _constants: dict[tuple[str, tuple[int, ...], str], ir.Value] = field(default_factory=dict)

    def write(self, plan: Plan) -> None:
        """Rewrite the graph as ``plan`` says."""
        produced = {value for kernel in plan.kernels for value in kernel.outputs}
        edges = {(kernel.node, index) for kernel in plan.kernels for index in kernel.inputs}
        names = {value: value.name or "" for value in plan.roots}
        reads = [list(kernel.reads()) for kernel in plan.kernels]
        self._origins = {one.node: one.node.outputs[0].name or "" for one in plan.kernels}
        for value, root in plan.roots.items():
            self._quantize(value, names[root], self.affines[root])
            if value in produced:
                self._serve_others(value, edges)
        for kernel, values in zip(plan.kernels, reads, strict=True):
            for index, value in zip(kernel.inputs, values, strict=True):
                dequantize = self._dequantize(value, names[value])
                self.graph.insert_before(kernel.node, dequantize)
                kernel.node.replace_input_with(index, dequantize.outputs[0])
            if kernel.weight is not None:
                scale = self.affines[plan.roots[values[0]]].scale
                self._write_weight(kernel, kernel.weight, scale, values[0])
                self._keep_bias_apart(kernel, values[0], plan)

    def _quantize(self, value: ir.Value, root: str, affine: Affine) -> None:
        """Put a ``QuantizeLinear`` right behind ``value``; of an outer value, at the start."""
        scale = self._constant(f"{root}.scale", np.asarray(affine.scale))
        zero_point = self._constant(f"{root}.zero_point", np.asarray(affine.zero_point))
        node = self._node("QuantizeLinear", [value, scale, zero_point], f"{value.name}.quantized")
        node.outputs[0].shape = value.shape
        node.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(affine.zero_point.dtype))
        producer = value.producer()
        if producer is None or producer.graph is not self.graph:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        self._quantized[value] = node

    def _dequantize(self, value: ir.Value, name: str) -> ir.Node:
        quantize = self._quantized[value]
        inputs = [quantize.outputs[0], *quantize.inputs[1:]]
        node = self._node("DequantizeLinear", inputs, f"{name}.dequantized")
        node.outputs[0].shape = value.shape
        return node

    def _serve_others(self, value: ir.Value, edges: set[tuple[ir.Node, int]]) -> None:
        """Give the readers of ``value`` that do not run on integers what the 8 bits hold.

        A kernel that gives out 8 bits can have no other reader.
        """
        quantize = self._quantized[value]
        others = [use for use in value.uses() if use not in edges and use.node is not quantize]
        for node, index in [use for use in others if is_op(use.node, *READS_SHAPE)]:
            node.replace_input_with(index, quantize.outputs[0])
        others = [use for use in others if not is_op(use.node, *READS_SHAPE)]
        if not others and not value.is_graph_output():
            return
        node = self._dequantize(value, value.name or "")
        self.graph.insert_after(quantize, node)
        new = node.outputs[0]
        for reader, index in others:
            reader.replace_input_with(index, new)
        if value.is_graph_output():
            outputs = self.graph.outputs
            outputs[:] = [new if output is value else output for output in outputs]
            new.name, value.name = value.name, self.names.fresh(f"{value.name}.float")
            new.type, new.shape = value.type, value.shape

    def _write_weight(
        self, kernel: Kernel, weight: Array, input_scale: np.float32, source: ir.Value
    ) -> None:
        """Store the weight and bias of ``kernel`` as integers, and drop the float ones."""
        node = kernel.node
        old = [node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None]
        if kernel.bias_add is not None:
            old[1] = next(value for value in kernel.bias_add.inputs if constant(value) is not None)

        quantized = quantize_weight(
            weight, kernel.axis, bias=kernel.bias, input_scale=input_scale, powers=self.powers
        )
        self.channels += quantized.scale.size
        if self.largest is not None:
            high = self.largest.get(source, QMAX)
            quantized, shrunk = keep_from_saturating(
                node, weight, quantized, high, powers=self.powers
            )
            self.shrunk += shrunk
        values, zero = quantized.values, np.zeros(quantized.scale.shape, np.int8)
        if self.unsigned_weights:
            values, zero = shifted(values), shifted(zero)
        name = old[0].name if old[0] is not None else None
        inputs = [
            self._constant(f"{name}.quantized", values),
            self._constant(f"{name}.scale", quantized.scale),
            self._constant(f"{name}.zero_point", zero),
        ]
        parameters = [self._read_constant(node, inputs, f"{name}.dequantized", kernel.axis)]
        parameters[0].meta.update({FLOAT: weight, ORIGIN: self._origins[node]})
        if kernel.bias is not None:
            values, scale = quantize_bias(kernel.bias, input_scale, quantized.scale)
            name = old[1].name if old[1] is not None else f"{node.outputs[0].name}.bias"
            inputs = [
                self._constant(f"{name}.quantized", values),
                self._constant(f"{name}.scale", scale),
            ]
            parameters.append(self._read_constant(node, inputs, f"{name}.dequantized", 0))
            parameters[1].meta[FLOAT] = kernel.bias

        if kernel.as_gemm:
            self._make_gemm(kernel, parameters)
        else:
            node.resize_inputs(1 + len(parameters))
            for index, parameter in enumerate(parameters, start=1):
                node.replace_input_with(index, parameter)
            if is_op(node, "Gemm"):
                node.attributes.pop("alpha", None)
                node.attributes.pop("beta", None)
        for value in old:
            self._drop(value)

    def _make_gemm(self, kernel: Kernel, parameters: list[ir.Value]) -> None:
        matmul, last = kernel.node, kernel.bias_add or kernel.node
        gemm = self._node("Gemm", [matmul.inputs[0], *parameters], "")
        gemm.name = matmul.name
        self.graph.insert_before(last, gemm)
        take_over(gemm.outputs[0], last.outputs[0])
        for node in dict.fromkeys((last, matmul)):
            self.graph.remove(node, safe=True)

    def _keep_bias_apart(self, kernel: Kernel, source: ir.Value, plan: Plan) -> None:
        """Give the bias behind a ``MatMul`` with float output a shape that no ``Gemm`` takes.

        Where ONNX Runtime knows every dimension it makes a ``Gemm`` between two ``Reshape`` of
        them (``matmul_add_fusion.cc``), with a bias that is not quantized, and so in float.
        """
        add = sole_reader(kernel.outputs[0])
        static = source.shape is not None and source.shape.is_static()
        if not static or add is None or not is_op(add, "Add") or not is_op(kernel.node, "MatMul"):
            return
        for index, value in enumerate(add.inputs):
            bias = constant(value)
            if value is None or bias is None or bias.ndim != 1:
                continue
            if add.outputs[0] not in plan.roots:
                apart = self._constant(f"{value.name}.apart", bias.reshape(1, 1, -1))
                add.replace_input_with(index, apart)
                self._drop(value)

    def _read_constant(
        self, reader: ir.Node, inputs: list[ir.Value], name: str, axis: int | None
    ) -> ir.Value:
        node = self._node("DequantizeLinear", inputs, name)
        if axis is not None and inputs[1].shape:
            node.attributes["axis"] = ir.AttrInt64("axis", axis)
        node.outputs[0].shape = inputs[0].shape
        self.graph.insert_before(reader, node)
        return node.outputs[0]

    def _node(self, op_type: str, inputs: Sequence[ir.Value | None], name: str) -> ir.Node:
        node = ir.node(op_type, inputs)
        output = node.outputs[0]
        output.type = ir.TensorType(ir.DataType.FLOAT)
        if name:
            output.name = node.name = self.names.fresh(name)
        return node

    def _constant(self, name: str, array: Array) -> ir.Value:
        """An initializer that holds ``array``; one for all that hold the same."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        digest = hashlib.sha256(array.data if array.size else b"").hexdigest()
        key = (array.dtype.str, array.shape, digest)
        if key not in self._constants:
            self._constants[key] = add_initializer(self.graph, self.names.fresh(name), array)
        return self._constants[key]

    def _drop(self, value: ir.Value | None) -> None:
        """Remove a constant that nothing reads any more."""
        if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
            return
        producer = value.producer()
        if producer is not None:
            graph_of(producer).remove(producer, safe=True)
        elif isinstance(value.graph, ir.Graph) and value.name is not None:
            value.graph.initializers.pop(value.name, None)
