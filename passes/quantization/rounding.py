"""Integers for weights by the error that they make together, not each by its own.

For a layer with inputs of second moments ``H`` and the best float weights ``W``, integers ``q`` on
steps ``s`` leave the error ``(q s - W)^T H (q s - W)`` per output. Rounding each weight to its
nearest ignores that errors of weights whose inputs go together can cancel. Here the integers are
first chosen one input after the other, each error being passed on to the inputs that follow
(Frantar et al. 2022, "GPTQ"), and then improved one at a time until no single step helps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import Array

SWEEPS = 6
"""How often each integer is looked at again at most."""

BLOCK = 64
"""So many inputs are dealt with before their errors go to all the others at once."""


@dataclass(frozen=True)
class Grid:
    """The integers that a layer may use.

    Attributes:
        scale: ``[output]``, the step of each output.
        limit: The largest integer.
        partner: ``[input]``, the input that a kernel adds in 16 bits to this one, -1 for none.
        most: ``[output]``, the largest ``|q + q of the partner|``.
    """

    scale: Array
    limit: int
    partner: Array
    most: Array

    def bounds(self, integers: Array, index: int) -> tuple[Array | int, Array | int]:
        """The least and the greatest for input ``index``, given all ``integers[input, output]``."""
        other = self.partner[index]
        if other < 0:
            return -self.limit, self.limit
        beside = integers[other]
        low = np.maximum(-self.most - beside, -self.limit)
        return low, np.minimum(self.most - beside, self.limit)


def nearest(weight: Array, grid: Grid) -> Array:
    """``weight[output, input]``, each rounded to its nearest integer that the grid allows."""
    integers = np.clip(np.rint(weight / grid.scale[:, None]), -grid.limit, grid.limit)
    first = np.flatnonzero(grid.partner > np.arange(len(grid.partner)))
    second = grid.partner[first]
    excess = np.abs(integers[:, first] + integers[:, second]) - grid.most[:, None]
    # What is too much is taken from both alike: they have the same sign then.
    sign = np.sign(integers[:, first] + integers[:, second])
    half = np.ceil(np.maximum(excess, 0) / 2)
    rest = np.maximum(excess, 0) - half
    integers[:, first] -= sign * half
    integers[:, second] -= sign * rest
    return np.asarray(integers)


def error(integers: Array, weight: Array, moments: Array, grid: Grid) -> Array:
    """``[output]``: the squared error that ``integers`` leave."""
    off = integers * grid.scale[:, None] - weight
    return np.asarray(((off @ moments) * off).sum(axis=1))


@dataclass(frozen=True)
class Feedback:
    """In which order inputs are rounded, and how the error of each goes to those that follow."""

    order: Array
    factor: Array

    @classmethod
    def of(cls, moments: Array) -> Feedback:
        """For inputs with these second ``moments``, the largest first.

        Raises:
            LinAlgError: ``moments`` is not positive definite.
        """
        order = np.argsort(-np.diag(moments), kind="stable")
        # With the inputs in reverse, the inverse of a factor of the moments is one of the inverse.
        backwards = np.ix_(order[::-1], order[::-1])
        lower = _inverse(np.linalg.cholesky(moments[backwards]))
        return cls(order, np.ascontiguousarray(lower[::-1, ::-1]))

    def round(self, weight: Array, grid: Grid) -> Array:
        """Integers for ``weight[output, input]``, chosen one input after the other."""
        left = np.ascontiguousarray(weight[:, self.order].T)
        integers = np.zeros((weight.shape[1], weight.shape[0]))
        for start in range(0, len(left), BLOCK):
            block = slice(start, min(start + BLOCK, len(left)))
            factor, near = self.factor[block, block], left[block]
            off = np.empty_like(near)
            for at, index in enumerate(self.order[block]):
                # What is not chosen yet counts as zero, so the later one of a pair gives way.
                low, high = grid.bounds(integers, index)
                chosen = np.minimum(np.maximum(np.rint(near[at] / grid.scale), low), high)
                integers[index] = chosen
                off[at] = (near[at] - chosen * grid.scale) / factor[at, at]
                near[at + 1 :] -= factor[at, at + 1 :, None] * off[at]
            left[block.stop :] -= self.factor[block, block.stop :].T @ off
        return np.ascontiguousarray(integers.T)


def _inverse(lower: Array) -> Array:
    """The inverse of a lower triangular matrix, by halves."""
    size = len(lower)
    if size <= BLOCK:
        return np.asarray(np.linalg.inv(lower))
    half = size // 2
    found = np.zeros_like(lower)
    found[:half, :half] = _inverse(lower[:half, :half])
    found[half:, half:] = _inverse(lower[half:, half:])
    found[half:, :half] = -found[half:, half:] @ (lower[half:, :half] @ found[:half, :half])
    return found


def improved(integers: Array, weight: Array, moments: Array, grid: Grid) -> Array:
    """``integers``, changed one at a time as long as that makes the error smaller."""
    integers = np.ascontiguousarray(integers.T)
    gradient = moments @ (integers * grid.scale - weight.T)
    curvature = np.diag(moments)
    for _ in range(SWEEPS):
        changes = 0
        for start in range(0, len(moments), BLOCK):
            block = slice(start, min(start + BLOCK, len(moments)))
            inner, near = moments[block, block], gradient[block].copy()
            steps = np.zeros_like(near)
            for at, index in enumerate(range(block.start, block.stop)):
                if curvature[index] <= 0:
                    continue
                best = integers[index] - near[at] / (curvature[index] * grid.scale)
                low, high = grid.bounds(integers, index)
                new = np.minimum(np.maximum(np.rint(best), low), high)
                moved = new - integers[index]
                if moved.any():
                    steps[at] = moved * grid.scale
                    integers[index] = new
                    near[at + 1 :] += inner[at + 1 :, at, None] * steps[at]
                    changes += 1
            if steps.any():
                gradient += moments[:, block] @ steps
        if not changes:
            break
    return np.ascontiguousarray(integers.T)
