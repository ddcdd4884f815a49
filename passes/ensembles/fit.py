"""Fit how answers are combined, in closed form or nearly so, to what they should have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ...backends.errors import DataError
from ..base import Array
from .combiners import Linear

RIDGES: Final = tuple(10.0**exponent for exponent in range(-6, 3))
"""Strengths of regularization that :func:`fit_stack` chooses from, relative to the mean square
of the answers."""

_STEPS: Final = 5000


def targets_of(labels: Array, answer: Array) -> Array:
    """``labels`` in the shape of ``answer``: class numbers become one-hot vectors.

    Raises:
        DataError: They are neither class numbers nor answers.
    """
    if labels.shape == answer.shape:
        return labels.astype(np.float64)
    classes = answer.shape[-1] if answer.ndim > 1 else 0
    numbers = labels.dtype.kind in "iub" and labels.shape == answer.shape[:-1]
    if not numbers or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise DataError(
            f"the labels are {labels.dtype}{list(labels.shape)}, but the members answer "
            f"{list(answer.shape)}",
            hint="one whole number below the number of classes for each sample, or one answer "
            "in the members' own shape",
        )
    return np.eye(classes)[labels.astype(np.int64)]


def fit_weights(answers: Sequence[Array], targets: Array) -> tuple[float, ...]:
    """The weights, not negative and with sum 1, whose mean comes closest to ``targets``.

    Least squares over the simplex by accelerated projected gradient (Nesterov, 1983) on the
    Gram matrix, so that the samples are read once.

    Args:
        answers: One array of answers a member.
        targets: What they should be, in the same shape.
    """
    apart = np.stack([(one.astype(np.float64) - targets).ravel() for one in answers])
    gram = apart @ apart.T
    rate = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), np.finfo(np.float64).tiny)
    weights = ahead = np.full(len(answers), 1 / len(answers))
    for step in range(1, _STEPS + 1):
        last, weights = weights, _to_simplex(ahead - rate * (gram @ ahead))
        ahead = weights + (step - 1) / (step + 2) * (weights - last)
    return tuple(float(weight) for weight in weights)


def _to_simplex(point: Array) -> Array:
    """The nearest point without negative entries and with sum 1 (Duchi et al., 2008)."""
    ordered = np.sort(point)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(point) + 1)
    limit = excess[np.flatnonzero(ordered > excess)[-1]]
    found: Array = np.maximum(point - limit, 0)
    return found


def fit_stack(answers: Sequence[Array], targets: Array) -> Linear:
    """The linear map from all answers to ``targets``, by ridge regression.

    The strength is the one of :data:`RIDGES` with the least leave-one-out error, which the
    singular values give in closed form (Golub, Heath and Wahba, 1979). The bias is not penalized.

    Args:
        answers: One array a member, samples along the first axis, classes along the last.
        targets: What they should be.

    Raises:
        DataError: There are fewer than two samples.
    """
    width = targets.shape[-1]
    rows = np.concatenate([one.astype(np.float64) for one in answers], axis=-1)
    rows, wanted = rows.reshape(-1, rows.shape[-1]), targets.reshape(-1, width)
    if len(rows) < 2:
        raise DataError("two samples are the fewest that 'stack' can be fitted to")
    center, middle = rows.mean(0), wanted.mean(0)
    left, values, right = np.linalg.svd(rows - center, full_matrices=False)
    projected = left.T @ (wanted - middle)

    def error(ridge: float) -> float:
        shrink = values**2 / (values**2 + ridge)
        residual = wanted - middle - left @ (shrink[:, None] * projected)
        leverage = (left**2) @ shrink + 1 / len(rows)
        return float(np.mean((residual / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2))

    scale = max(float(np.mean(values**2)), np.finfo(np.float64).tiny)
    ridge = min((scale * one for one in RIDGES), key=error)
    weight = right.T @ ((values / (values**2 + ridge))[:, None] * projected)
    return Linear(weight, middle - center @ weight)
