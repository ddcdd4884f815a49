"""Fit the combination of class probabilities to class numbers by logistic regression."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...backends.errors import DataError
from ..base import Array

LEAST: Final = 1e-7
"""The smallest probability whose logarithm is taken as it is."""
PENALTIES: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths of regularization that :func:`fit_logistic` chooses from."""
FOLDS: Final = 4

_STEPS: Final = 120
_MEMORY: Final = 10
_FLAT: Final = 1e-6


@dataclass(frozen=True)
class Logistic:
    """``softmax([log p_1 .. log p_n] @ weight + bias)`` along the last axis.

    ``log p`` is the logarithm of an answer of probabilities, and the ``LogSoftmax`` of one of raw
    scores, which are those with ``raw``.
    """

    weight: Array
    bias: Array
    raw: tuple[bool, ...]

    def __call__(self, answers: Sequence[Array]) -> Array:
        """The combined answer, in float64."""
        rows = np.concatenate(
            [log_of(one, raw=raw) for one, raw in zip(answers, self.raw, strict=True)], axis=-1
        )
        return _softmax(rows @ self.weight + self.bias)


def is_raw(answer: Array) -> bool:
    """Whether ``answer`` does not hold probabilities along its last axis."""
    sums = answer.astype(np.float64).sum(-1)
    return bool((answer < 0).any() or np.abs(sums - 1).max(initial=0) > 1e-2)


def log_of(answer: Array, *, raw: bool) -> Array:
    """Logarithms of probabilities, in float64."""
    scores = answer.astype(np.float64)
    if not raw:
        return np.log(np.maximum(scores, LEAST))
    scores = scores - scores.max(-1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))


def fit_logistic(answers: Sequence[Array], targets: Array) -> Logistic:
    """The most likely combination with penalized weights (Wolpert, 1992; Hosmer and Lemeshow).

    Inputs are scaled to unit variance, the bias is not penalized, and the penalty is the one of
    :data:`PENALTIES` with the greatest likelihood of samples left out, in :data:`FOLDS` parts of
    every n-th sample. Ends as certain of itself as the samples allow: fit to samples that members
    were not trained on, or to perturbed ones, since members are sure of those that they know.

    Args:
        answers: One array of probabilities or raw scores a member, classes along the last axis.
        targets: One-hot vectors, or probabilities, in the same shape.

    Raises:
        DataError: There are fewer samples than parts, or the targets are no probabilities.
    """
    if is_raw(targets):
        raise DataError(
            "'logistic' is fitted to classes, and the labels are none",
            hint="give one class number for each sample, or fit another combination",
        )
    raw = tuple(is_raw(one) for one in answers)
    rows = np.concatenate(
        [log_of(one, raw=kind) for one, kind in zip(answers, raw, strict=True)], axis=-1
    )
    rows, wanted = rows.reshape(-1, rows.shape[-1]), targets.reshape(-1, targets.shape[-1])
    if len(rows) < FOLDS:
        raise DataError(f"'logistic' needs {FOLDS} samples or more, and there are {len(rows)}")
    center, spread = rows.mean(0), np.maximum(rows.std(0), 1e-6)
    scaled = np.concatenate([(rows - center) / spread, np.ones((len(rows), 1))], axis=1)
    part = np.arange(len(rows)) % FOLDS
    losses = np.zeros(len(PENALTIES))
    for fold in range(FOLDS):
        kept, left = part != fold, part == fold
        weight = np.zeros((scaled.shape[1], wanted.shape[1]))
        for at, penalty in enumerate(PENALTIES):
            weight = _fit(scaled[kept], wanted[kept], penalty, weight)
            losses[at] += _loss(scaled[left], wanted[left], 0, weight)[0]
    weight = np.zeros((scaled.shape[1], wanted.shape[1]))
    for penalty in PENALTIES[: int(losses.argmin()) + 1]:
        weight = _fit(scaled, wanted, penalty, weight)
    slope = weight[:-1] / spread[:, None]
    return Logistic(slope, weight[-1] - center @ slope, raw)


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _loss(rows: Array, wanted: Array, penalty: float, weight: Array) -> tuple[float, Array]:
    """The mean negative logarithm of the likelihood, with the penalty, and its gradient."""
    found = _softmax(rows @ weight)
    loss = -float(np.sum(wanted * np.log(np.maximum(found, 1e-300)))) / len(rows)
    slope = rows.T @ (found - wanted) / len(rows)
    slope[:-1] += penalty * weight[:-1]
    return loss + penalty * float(np.sum(weight[:-1] ** 2)) / 2, slope


def _fit(rows: Array, wanted: Array, penalty: float, start: Array) -> Array:
    return minimize(lambda weight: _loss(rows, wanted, penalty, weight), start)


def minimize(function: Callable[[Array], tuple[float, Array]], start: Array) -> Array:
    """Where a smooth convex function is least, by L-BFGS (Liu and Nocedal, 1989)."""
    point, (value, slope) = start, function(start)
    history: deque[tuple[Array, Array]] = deque(maxlen=_MEMORY)
    for _ in range(_STEPS):
        if np.abs(slope).max(initial=0) < _FLAT:
            break
        direction = -_by_curvature(slope, history)
        descent = float(np.sum(direction * slope))
        step = 1.0 if history else min(1.0, 1 / float(np.abs(slope).sum()))
        while True:
            there = point + step * direction
            new, turned = function(there)
            if new <= value + 1e-4 * step * descent:
                break
            step /= 2
            if step < 1e-10:
                return point
        moved, bent = there - point, turned - slope
        if float(np.sum(moved * bent)) > 0:
            history.append((moved, bent))
        point, value, slope = there, new, turned
    return point


def _by_curvature(slope: Array, history: deque[tuple[Array, Array]]) -> Array:
    """``slope`` times the inverse curvature, as far as the last steps tell (two-loop recursion)."""
    found, shares = slope.copy(), []
    for moved, bent in reversed(history):
        share = float(np.sum(moved * found) / np.sum(moved * bent))
        shares.append(share)
        found -= share * bent
    if history:
        moved, bent = history[-1]
        found *= float(np.sum(moved * bent) / np.sum(bent * bent))
    for (moved, bent), share in zip(history, reversed(shares), strict=True):
        found += (share - float(np.sum(bent * found) / np.sum(moved * bent))) * moved
    return found
