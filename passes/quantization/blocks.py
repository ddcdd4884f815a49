"""The arithmetic of weights in few bits: ``weight = scale * (code - zero)``, block by block.

A matrix is taken row by row, a row being all the weights that one output channel or one token has,
and a row in blocks of neighbours with a scale and a zero of their own. The last block of a row is
filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..base import Array

ROOM = 1 << 22
"""Weights that are searched at a time: what is in between takes about 20 times as many bytes."""

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.72)
"""What part of a block's range is tried to be covered: the rest is clipped, the grid finer."""

_REFITS = 2

TINY = np.finfo(np.float32).tiny
"""What is below counts as zero."""


@dataclass(frozen=True)
class Grid:
    """Scale and zero of every block.

    Attributes:
        bits: Bits in a code: 4 or 8.
        block: Weights in a block.
        scales: ``[rows, blocks]``, float32; a negative one turns the block around.
        zeros: ``[rows, blocks]``, uint8: the code that stands for zero.
        symmetric: All zeros are the middle code.
    """

    bits: int
    block: int
    scales: Array
    zeros: Array
    symmetric: bool

    def encode(self, rows: Array) -> Array:
        """The nearest codes to ``[rows, columns]``, as ``[rows, blocks * block]``, uint8."""
        codes = encoded(in_blocks(rows, self.block), *self._parameters(), 2**self.bits - 1)
        return codes.reshape(len(rows), -1).astype(np.uint8)

    def decode(self, codes: Array, columns: int) -> Array:
        """What ``codes`` stand for, as ``[rows, columns]``, float32."""
        scales, zeros = self._parameters()
        blocks = codes.reshape(*self.scales.shape, self.block).astype(np.float32)
        weights = (blocks - zeros) * scales
        return weights.reshape(len(codes), -1)[:, :columns]

    def _parameters(self) -> tuple[Array, Array]:
        return self.scales[..., None], self.zeros[..., None].astype(np.float32)


def fit(
    rows: Array,
    bits: int,
    block: int,
    *,
    symmetric: bool,
    search: bool,
    importance: Array | None = None,
) -> Grid:
    """Scales and zeros for ``rows``.

    Without ``search`` a block's grid covers all its weights; symmetric ones put the largest on the
    lowest code, which has no counterpart. With it the grid is the one with the smallest squared
    error of several narrower ones, each moved to where it is best for the codes it leads to.

    Args:
        rows: ``[rows, columns]``, finite floats.
        bits: 4 or 8.
        block: Weights in a block.
        symmetric: Whether zero is the middle code.
        search: Whether to look for the grid with the smallest error.
        importance: ``[columns]``: what an error in a column weighs.
    """
    weights = None
    if importance is not None:
        weights = in_blocks(importance[None].astype(np.float32), block)
        weights = weights + 1e-6 * max(float(weights.max()), 1e-30)  # no block without any
    parts = [
        _fit(in_blocks(one, block), bits, symmetric, search, weights) for one in in_parts(rows)
    ]
    scales, zeros = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Grid(bits, block, scales, zeros, symmetric)


def _fit(
    blocks: Array, bits: int, symmetric: bool, search: bool, importance: Array | None
) -> tuple[Array, Array]:
    top = 2**bits - 1
    if not search:
        scales, zeros = covering(blocks, bits, symmetric)
        return scales[..., 0], zeros[..., 0].astype(np.uint8)
    unit = np.abs(blocks).max(axis=-1, keepdims=True)
    unit = np.where(unit < TINY, np.float32(1), unit)
    blocks = blocks / unit  # whose squares neither overflow nor vanish
    first, zeros = covering(blocks, bits, symmetric)
    best = (first, zeros)
    least = np.full_like(first, np.inf)
    for shrink in _SHRINKS:
        scales, at = first * np.float32(shrink), zeros
        for _ in range(_REFITS + 1):
            codes = encoded(blocks, scales, at, top)
            steps = codes - at
            error = _sum((blocks - steps * scales) ** 2, importance)
            better = error < least
            least = np.where(better, error, least)
            best = (np.where(better, scales, best[0]), np.where(better, at, best[1]))
            if not symmetric:
                mean = _sum(codes - blocks / scales, importance) / _sum(
                    np.ones_like(blocks), importance
                )
                at = np.clip(np.rint(mean), 0, top)
                steps = codes - at
            squares = _sum(steps**2, importance)
            refit = _sum(steps * blocks, importance) / np.where(squares > 0, squares, 1)
            scales = np.where(np.abs(refit) > _least(first), refit, scales)
    scales = best[0] * unit
    scales = np.where(np.abs(scales) < TINY, np.float32(1), scales)
    return scales[..., 0], best[1][..., 0].astype(np.uint8)


def in_parts(rows: Array) -> Iterator[Array]:
    """``rows``, as many at a time as there is :data:`ROOM` for."""
    step = max(1, ROOM // max(1, rows.shape[1]))
    for start in range(0, max(1, len(rows)), step):
        yield rows[start : start + step]


def covering(blocks: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """The grid that holds all of a block, and zero; scales are never zero."""
    if symmetric:
        largest = np.abs(blocks).argmax(axis=-1)[..., None]
        extreme = np.take_along_axis(blocks, largest, -1)
        scales = (extreme / np.float32(-(2 ** (bits - 1)))).astype(np.float32)
        zeros = np.full_like(scales, 2 ** (bits - 1))
    else:
        low = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
        high = np.maximum(blocks.max(axis=-1, keepdims=True), 0)
        # Each divided by itself: the difference of two large floats may be infinite.
        scales = (high / (2**bits - 1) - low / (2**bits - 1)).astype(np.float32)
        zeros = np.zeros_like(scales)
    scales = np.where(np.abs(scales) < TINY, np.float32(1), scales)
    if not symmetric:
        zeros = np.clip(np.rint(-low / scales), 0, 2**bits - 1)
    return scales, zeros


def encoded(blocks: Array, scales: Array, zeros: Array, top: int) -> Array:
    """The nearest codes from 0 to ``top``, in float."""
    return np.asarray(np.clip(np.rint(blocks / scales) + zeros, 0, top))


def _sum(values: Array, importance: Array | None) -> Array:
    weighted = values if importance is None else values * importance
    return np.asarray(weighted.sum(axis=-1, keepdims=True))


def _least(scales: Array) -> Array:
    return np.asarray(np.abs(scales) * np.float32(1e-3))


def in_blocks(rows: Array, block: int) -> Array:
    """``[rows, columns]`` as ``[rows, blocks, block]``, float32, filled up with zeros."""
    missing = -rows.shape[1] % block
    filled = np.pad(rows.astype(np.float32), ((0, 0), (0, missing)))
    return filled.reshape(len(rows), -1, block)


def packed(codes: Array, bits: int) -> Array:
    """``codes`` along the last axis, two to a byte where they have 4 bits, the first one low."""
    if bits == 8:
        return codes
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return np.ascontiguousarray(even[..., 0::2] | (even[..., 1::2] << 4))
