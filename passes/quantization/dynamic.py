"""Matrix products on 8-bit integers whose inputs are quantized while the model runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..base import Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import Names, add_initializer, graph_of, is_constant, is_op, take_over
from ..opsets import raise_opset, standard_version
from .arithmetic import quantize_weight
from .placement import check_patterns, matches
from .saturation import can_saturate, keep_from_saturating
from .weight_layers import Layer, find_layers

OPSET = 11
"""The first opset with ``DynamicQuantizeLinear``."""

LEAST = 1 << 16
"""Weights in a matrix from which its product is faster for any number of rows. With AVX-512 and
VNNI, one thread: 256 x 256 is 1.06 times as fast as in float for one row and 1.9 times for 16,
2,048 x 512 is 2.4 and 3.5 times as fast; 128 x 128 is 0.91 times as fast for one row."""


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Run ``MatMul`` and ``Gemm`` by large constant matrices on 8-bit integers, without samples.

    The range of an input is that of its values in each run (``DynamicQuantizeLinear``, one for all
    layers that read the tensor), so that nothing is clipped; weights are signed 8-bit with a scale
    per output. ONNX Runtime makes ``DynamicQuantizeMatMul`` or ``MatMulIntegerToFloat`` of it, and
    what lies between stays in float. The answers of one sample depend on those beside it in a
    batch, which share its range.

    Declined are matrices of fewer than 65,536 weights, whose products gain less than finding the
    range of their input takes, stacks of matrices, and convolutions, whose dynamic kernels are
    several times slower than in float. On CPUs without VNNI weights are kept from overflowing
    16-bit sums, as ``insert-qdq`` does.

    Options:

    - ``include``, ``exclude``: names of nodes or of their outputs, or operators, ``*`` for
      anything.
    """

    name: ClassVar[str] = "quantize-dynamic"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="rounds weights and inputs of matrix products", min_sqnr_db=6.0
    )
    summary: ClassVar[str] = "Run large matrix products on integers, with ranges of each run"

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite the layers of ``model``, those in subgraphs as well.

        Raises:
            PassError: The target has no integer kernels, the opset cannot be raised, or an option
                names a node that is not there.
        """
        if context.target.name == "cuda":
            raise PassError(
                "ONNX Runtime's CUDA provider has no kernels for 8-bit matrix products",
                hint="quantize for the target cpu, or store weights in few bits",
            )
        result = Result(model)
        check_patterns(model, (*self.include, *self.exclude))
        chosen = self._layers(model, result)
        before = standard_version(model.graph)
        if chosen and before < OPSET:
            raise_opset(model, OPSET)
            result.details["opset"] = [before, OPSET]
            chosen = self._layers(model, Result(model))
        writer = _Writer(Names(model), can_saturate(context.target))
        for layer in chosen:
            result.rewrote(layer.node)
            writer.write(layer)
        if chosen:
            result.details["layers"] = dict(Counter(layer.node.op_type for layer in chosen))
        return result

    def _layers(self, model: ir.Model, result: Result) -> list[Layer]:
        layers = find_layers(model, self._unwanted, contrib=True)
        for node, reason in layers.declined.items():
            if is_op(node, "MatMul", "Gemm"):
                result.decline(node, because=reason)
        chosen = []
        for layer in layers.found:
            if layer.is_table:
                continue
            weights = layer.rows().size
            if is_constant(layer.node.inputs[0]):
                result.decline(layer.node, because="its first input is constant")
            elif weights < LEAST:
                because = f"it has {weights} weights, and below {LEAST} it gains too little"
                result.decline(layer.node, because=because)
            else:
                chosen.append(layer)
        return chosen

    def _unwanted(self, node: ir.Node) -> str:
        if any(matches(node, self.exclude)):
            return "it is excluded"
        if self.include and not any(matches(node, self.include)):
            return "it is not included"
        return ""


@dataclass
class _Writer:
    names: Names
    safe: bool
    _inputs: dict[tuple[ir.Graph | ir.Function | None, ir.Value], ir.Node] = field(
        default_factory=dict
    )

    def write(self, layer: Layer) -> None:
        node, graph = layer.node, graph_of(layer.node)
        source, weight = node.inputs[0], layer.weight
        if source is None or not isinstance(graph, ir.Graph):
            raise ValueError(f"{node.name!r} reads nothing")
        columns = np.ascontiguousarray(layer.rows().T)
        quantized = quantize_weight(columns, 1, input_scale=np.float32(1))
        if self.safe:
            like = ir.node("MatMul", [None, None])
            quantized, _ = keep_from_saturating(like, columns, quantized)
        values = self._constant(graph, f"{weight.name}.quantized", quantized.values)
        scale = self._constant(graph, f"{weight.name}.scale", quantized.scale)
        integers = self._quantize(source, graph)
        product = ir.node("MatMulInteger", [integers.outputs[0], values, integers.outputs[2]])
        real = ir.node("Cast", product.outputs, {"to": ir.DataType.FLOAT.value})
        steps = ir.node("Mul", [integers.outputs[1], scale])
        new = [product, real, steps, ir.node("Mul", [real.outputs[0], steps.outputs[0]])]
        if layer.bias is not None:
            bias = self._constant(graph, f"{node.outputs[0].name}.bias", layer.bias)
            new.append(ir.node("Add", [new[-1].outputs[0], bias]))
        for one in new:
            graph.insert_before(node, one)
        for one in new[:-1]:
            one.outputs[0].name = self.names.fresh(f"{node.outputs[0].name}.{one.op_type}")
        new[-1].name = node.name
        take_over(new[-1].outputs[0], node.outputs[0])
        graph.remove(node, safe=True)
        if not weight.uses() and isinstance(weight.graph, ir.Graph) and weight.name is not None:
            producer = weight.producer()
            if producer is not None:
                weight.graph.remove(producer, safe=True)
            else:
                weight.graph.initializers.pop(weight.name, None)

    def _quantize(self, source: ir.Value, graph: ir.Graph) -> ir.Node:
        """The ``DynamicQuantizeLinear`` of ``source`` in ``graph``, before all that may read it."""
        if (graph, source) not in self._inputs:
            new = ir.node("DynamicQuantizeLinear", [source], num_outputs=3)
            for value, part in zip(new.outputs, ("quantized", "scale", "zero_point"), strict=True):
                value.name = self.names.fresh(f"{source.name}.{part}")
            producer = source.producer()
            if producer is not None and producer.graph is graph:
                graph.insert_after(producer, new)
            else:
                graph.insert_before(graph[0], new)
            self._inputs[graph, source] = new
        return self._inputs[graph, source]

    def _constant(self, graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(graph, self.names.fresh(name), np.ascontiguousarray(array))
