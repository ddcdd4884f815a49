"""How layers with weights of their own in each branch run as one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ..base import Array
from .bundles import Bundle
from .stack_recurrent import RECURRENT, recurrent
from .stack_rules import Inputs, Rule, the_only
from .stack_views import take
from .stacker import NEW, Stacked, Stacker, Unfit


def conv(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """A wider ``Conv`` on what all read, a grouped one on channels that are stacked."""
    node, count = bundle.first, len(bundle.nodes)
    kernels = stacker.weights(bundle.reads(1))
    group = node.attributes.get_int("group", 1)
    stacked = inputs[0]
    if stacked is None:
        source = _shared(stacker, bundle)
        if group > 1:
            raise Unfit("it is grouped, and would read its channels once for each branch")
    else:
        source = stacker.along(stacked, 1).value
        group *= count
    operands = [source, stacker.constant(np.concatenate(kernels))]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        operands.append(stacker.constant(np.concatenate(stacker.weights(bundle.reads(2)))))
    value = stacker.op("Conv", operands, {"group": group}, like=node)
    return Stacked(value, count, stacker.dims(node.outputs[0]), 1)


def per_channel(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """A normalization of each channel by itself, on all channels of all branches."""
    stacked = stacker.along(the_only(inputs), 1)
    if len(bundle.first.outputs) > 1:
        raise Unfit("it is in training mode")
    parameters = [
        stacker.constant(np.concatenate(stacker.weights(bundle.reads(at))))
        for at in range(1, len(inputs))
    ]
    value = stacker.op(bundle.first.op_type, [stacked.value, *parameters], like=bundle.first)
    return Stacked(value, stacked.count, stacked.dims, 1)


def layer_norm(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """One normalization by ones, scaled and shifted by each branch's own numbers."""
    stacked = stacker.in_front(the_only(inputs))
    node = bundle.first
    if len(node.outputs) > 1:
        raise Unfit("it also answers with the statistics")
    axis = node.attributes.get_int("axis", -1) % stacked.rank
    scales = stacker.weights(bundle.reads(1))
    ones = stacker.constant(np.ones_like(scales[0]))
    value = stacker.op("LayerNormalization", [stacked.value, ones], {"axis": axis + 1}, like=node)
    normal = Stacked(value, stacked.count, stacked.dims, NEW)
    value = stacker.op("Mul", [value, stacker.operand(bundle.reads(1), normal)])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        value = stacker.op("Add", [value, stacker.operand(bundle.reads(2), normal)])
    return Stacked(value, stacked.count, stacked.dims, NEW)


