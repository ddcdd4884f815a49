"""Put the rows of a weight in the order in which its input lies, instead of the reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..graph import Names, add_initializer, constant, feeds_only, graph_of, is_op, nodes_of


@dataclass(frozen=True)
class PermuteWeights(Pass):
    """Take out a ``Transpose`` before a layer that reads all that was transposed, flattened.

    With ``P`` the order in which the transposed values are flattened, and samples staying first::

        Gemm(flatten(transpose(x)), W) = Gemm(flatten(x), P' W)

    Exporters of frameworks with channels last write this between the last convolution and the first
    dense layer. Declined where sizes are not fixed, where samples do not stay first, and where
    what is in between, or the weight, is read elsewhere as well.
    """

    name: ClassVar[str] = "permute-weights"
    summary: ClassVar[str] = "take out transposes before dense layers by ordering their weights"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Take out every ``Transpose`` that can be."""
        del context
        result, facts, names = Result(model), Facts(model), Names(model)
        for layer in nodes_of(model):
            found = _chain(layer)
            if found is None:
                continue
            transpose, reshape = found
            order = _order(transpose, reshape, facts)
            if isinstance(order, str):
                result.decline(layer, because=order)
                continue
            weight = layer.inputs[1]
            array = constant(weight)
            if weight is None or array is None or array.ndim != 2 or weight.is_graph_output():
                continue
            if not feeds_only(weight, layer):
                result.decline(layer, because="its weight is read elsewhere as well")
                continue
            rows = layer.attributes.get_int("transB", 0) if layer.op_type == "Gemm" else 0
            placed = np.empty_like(array)
            if rows:
                placed[:, order] = array
            else:
                placed[order] = array
            name = names.fresh(f"{weight.name}.ordered")
            layer.replace_input_with(1, add_initializer(graph_of(layer), name, placed))
            _remove(weight)
            reshape.replace_input_with(0, transpose.inputs[0])
            graph_of(transpose).remove(transpose, safe=True)
            result.rewrote(layer)
        return result


def _remove(weight: ir.Value) -> None:
    node = weight.producer()
    if node is not None:
        graph_of(node).remove(node, safe=True)
    elif weight.graph is not None and weight.name:
        del weight.graph.initializers[weight.name]


def _chain(layer: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The ``Transpose`` and what flattens it before ``layer``, if nothing else reads them."""
    if not is_op(layer, "Gemm", "MatMul") or layer.inputs[0] is None:
        return None
    reshape = layer.inputs[0].producer()
    if not is_op(reshape, "Reshape", "Flatten") or not feeds_only(reshape.outputs[0], layer):
        return None
    source = reshape.inputs[0]
    transpose = None if source is None else source.producer()
    if source is None or not is_op(transpose, "Transpose") or not feeds_only(source, reshape):
        return None
    return transpose, reshape


def _order(transpose: ir.Node, reshape: ir.Node, facts: Facts) -> Array | str:
    """Which entry of a sample each flattened one is, or why that is not known."""
    source, flat = transpose.inputs[0], reshape.outputs[0]
    if source is None:
        return "it transposes nothing"
    facts.follow_to(flat)
    before, after = facts.dims(source), facts.dims(flat)
    if before is None or after is None or len(before) < 2 or len(after) != 2:
        return "what is flattened is not known to become a matrix"
    perm = list(transpose.attributes.get_ints("perm", tuple(reversed(range(len(before))))))
    sizes = [size for size in before[1:] if isinstance(size, int)]
    if len(sizes) < len(before) - 1:
        return "the sizes of a sample are not fixed"
    if perm[0] != 0:
        return "samples do not stay first"
    if after[1] != math.prod(sizes) or not _keeps_samples(reshape):
        return "it does not flatten whole samples"
    inner: Sequence[int] = [axis - 1 for axis in perm[1:]]
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(inner).reshape(-1)


def _keeps_samples(reshape: ir.Node) -> bool:
    """Whether the shape it makes does not depend on the order of the axes of a sample."""
    if reshape.op_type == "Flatten":
        return reshape.attributes.get_int("axis", 1) == 1
    target = constant(reshape.inputs[1]) if len(reshape.inputs) > 1 else None
    return target is not None and target.shape == (2,) and int(target[1]) != 0
