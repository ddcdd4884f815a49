"""Digits that no network was trained on, made of those it was: turned, sheared, scaled, moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .zoo.digits import Digits

TURN, SCALE, SHEAR, MOVE = 0.12, 0.08, 0.1, 0.8
"""Standard deviations: radians, of the logarithm, of a pixel a pixel, pixels."""


def perturbed(digits: Digits, copies: int, seed: int = 0) -> Digits:
    """``copies`` of every digit, each changed by chance, with its label."""
    rng = np.random.default_rng(seed)
    images = np.concatenate([_warped(digits.images, rng) for _ in range(copies)])
    return Digits(images, np.tile(digits.labels, copies))


def _warped(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each image through a random affine map, by bilinear interpolation, black outside."""
    count, height, width = images.shape
    turn, shear = rng.normal(0, TURN, count), rng.normal(0, SHEAR, count)
    scale = np.exp(rng.normal(0, SCALE, (count, 2)))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.empty((count, 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * scale[:, 0], cos * shear - sin * scale[:, 1]
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * scale[:, 0], sin * shear + cos * scale[:, 1]
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    flat = (grid - middle).reshape(-1, 2)
    read = np.einsum("nij,pj->npi", matrix, flat) + middle
    read += rng.normal(0, MOVE, (count, 1, 2))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    read = np.clip(read + 1, 0, [height + 0.999, width + 0.999])
    low = np.floor(read).astype(np.int64)
    part = (read - low).astype(np.float32)
    rows, columns = low[..., 0], low[..., 1]
    which = np.arange(count)[:, None]
    down, right = part[..., 0], part[..., 1]
    found = (
        padded[which, rows, columns] * (1 - down) * (1 - right)
        + padded[which, rows + 1, columns] * down * (1 - right)
        + padded[which, rows, columns + 1] * (1 - down) * right
        + padded[which, rows + 1, columns + 1] * down * right
    )
    return np.asarray(np.round(found), np.uint8).reshape(images.shape)
