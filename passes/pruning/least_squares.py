"""Ridge least squares from moments, which add up batch by batch.

For rows ``a`` of inputs and ``y`` of targets, the weight and bias that minimize
``sum |a W + b - y|^2 + penalty |W - prior|^2`` need only the centred second moments
``G = sum (a - mean a)^T (a - mean a)`` and ``C = sum (a - mean a)^T (y - mean y)``::

    W = (G + penalty I)^-1 (C + penalty prior)
    b = mean y - mean a W

(Hoerl and Kennard 1970, drawn towards ``prior`` instead of zero.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..base import Array

TOGETHER = 2048
"""So many rows are multiplied at a time, or as many as there are inputs if that is less."""


@dataclass(frozen=True)
class Solution:
    """``weight[problem, input, output]``, ``bias[problem, 1, output]``, and how well they fit.

    ``residual`` is the part of the targets' variance that is not explained, over all problems.
    """

    weight: Array
    bias: Array
    ridge: float
    residual: float


@dataclass(frozen=True)
class Moments:
    """What least squares need to know of ``rows`` rows, for several problems at once.

    ``gram[problem, input, input]``, ``cross[problem, input, output]`` and ``power[problem, 1,
    output]`` are sums about the means ``input[problem, 1, input]`` and ``target[problem, 1,
    output]``.
    """

    rows: int
    input: Array
    target: Array
    gram: Array
    cross: Array
    power: Array

    @classmethod
    def of(cls, inputs: Array, targets: Array) -> Moments:
        """Of the rows ``inputs[problem, row, input]`` and ``targets[problem, row, output]``."""
        a, y = (array.mean(axis=1, keepdims=True, dtype=np.float64) for array in (inputs, targets))
        da, dy = inputs - a.astype(inputs.dtype), targets - y.astype(targets.dtype)
        transposed = da.swapaxes(1, 2)
        power = np.square(dy).sum(axis=1, keepdims=True, dtype=np.float64)
        return cls(inputs.shape[1], a, y, _double(transposed @ da), _double(transposed @ dy), power)

    def __add__(self, other: Moments) -> Moments:
        """Of the rows of both (the pairwise update of Chan, Golub and LeVeque 1983)."""
        rows = self.rows + other.rows
        da, dy = other.input - self.input, other.target - self.target
        share = other.rows / rows
        weighted = self.rows * share * da.swapaxes(1, 2)
        gram, cross = self.gram + other.gram, self.cross + other.cross
        gram += weighted @ da
        cross += weighted @ dy
        return Moments(
            rows,
            self.input + share * da,
            self.target + share * dy,
            gram,
            cross,
            self.power + other.power + self.rows * share * dy * dy,
        )

    def solve(self, ridge: float, prior: Array) -> Solution:
        """The least-squares weights and biases, drawn towards ``prior[problem, input, output]``.

        The penalty is ``ridge`` times the mean variance of the problem's inputs, per row. An
        input that never varies keeps its prior weight.
        """
        size = self.gram.shape[1]
        scale = np.trace(self.gram, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] / size
        penalized = self.gram.copy()
        diagonal = np.arange(size)
        penalized[:, diagonal, diagonal] += (ridge * scale + np.finfo(np.float64).tiny ** 0.5)[
            ..., 0
        ]
        # Solving for the change from the prior is exact where nothing has to change.
        change = np.linalg.solve(penalized, self.cross - self.gram @ prior)
        weight = prior + change
        bias = self.target - self.input @ weight
        variance = float(self.power.sum())
        residual = self.error(weight, bias) / variance if variance > 0 else 0.0
        return Solution(weight, bias, ridge, max(residual, 0.0))

    def error(self, weight: Array, bias: Array) -> float:
        """The sum of squares that ``weight`` and ``bias`` leave on these rows."""
        offset = self.input @ weight + bias - self.target
        inner = self.power.sum() - (weight * (2 * self.cross - self.gram @ weight)).sum()
        return float(inner + self.rows * np.square(offset).sum())


@dataclass
class Gathering:
    """Moments of rows that come in pieces: so many go together as make up for a sum of moments."""

    _waiting: list[tuple[Array, Array]] = field(default_factory=list)
    _total: Moments | None = None

    def add(self, inputs: Array, targets: Array) -> None:
        """Take the rows ``inputs[problem, row, input]`` and ``targets[problem, row, output]``."""
        if not inputs.shape[1]:
            return
        self._waiting.append((inputs, targets))
        rows = sum(one.shape[1] for one, _ in self._waiting)
        if rows >= min(inputs.shape[2], TOGETHER):
            self._flush()

    def moments(self) -> Moments | None:
        """Those of all rows so far; ``None`` where there was none."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        if not self._waiting:
            return
        inputs, targets = (
            pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
            for pieces in zip(*self._waiting, strict=True)
        )
        new = Moments.of(inputs, targets)
        self._total = new if self._total is None else self._total + new
        self._waiting.clear()


def best_ridge(known: Moments, held: Moments, prior: Array, ridges: Sequence[float]) -> float:
    """The one of ``ridges`` whose solution from ``known`` does best on the rows of ``held``."""

    def error(ridge: float) -> float:
        found = known.solve(ridge, prior)
        return held.error(found.weight, found.bias)

    return min(ridges, key=error)


def _double(array: Array) -> Array:
    return array.astype(np.float64, copy=False)
