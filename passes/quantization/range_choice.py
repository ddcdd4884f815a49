"""Where to cut the range of an activation, from a histogram of its values.

A range that holds every value wastes its 256 steps on the rarest ones. What is cut off is clipped,
which costs more for each value and less for all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import Array
from .arithmetic import QMAX, Range

BINS = 2048

FRACTIONS = np.linspace(1.0, 0.25, 76)
"""The parts of the whole range that are tried."""

RAREST = 0.001
"""The share of the values that :func:`least_divergence` cuts off at most."""


@dataclass(frozen=True)
class Histogram:
    """How often values lie in each of ``counts.size`` equal parts of ``seen``.

    ``zeros`` of them are exactly zero, which every grid holds.
    """

    seen: Range
    counts: Array
    zeros: int

    @property
    def centres(self) -> Array:
        """The middle of each part."""
        edges = np.linspace(self.seen.low, self.seen.high, self.counts.size + 1)
        return np.asarray((edges[:-1] + edges[1:]) / 2)


def percentile(histogram: Histogram, percent: float) -> Range:
    """The range that leaves out ``(100 - percent) / 2`` percent of the values at either end."""
    total = histogram.counts.sum()
    below = np.cumsum(histogram.counts)
    out = total * (100 - percent) / 200
    edges = np.linspace(histogram.seen.low, histogram.seen.high, histogram.counts.size + 1)
    low = edges[np.searchsorted(below, out, side="right")] if out > 0 else edges[0]
    high = edges[np.searchsorted(below, total - out, side="left") + 1] if out > 0 else edges[-1]
    return _with_zero(float(low), float(high), histogram.seen)


def least_error(histogram: Histogram) -> Range:
    """The range with the least expected squared error of rounding and clipping.

    Either end is cut on its own. Inside the error of rounding is uniform, ``step^2 / 12``.
    """
    low, high = min(histogram.seen.low, 0.0), max(histogram.seen.high, 0.0)
    x, counts = histogram.centres, histogram.counts.astype(np.float64)
    rounded = counts.sum() - histogram.zeros

    def clipped(ends: Array, sign: float) -> Array:
        over = np.maximum(sign * (x[np.newaxis] - ends[:, np.newaxis]), 0)
        return np.asarray((over * over) @ counts)

    lows, highs = low * FRACTIONS, high * FRACTIONS
    step = (highs[np.newaxis] - lows[:, np.newaxis]) / QMAX
    noise = rounded * step * step / 12
    total = clipped(lows, -1.0)[:, np.newaxis] + clipped(highs, 1.0)[np.newaxis] + noise
    at, to = np.unravel_index(np.argmin(total), total.shape)
    return Range(float(lows[at]), float(highs[to]))


def least_divergence(histogram: Histogram) -> Range:
    """The range whose 256 steps tell least from the whole distribution.

    That is by the Kullback-Leibler divergence of the clipped distribution and of what the steps
    make of it (Migacz 2017, "8-bit Inference with TensorRT"); both ends are cut alike. With few
    values a histogram is ragged, and the fewer parts a step takes together the better it looks, so
    no more than :data:`RAREST` of the values are cut off.
    """
    low, high = min(histogram.seen.low, 0.0), max(histogram.seen.high, 0.0)
    x, counts = histogram.centres, histogram.counts.astype(np.float64)
    best, least = Range(low, high), np.inf
    for fraction in FRACTIONS:
        cut = Range(low * fraction, high * fraction)
        if counts[(x < cut.low) | (x > cut.high)].sum() > RAREST * counts.sum():
            break
        divergence = _divergence(x, counts, cut)
        if divergence < least:
            best, least = cut, divergence
    return best


def _divergence(x: Array, counts: Array, cut: Range) -> float:
    inside = (x >= cut.low) & (x <= cut.high)
    if not inside.any():
        return np.inf
    kept, places = counts[inside], x[inside]
    whole = kept.copy()
    whole[0] += counts[x < cut.low].sum()
    whole[-1] += counts[x > cut.high].sum()
    steps = np.rint((places - cut.low) / max(cut.high - cut.low, 1e-300) * QMAX).astype(int)
    filled = kept > 0
    total = np.bincount(steps, kept, QMAX + 1)
    shares = np.bincount(steps, filled.astype(np.float64), QMAX + 1)
    spread = np.where(filled, total[steps] / np.maximum(shares[steps], 1), 0.0)
    p, q = whole / whole.sum(), spread / max(spread.sum(), 1e-300)
    known = p > 0
    return float((p[known] * np.log(p[known] / np.maximum(q[known], 1e-12))).sum())


def _with_zero(low: float, high: float, seen: Range) -> Range:
    """The range from ``low`` to ``high``, or ``seen`` where that leaves nothing."""
    return Range(low, high) if low < high or (low, high) != (0.0, 0.0) else seen
