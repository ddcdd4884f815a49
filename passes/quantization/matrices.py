"""The integers of a quantized layer as the matrices that it multiplies by."""

from __future__ import annotations

import numpy as np

from ..base import Array
from ..graph import constant
from ..pruning.layers import ConvLayer, Layer
from .quantized import QuantizedLayer

PAIR = 128
"""The sum of two integers that never saturates; see :mod:`.saturation`."""


def matrices(stored: Array, layer: QuantizedLayer, twin: Layer) -> Array:
    """``stored`` as ``twin`` sees its weight: ``[group, input, output]``."""
    if isinstance(twin, ConvLayer):
        groups = layer.node.attributes.get_int("group", 1)
        shaped = stored.reshape(groups, len(stored) // groups, -1).swapaxes(1, 2)
    else:
        shaped = (stored.T if twin.axes == (1, 0) else stored)[np.newaxis]
    return shaped.astype(np.float64)


def partners(twin: Layer, inputs: int) -> Array:
    """For each input the one that a kernel may add to it in 16 bits, in the order it walks them.

    That is height, width, channel for ``Conv``; depthwise kernels add nothing in 16 bits.
    """
    partner = np.full(inputs, -1)
    order = np.arange(inputs)
    if isinstance(twin, ConvLayer):
        weight = constant(twin.node.inputs[1])
        if weight is None or (weight.shape[1] == 1 and twin.depthwise):
            return partner
        order = order.reshape(weight.shape[1], -1).T.reshape(-1)
    even = inputs // 2 * 2
    partner[order[0:even:2]], partner[order[1:even:2]] = order[1:even:2], order[0:even:2]
    return partner


def largest_sums(integers: Array, partner: Array) -> Array:
    """``[group, output]``: the largest sum of a pair, none larger than there is or is safe."""
    first = np.flatnonzero(partner > np.arange(len(partner)))
    sums = np.abs(integers[:, first] + integers[:, partner[first]])
    return np.asarray(np.maximum(sums.max(axis=1, initial=0.0), PAIR))


def step_matrices(layer: QuantizedLayer, weight: Array) -> Array:
    """The steps of ``layer`` as ``[group, 1, output]``, for a ``weight[group, input, output]``."""
    steps = layer.scale.astype(np.float64).reshape(-1)
    shape = weight.shape[0], 1, weight.shape[2]
    return np.broadcast_to(steps, weight[:, 0].size).reshape(shape)
