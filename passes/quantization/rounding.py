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

    def bounds(self, integers: Array, index: int) -> tuple[Array, Array]:
        """The least and the greatest integer of input ``index`` for each output, partners given."""
        other = self.partner[index]
        if other < 0:
            return np.full_like(self.most, -self.limit), np.full_like(self.most, self.limit)
        beside = integers[:, other]
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
        inverse = np.linalg.inv(moments[np.ix_(order, order)])
        return cls(order, np.linalg.cholesky((inverse + inverse.T) / 2).T)

    def round(self, weight: Array, grid: Grid) -> Array:
        """Integers for ``weight[output, input]``, chosen one input after the other."""
        left = np.ascontiguousarray(weight[:, self.order].T)
        integers = np.zeros_like(weight)
        for at, index in enumerate(self.order):
            # What is not chosen yet counts as zero, so the later one of a pair gives way.
            chosen = np.clip(np.rint(left[at] / grid.scale), *grid.bounds(integers, index))
            integers[:, index] = chosen
            off = (left[at] - chosen * grid.scale) / self.factor[at, at]
            left[at + 1 :] -= np.outer(self.factor[at, at + 1 :], off)
        return integers


def improved(integers: Array, weight: Array, moments: Array, grid: Grid) -> Array:
    """``integers``, changed one at a time as long as that makes the error smaller."""
    integers = integers.copy()
    gradient = (integers * grid.scale[:, None] - weight) @ moments
    curvature = np.diag(moments)
    for _ in range(SWEEPS):
        changes = 0
        for index in range(len(moments)):
            if curvature[index] <= 0:
                continue
            best = integers[:, index] - gradient[:, index] / (curvature[index] * grid.scale)
            new = np.clip(np.rint(best), *grid.bounds(integers, index))
            step = (new - integers[:, index]) * grid.scale
            (moved,) = np.nonzero(step)
            if moved.size:
                integers[moved, index] = new[moved]
                gradient[moved] += step[moved, None] * moments[index]
                changes += moved.size
        if not changes:
            break
    return integers
