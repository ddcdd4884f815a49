"""Run the classifier behind a global pool as a convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..graph import constant, feeds_only, graph_of, is_op, nodes_of, take_over
from .constants import ConstantWriter, drop_unused

_POOLS: Final = ("GlobalAveragePool", "GlobalMaxPool")
_BETWEEN: Final = ("Add", "Clip", "Concat", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "Relu")
_LEAST: Final = 1 << 16
"""Elements of a weight from which its way through memory is what takes time."""
_MOST_IMAGES: Final = 2


@dataclass(frozen=True)
class ConvHeads(Pass):
    """Write ``Gemm`` behind a global pool as ``Conv`` with a kernel of one element.

    What a pool leaves of an image is ``[N, C, 1, 1]``, and ``Gemm(Flatten(x), W, b)`` is
    ``Flatten(Conv(x, W, b))`` there, with ``W`` as ``[M, C, 1, 1]``. For a single image both do
    nothing but read the weight once, and ONNX Runtime's blocked convolution reads it in one
    stream: 0.7 to 0.9 of the time of ``Gemm`` for one image and 0.9 for two, for 1024 to 2048
    channels and 1000 classes, but 1.2 times as long for four.

    So it is done for up to two images: a batch that is not fixed counts as one, as everywhere,
    unless ``--dim`` says more. Declined for weights that can be replaced or are scaled, for
    channels that are no whole blocks, and where the pool or the matrix is read elsewhere as well.
    Only float32, and only for CPUs.
    """

    name: ClassVar[str] = "conv-heads"
    summary: ClassVar[str] = "run the classifier behind a global pool as a convolution"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite every such ``Gemm``."""
        result = Result(model)
        heads = [head for node in nodes_of(model) if (head := _head(node)) is not None]
        if not heads or context.target.name != "cpu":
            return result
        facts, constants = Facts(model), ConstantWriter(model)
        for gemm, view, weight in heads:
            bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
            reason = _refusal(gemm, view, weight, facts, context.dims)
            if not reason and weight.shape[1] % context.target.channel_block:
                reason = "its channels do not fill blocks"
            if reason:
                result.decline(gemm, because=reason)
                continue
            graph, label = graph_of(gemm), gemm.outputs[0].name
            kernel = np.ascontiguousarray(weight)[:, :, None, None]
            inputs = [view.inputs[0], constants.add(graph, f"{label}.weight", kernel, gemm)]
            if (summand := constant(bias)) is not None:
                inputs.append(constants.add(graph, f"{label}.bias", summand.reshape(-1), gemm))
            conv = ir.Node("", "Conv", inputs, name=gemm.name)
            conv.outputs[0].name = constants.names.fresh(f"{label}.conv")
            conv.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            flat = ir.Node("", "Flatten", conv.outputs, [ir.AttrInt64("axis", 1)])
            graph.insert_before(gemm, [conv, flat])
            take_over(flat.outputs[0], gemm.outputs[0])
            read = [*gemm.inputs[1:], *view.inputs[1:]]
            graph.remove([gemm, view], safe=True)
            drop_unused(*read)
            result.rewrote(conv)
        return result


def _head(node: ir.Node) -> tuple[ir.Node, ir.Node, Array] | None:
    """``node`` if it is a classifier, the view before it, and its weight as ``[M, C]``."""
    if not is_op(node, "Gemm") or node.inputs[0] is None:
        return None
    view = node.inputs[0].producer()
    if not is_op(view, "Flatten", "Reshape", "Squeeze") or view.inputs[0] is None:
        return None
    pool = view.inputs[0].producer()
    if not is_op(pool, *_POOLS) or pool.inputs[0] is None:
        return None
    source = pool.inputs[0].producer()
    while is_op(source, *_BETWEEN) and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    weight = constant(node.inputs[1])
    if not is_op(source, "Conv") or weight is None or weight.size < _LEAST:
        return None
    return node, view, weight if node.attributes.get_int("transB", 0) else weight.T


def _refusal(
    gemm: ir.Node, view: ir.Node, weight: Array, facts: Facts, sizes: Mapping[str, int]
) -> str:
    """Why ``gemm`` has to stay; empty if it need not."""
    attributes = gemm.attributes
    scales = (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0))
    if attributes.get_int("transA", 0) or scales != (1.0, 1.0):
        return "it scales or transposes"
    if weight.dtype != np.float32:
        return "the blocked kernels are for float32"
    pooled, flat = view.inputs[0], view.outputs[0]
    if pooled is None or not feeds_only(pooled, view) or not feeds_only(flat, gemm):
        return "what it reads is read elsewhere as well"
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    if bias is not None:
        summand = constant(bias)
        if summand is None or summand.size != weight.shape[0] or summand.shape[-1:] == (1,):
            return "what it adds is not one constant for each class"
    facts.follow_to(flat)
    dims, after = facts.dims(pooled), facts.dims(flat)
    if dims is None or dims[1:] != (weight.shape[1], 1, 1) or after != dims[:2]:
        return "it is not known to read one row for each image"
    images = dims[0]
    if (images if isinstance(images, int) else sizes.get(images, 1)) > _MOST_IMAGES:
        return "for so many images a matrix product is faster"
    return ""