def embedding(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Rows of all branches' tables beside each other, looked up at once; else as :func:`take`."""
    if inputs[0] is not None:
        return take(stacker, bundle, inputs)
    node = bundle.first
    axis = node.attributes.get_int("axis", 0)
    if inputs[1] is not None or axis != 0:
        raise Unfit("it gathers something else than rows of a table")
    indices = stacker.shared(bundle.reads(1))
    tables = stacker.weights(bundle.reads(0))
    if indices is None or tables[0].ndim != 2:
        raise Unfit("it gathers something else than rows of a table")
    dims = stacker.dims(node.outputs[0])
    table = stacker.constant(np.concatenate(tables, axis=1))
    value = stacker.op("Gather", [table, indices], like=node)
    return Stacked(value, len(bundle.nodes), dims, len(dims) - 1)


@dataclass(frozen=True)
class _Linear:
    """``x @ weight + bias`` of each branch: ``weight`` is [count, k, n], ``bias`` [count, n]."""

    weight: Array
    bias: Array | None

    @property
    def count(self) -> int:
        """How many branches."""
        return len(self.weight)


def _gemm(stacker: Stacker, bundle: Bundle) -> _Linear:
    node = bundle.first
    if node.attributes.get_int("transA", 0):
        raise Unfit("it reads its input transposed")
    weights = stacker.weights(bundle.reads(1))
    if node.attributes.get_int("transB", 0):
        weights = [weight.T for weight in weights]
    dtype = weights[0].dtype
    alpha = dtype.type(node.attributes.get_float("alpha", 1.0))
    beta = dtype.type(node.attributes.get_float("beta", 1.0))
    stacked = np.stack(weights)
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        biases = stacker.weights(bundle.reads(2))
        if biases[0].ndim > 2 or (biases[0].ndim == 2 and len(biases[0]) > 1):
            raise Unfit("its bias differs from row to row")
        flat = [np.broadcast_to(one.reshape(-1), stacked.shape[-1:]) for one in biases]
        bias = np.stack(flat) * beta
    return _Linear(stacked if alpha == 1 else stacked * alpha, bias)


def _matmul(stacker: Stacker, bundle: Bundle) -> _Linear:
    weights = stacker.weights(bundle.reads(1))
    if weights[0].ndim != 2:
        raise Unfit("its weight is no matrix")
    return _Linear(np.stack(weights), None)


@dataclass(frozen=True)
class Matrices:
    """The rule of ``Gemm`` and ``MatMul``: one wide layer on what all read, else as ``form`` says.

    ``matmul`` writes a batched ``MatMul``. ``conv`` writes a grouped ``Conv`` over one pixel, where
    each branch's values are one row; it is faster for one sample and slower for many.
    """

    form: str

    def __call__(self, stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
        """Write the bundle as one layer."""
        node = bundle.first
        if node.op_type == "MatMul" and all(one is not None for one in inputs):
            return self._product(stacker, bundle, inputs)
        linear = (_gemm if node.op_type == "Gemm" else _matmul)(stacker, bundle)
        dims = stacker.dims(node.outputs[0])
        stacked = inputs[0]
        if any(one is not None for one in inputs[1:]):
            raise Unfit("a weight is not constant")
        if stacked is None:
            return self._wide(stacker, bundle, linear, len(dims) - 1)
        if stacked.rank == 2 and self.form == "conv" and stacked.axis == 1:
            return self._pixels(stacker, stacked, linear)
        return self._batched(stacker, stacker.in_front(stacked), linear)

    def _product(self, stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
        pair = [stacker.in_front(one) for one in inputs if one is not None]
        if pair[0].rank != pair[1].rank or pair[0].rank < 2:
            raise Unfit("it broadcasts matrices of different ranks")
        value = stacker.op("MatMul", [one.value for one in pair])
        return Stacked(value, pair[0].count, stacker.dims(bundle.first.outputs[0]), NEW)

    def _wide(self, stacker: Stacker, bundle: Bundle, linear: _Linear, axis: int) -> Stacked:
        source = _shared(stacker, bundle)
        weight = stacker.constant(np.concatenate(list(linear.weight), axis=-1))
        if linear.bias is not None:
            operands = [source, weight, stacker.constant(linear.bias.reshape(-1))]
            value = stacker.op("Gemm", operands)
        else:
            value = stacker.op("MatMul", [source, weight])
        return Stacked(value, linear.count, stacker.dims(bundle.first.outputs[0]), axis)

    def _pixels(self, stacker: Stacker, stacked: Stacked, linear: _Linear) -> Stacked:
        count, _, width = linear.weight.shape
        source = stacked.value
        if not stacked.tail:
            source = stacker.reshape(source, [0, count * stacked.size(1), 1, 1])
        kernel = np.concatenate([weight.T for weight in linear.weight])[..., None, None]
        operands = [source, stacker.constant(kernel)]
        if linear.bias is not None:
            operands.append(stacker.constant(linear.bias.reshape(-1)))
        value = stacker.op("Conv", operands, {"group": count, "kernel_shape": [1, 1]})
        return Stacked(value, count, (stacked.dims[0], width), 1, tail=2)

    def _batched(self, stacker: Stacker, stacked: Stacked, linear: _Linear) -> Stacked:
        count, depth, width = linear.weight.shape
        between = (1,) * (stacked.rank - 2)
        weight = linear.weight.reshape(count, *between, depth, width)
        value = stacker.op("MatMul", [stacked.value, stacker.constant(weight)])
        if linear.bias is not None:
            bias = linear.bias.reshape(count, *between, 1, width)
            value = stacker.op("Add", [value, stacker.constant(bias)])
        return Stacked(value, count, (*stacked.dims[:-1], width), NEW)


def _shared(stacker: Stacker, bundle: Bundle) -> ir.Value:
    source = stacker.shared(bundle.reads(0))
    if source is None:
        raise Unfit("the branches do not read the same")
    return source


LAYERS: Final[Mapping[str, Rule]] = {
    "Conv": conv,
    "BatchNormalization": per_channel,
    "InstanceNormalization": per_channel,
    "LayerNormalization": layer_norm,
    "Gather": embedding,
    **dict.fromkeys(RECURRENT, recurrent),
}
"""The rule of each layer; that of ``Gemm`` and ``MatMul`` is :class:`Matrices`."""

SEEDS: Final = frozenset({"Conv", "Gemm", "MatMul", "Gather", *RECURRENT})
"""Layers that are worth stacking where all branches read the same."""
