"""Ridge least squares from moments, which add up batch by batch.

For rows ``a`` of inputs and ``y`` of targets, the weight and bias that minimize
``sum |a W + b - y|^2 + penalty |W - prior|^2`` need only the centred second moments
``G = sum (a - mean a)^T (a - mean a)`` and ``C = sum (a - mean a)^T (y - mean y)``::

    W = (G + penalty I)^-1 (C + penalty prior)
    b = mean y - mean a W

(Hoerl and Kennard 1970, shrunk towards ``prior`` instead of zero.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import Array


@dataclass(frozen=True)
class Solution:
    """``weight[problem, input, output]``, ``bias[problem, output]``, and how well they fit.

    ``residual`` is the part of the targets' variance that is not explained, over all problems.
    """

    weight: Array
    bias: Array
    residual: float


class Moments:
    """Sums over rows for several least-squares problems with the same rows.

    Takes ``8 * problems * inputs * (inputs + outputs)`` bytes, however many rows there are. Values
    are taken relative to the first batch's means, so that large means cost no precision.
    """

    def __init__(self, problems: int, inputs: int, outputs: int) -> None:
        self.rows = 0
        self._gram = np.zeros((problems, inputs, inputs))
        self._cross = np.zeros((problems, inputs, outputs))
        self._input_sum = np.zeros((problems, 1, inputs))
        self._target_sum = np.zeros((problems, 1, outputs))
        self._target_power = 0.0
        self._origin = (np.zeros((problems, 1, inputs)), np.zeros((problems, 1, outputs)))

    def add(self, inputs: Array, targets: Array) -> None:
        """Add rows: ``inputs[problem, row, input]`` and ``targets[problem, row, output]``."""
        if not self.rows:
            self._origin = (inputs.mean(axis=1, keepdims=True), targets.mean(axis=1, keepdims=True))
        inputs, targets = inputs - self._origin[0], targets - self._origin[1]
        transposed = inputs.swapaxes(1, 2)
        self._gram += transposed @ inputs
        self._cross += transposed @ targets
        self._input_sum += inputs.sum(axis=1, keepdims=True, dtype=np.float64)
        self._target_sum += targets.sum(axis=1, keepdims=True, dtype=np.float64)
        self._target_power += float(np.square(targets).sum(dtype=np.float64))
        self.rows += inputs.shape[1]

    def solve(self, ridge: float, prior: Array) -> Solution:
        """The least-squares weights and biases, drawn towards ``prior[problem, input, output]``.

        The penalty is ``ridge`` times the mean variance of the problem's inputs, per row. An
        input that never varies keeps its prior weight.
        """
        means = self._input_sum / self.rows, self._target_sum / self.rows
        transposed = means[0].swapaxes(1, 2)
        gram = self._gram - self.rows * (transposed @ means[0])
        cross = self._cross - self.rows * (transposed @ means[1])
        size = gram.shape[1]
        scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
        penalty = ridge * scale + np.finfo(np.float64).tiny ** 0.5
        # Solving for the change from the prior is exact where nothing has to change.
        change = np.linalg.solve(gram + penalty * np.eye(size), cross - gram @ prior)
        weight = prior + change
        bias = self._origin[1] + means[1] - (self._origin[0] + means[0]) @ weight
        return Solution(weight, bias[:, 0], self._residual(gram, cross, means[1], weight))

    def _residual(self, gram: Array, cross: Array, target_mean: Array, weight: Array) -> float:
        variance = self._target_power - self.rows * float(np.square(target_mean).sum())
        explained = float((weight * (2 * cross - gram @ weight)).sum())
        return max(1 - explained / variance, 0.0) if variance > 0 else 0.0
