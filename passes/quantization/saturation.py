"""Weights that no kernel overflows 16 bits with, as close to the float ones as that allows.

``vpmaddubsw``, which the 8-bit kernels of x86 use where the CPU has no VNNI, multiplies unsigned
by signed bytes and adds neighbours (0, 1), (2, 3), … along K in saturating 16 bits. So a pair of
weights overflows if ``high * |q0 + q1| > 32767``, ``high`` being the largest activation. Weights
of opposite sign cannot: their products take from each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ...backends.targets import Target
from ..base import Array
from ..graph import is_op
from .arithmetic import INT16_MAX, QMAX, WMAX, Weight, power_of_two

EXACT_FEATURES = frozenset(
    {"avx512_vnni", "avx_vnni", "amx_int8", "neon", "asimd", "asimddp", "i8mm", "sve"}
)
"""CPU features with which 8-bit kernels add products up in 32 bits: VNNI, AMX and Arm's."""

_SCALES = 9
"""How many scales are tried between the one that wastes nothing and the one that clips nothing."""

_MEAN_OVER_SPREAD = 1.0
"""``mean² / variance`` of an activation, as an estimate: what the sum of a row's errors costs,
beside their squares. Half a normal distribution, behind a Relu, has 1.75, a centred one 0."""


def can_saturate(target: Target) -> bool:
    """Whether some kernel of ``target`` adds pairs in 16 bits; unknown CPUs count as if so."""
    return target.name == "portable" or not target.features & EXACT_FEATURES


def largest_sum(high: int = QMAX) -> int:
    """The largest ``|q0 + q1|`` that does not overflow with activations up to ``high``."""
    return INT16_MAX // max(high, 1)


def as_rows(node: ir.Node, weight: Array, axis: int | None) -> Array | None:
    """``weight`` as ``[scales, rows, K]``, K in the order in which ONNX Runtime walks it.

    That is height, width, channel for ``Conv`` and the rows of the matrix for ``MatMul`` and
    ``Gemm``. ``None`` for a depthwise ``Conv``, whose kernels multiply in 32 bits.
    """
    if is_op(node, "Conv") and weight.shape[1] == 1:
        group = node.attributes.get_int("group", 1)
        if group > 1 and group == weight.shape[0]:
            return None
    return _rows(node, weight, axis)


def _rows(node: ir.Node, weight: Array, axis: int | None) -> Array:
    if is_op(node, "Conv"):
        return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], 1, -1)
    if axis is None:
        columns = np.swapaxes(weight, -1, -2)
        return columns.reshape(1, -1, columns.shape[-1])
    return (weight if axis == 0 else weight.T)[:, np.newaxis]


def _like_weight(rows: Array, node: ir.Node, weight: Array, axis: int | None) -> Array:
    """The inverse of :func:`as_rows`."""
    if is_op(node, "Conv"):
        channels, inner, *sizes = weight.shape
        return np.moveaxis(rows.reshape(channels, *sizes, inner), -1, 1)
    if axis is None:
        shape = (*weight.shape[:-2], weight.shape[-1], weight.shape[-2])
        return np.swapaxes(rows.reshape(shape), -1, -2)
    return rows[:, 0] if axis == 0 else rows[:, 0].T


def worst_sums(rows: Array) -> Array:
    """Per scale, the largest ``|q0 + q1|`` of neighbours; of shape ``[scales]``."""
    return np.asarray(np.abs(_sums(rows)).max(axis=(1, 2), initial=0))


def _sums(rows: Array) -> Array:
    even = rows.shape[-1] // 2 * 2
    wide: Array = rows.astype("int32" if rows.dtype.kind == "i" else "float64")
    return np.asarray(wide[..., 0:even:2] + wide[..., 1:even:2])


def keep_from_saturating(
    node: ir.Node,
    weight: Array,
    quantized: Weight,
    high: int = QMAX,
    *,
    powers: bool = False,
) -> tuple[Weight, int]:
    """``quantized`` such that nothing overflows, and how many of its channels could.

    A channel that cannot overflow stays as it is. For each other one the scales are tried from its
    own to the one on which its worst pair just fits. On a finer scale more pairs have to be brought
    down, on a coarser one all weights are rounded more; the one with the least expected error wins.
    A pair is brought down by the same amount on both sides, which is nearest to what it was.

    Args:
        node: The ``Conv``, ``MatMul`` or ``Gemm``.
        weight: In float.
        quantized: ``weight`` in 8 bits, no heed taken.
        high: The largest activation that can occur, zero point included. Nothing but 255 is sound
            for any input: what lies beyond the range that samples brought is clipped there, and no
            earlier. A tensor whose samples end before has its grid from elsewhere: from the tensor
            that it is a part of, from the other sign, from a power of two.
        powers: Whether scales are powers of two.
    """
    values = as_rows(node, quantized.values, quantized.axis)
    limit = largest_sum(high)
    if values is None or limit >= 2 * WMAX:
        return quantized, 0
    worst = worst_sums(values)
    bad = np.flatnonzero(worst > limit)
    if not bad.size:
        return quantized, 0
    exact = _rows(node, weight, quantized.axis)[bad].astype(np.float64)
    scales = np.atleast_1d(quantized.scale)
    own = scales[bad].astype(np.float64)
    # Rounding adds up to one to a sum; what is still beyond the limit is brought down as well.
    stretch = np.maximum(np.abs(_sums(exact)).max(axis=(1, 2)) / own / limit, 1.0)

    least = np.full(bad.size, np.inf)
    chosen, chosen_scale = values[bad], scales[bad]
    for share in np.linspace(0, 1, _SCALES):
        scale = (own * stretch**share).astype(np.float32)
        scale = power_of_two(scale) if powers else scale
        steps = exact / scale.astype(np.float64)[:, None, None]
        candidate = _brought_down(steps, limit)
        error = (candidate - steps) * scale[:, None, None]
        noise = (error**2).sum(axis=-1) + _MEAN_OVER_SPREAD * error.sum(axis=-1) ** 2
        better = noise.sum(axis=-1) < least
        least = np.where(better, noise.sum(axis=-1), least)
        chosen = np.where(better[:, None, None], candidate.astype(np.int8), chosen)
        chosen_scale = np.where(better, scale, chosen_scale)

    values, scales = values.copy(), scales.copy()
    values[bad], scales[bad] = chosen, chosen_scale
    safe = np.ascontiguousarray(_like_weight(values, node, weight, quantized.axis))
    return replace(quantized, values=safe, scale=scales.reshape(quantized.scale.shape)), bad.size


def _brought_down(steps: Array, limit: int) -> Array:
    """``steps`` rounded, with ``|q0 + q1| <= limit`` for all neighbours of like sign."""
    rounded = np.clip(np.rint(steps), -WMAX, WMAX)
    even = steps.shape[-1] // 2 * 2
    first, second = rounded[..., 0:even:2], rounded[..., 1:even:2]
    over = np.abs(first + second) > limit
    left, right = steps[..., 0:even:2][over], steps[..., 1:even:2][over]
    wanted = np.sign(left + right) * limit
    moved = np.rint(left - (left + right - wanted) / 2)
    moved = np.clip(moved, np.maximum(wanted - WMAX, -WMAX), np.minimum(wanted + WMAX, WMAX))
    first[over], second[over] = moved, wanted - moved
    return rounded
