"""Grids for blocks of weights that do not let a few outliers decide.

Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": the error of a
block is measured by ``sum |error|^p`` with ``p`` below 1, to which a large error adds little more
than a middling one. That is no sum of squares, but with an ``e`` for each weight it becomes one by
halves: given the grid, the best ``e`` is the error drawn towards zero by a known amount; given
``e``, the best grid is that of least squares for ``weights - e``. Needs no data.
"""

from __future__ import annotations

import numpy as np

from ..base import Array
from .blocks import TINY, Grid, covering, encoded, in_blocks, in_parts

POWER = 0.7
"""``p``."""

ROUNDS = 20

STIFFNESS = 10.0
"""How much it costs at first if ``e`` is not the error, in steps of the grid; it grows by a
twentieth each round."""


def fit_robust(rows: Array, bits: int, block: int, *, symmetric: bool) -> Grid:
    """Scales and zeros for ``rows[row, column]``, finite floats, in few ``bits``.

    Of all grids on the way the one with the least ``sum |error|^p`` is taken; the one that covers
    the block is the first.
    """
    parts = [_fit(in_blocks(one, block), bits, symmetric) for one in in_parts(rows)]
    scales, zeros = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Grid(bits, block, scales, zeros, symmetric)


def _fit(blocks: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    top = 2**bits - 1
    unit = np.abs(blocks).max(axis=-1, keepdims=True)
    unit = np.where(unit < TINY, np.float32(1), unit)
    blocks = blocks / unit
    scales, zeros = covering(blocks, bits, symmetric)
    first, best = np.abs(scales), (scales, zeros)
    least = np.full_like(scales, np.inf)
    stiffness = STIFFNESS
    for _ in range(ROUNDS):
        codes = encoded(blocks, scales, zeros, top)
        error = blocks - (codes - zeros) * scales
        size = (np.abs(error) ** POWER).sum(axis=-1, keepdims=True)
        better = size < least
        least = np.where(better, size, least)
        best = (np.where(better, scales, best[0]), np.where(better, zeros, best[1]))
        wanted = blocks - _drawn_to_zero(error / scales, stiffness) * scales
        if not symmetric:
            mean = (codes - wanted / scales).mean(axis=-1, keepdims=True)
            zeros = np.clip(np.rint(mean), 0, top)
        steps = codes - zeros
        squares = (steps * steps).sum(axis=-1, keepdims=True)
        refit = (steps * wanted).sum(axis=-1, keepdims=True) / np.where(squares > 0, squares, 1)
        scales = np.where(np.abs(refit) > first * np.float32(1e-3), refit, scales)
        stiffness *= 1.05
    scales = best[0] * unit
    scales = np.where(np.abs(scales) < TINY, np.float32(1), scales)
    return scales[..., 0], best[1][..., 0].astype(np.uint8)


def _drawn_to_zero(error: Array, stiffness: float) -> Array:
    """The ``e`` with the least ``|e|^p + stiffness / 2 |e - error|^2``, nearly."""
    size = np.maximum(np.abs(error), np.float32(1e-8))
    return np.asarray(np.sign(error) * np.maximum(size - size ** (POWER - 1) / stiffness, 0))
