"""Write a product of matrices and what is added to it as one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import feeds_only, graph_of, is_op, nodes_of, take_over

_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})
"""The types that ONNX Runtime has both ``MatMul`` and ``Gemm`` for."""


@dataclass(frozen=True)
class FuseGemm(Pass):
    """Make one ``Gemm`` of a ``MatMul`` of two matrices and the ``Add`` that reads it.

    ``Gemm`` is ``A B + C`` for matrices ``A`` and ``B`` and a ``C`` that broadcasts to the answer
    without widening it (https://onnx.ai/onnx/operators/onnx__Gemm.html). Declined where a factor
    has, or may have, other than two axes, where what is added may have more rows or columns than
    the product, where the product is read elsewhere as well, and where a factor is dequantized:
    ONNX Runtime looks for whole ``MatMul`` groups.
    """

    name: ClassVar[str] = "fuse-gemm"
    summary: ClassVar[str] = "write MatMul of matrices and Add as one Gemm"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fuse every pair that can be."""
        del context
        result, facts = Result(model), Facts(model)
        for product, add, added in _pairs(model):
            if reason := _refusal(product, add, added, facts):
                result.decline(product, because=reason)
                continue
            gemm = ir.Node("", "Gemm", [*product.inputs, added], name=product.name)
            graph_of(add).insert_before(add, gemm)
            take_over(gemm.outputs[0], add.outputs[0])
            graph_of(add).remove(add, safe=True)
            graph_of(product).remove(product, safe=True)
            result.rewrote(gemm)
        return result


def _pairs(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node, ir.Value]]:
    """Every ``MatMul`` with an ``Add`` after it in the same graph, and what is added."""
    seen: set[ir.Node] = set()
    for add in nodes_of(model):
        if not is_op(add, "Add"):
            continue
        for product, added in (add.inputs, add.inputs[::-1]):
            node = None if product is None else product.producer()
            if not is_op(node, "MatMul") or node.graph is not add.graph or added is None:
                continue
            if node not in seen and added is not product:
                seen.add(node)
                yield node, add, added
                break


def _refusal(product: ir.Node, add: ir.Node, added: ir.Value, facts: Facts) -> str:
    """Why ``product`` and ``add`` have to stay; empty if they need not."""
    output = product.outputs[0]
    if not feeds_only(output, add):
        return "its answer is read elsewhere as well"
    if any(
        value is not None and is_op(value.producer(), "DequantizeLinear")
        for value in product.inputs
    ):
        return "it multiplies what is dequantized"
    shapes = []
    for value in (*product.inputs, output, added):
        if value is None:
            return "it has no second factor"
        facts.follow_to(value)
        shapes.append(facts.dims(value))
    *factors, answer, other = shapes
    if any(dims is None or len(dims) != 2 for dims in factors) or answer is None:
        return "its factors are not known to be matrices"
    if other is None or len(other) > 2:
        return "what is added to it is not known to be a matrix or less"
    if any(size not in {1, whole} for size, whole in zip(other[::-1], answer[::-1], strict=False)):
        return "what is added to it may be larger"
    if facts.dtype(output) not in _TYPES:
        return "ONNX Runtime has no Gemm for its type"
    return ""
