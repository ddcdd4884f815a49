"""Codes that make up for each other's rounding errors on what a layer is fed.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2023): columns are rounded one after the other, and what is still in float takes up the error that
each of them leaves in ``weight @ inputs``, as far as it can.
"""

from __future__ import annotations

import numpy as np

from ..base import Array
from .blocks import Grid

_DAMPING = 0.01
"""Added to the diagonal of the Gram matrix, as a part of its mean."""

_LAZY = 128
"""Columns whose errors are put into the rest of the matrix at once."""


def compensated(rows: Array, gram: Array, grid: Grid) -> Array:
    """The codes of ``rows`` on ``grid``, as :meth:`Grid.encode` gives them.

    Columns that weigh most come first, when there is still much to make up for them. The grid stays
    as it was found for the float weights, so no column needs to know where it went.

    Args:
        rows: ``[rows, columns]``.
        gram: ``[columns, columns]``, the sum of ``x x'`` over inputs ``x`` of the layer.
        grid: Of the rows.
    """
    columns = rows.shape[1]
    diagonal = np.diag(gram).copy()
    if not np.isfinite(gram).all() or diagonal.sum() <= 0:
        return grid.encode(rows)
    order = np.argsort(-diagonal, kind="stable")
    inverse = _inverse_factor(gram[np.ix_(order, order)])
    rest = np.ascontiguousarray(rows.T[order], np.float64)  # a column of the weight is a row
    codes = np.empty(rest.shape, np.uint8)
    scales, zeros = grid.scales.T.astype(np.float64), grid.zeros.T.astype(np.float64)
    top = 2**grid.bits - 1
    for start in range(0, columns, _LAZY):
        end = min(start + _LAZY, columns)
        errors = np.empty((end - start, len(rows)))
        for at in range(start, end):
            scale, zero = scales[order[at] // grid.block], zeros[order[at] // grid.block]
            code = np.clip(np.rint(rest[at] / scale) + zero, 0, top)
            codes[order[at]] = code
            error = (rest[at] - (code - zero) * scale) / inverse[at, at]
            rest[at + 1 : end] -= np.outer(inverse[at, at + 1 : end], error)
            errors[at - start] = error
        rest[end:] -= inverse[start:end, end:].T @ errors
    filled = grid.encode(rows)
    filled[:, :columns] = codes.T
    return filled


def _inverse_factor(gram: Array) -> Array:
    """The upper factor ``U`` of ``inv(gram) = U' U``, with as much damping as it takes."""
    gram = gram.astype(np.float64)
    mean = float(np.diag(gram).mean())
    damping = _DAMPING
    while True:
        damped = gram + np.eye(len(gram)) * (damping * mean)
        try:
            inverse = np.linalg.inv(damped)
            return np.linalg.cholesky((inverse + inverse.T) / 2).T
        except np.linalg.LinAlgError:
            damping *= 10
