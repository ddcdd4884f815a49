"""How much each channel of a group matters, judged by the weights alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from ..analysis.channels import ChannelGroup, Member
from ..base import Array
from ..graph import constant, is_op

Criterion: TypeAlias = Literal[
    "auto",
    "reconstruction",
    "activation",
    "soft-threshold",
    "l2",
    "l1",
    "bn-scale",
    "geometric-median",
    "random",
]

ON_DATA = ("reconstruction", "activation", "soft-threshold")
"""Criteria that look at samples."""

Scores: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
"""One number per channel, at least 0, larger where the channel matters more; their mean is 1."""


def importance(group: ChannelGroup, criterion: Criterion, rng: np.random.Generator) -> Scores:
    """The importance of each channel of ``group``.

    ``l2`` is the Euclidean norm of what a channel takes up in all weights of the group: the rows
    that make it and the columns that read it. Each weight counts in units of its own mean over
    the channels, because a network may scale one layer down and the next one up without a change
    in its answers. ``l1`` is the same with absolute values, ``random`` draws from ``rng``. Biases
    and other vectors do not count.

    ``bn-scale`` is the absolute factor of the batch normalizations of the group (Liu et al. 2017);
    ``l2`` where there is none. ``geometric-median`` is the sum of distances to what the other
    channels take up: near the median are those that others can stand in for (He et al. 2019).
    """
    if criterion == "random":
        return relative(rng.uniform(size=group.size))
    if criterion == "bn-scale" and (scales := _scales(group)) is not None:
        return relative(scales)
    if criterion == "geometric-median":
        return relative(_distances(group))
    power = 1 if criterion == "l1" else 2
    return relative(norms(group, power) ** (1 / power))


def norms(group: ChannelGroup, power: int, threshold: float = 0.0) -> Scores:
    """The sums of powers of what each channel takes up, each weight in units of its own mean.

    Weights count after soft thresholding: nearer to zero by ``threshold`` times their root mean
    square, and zero if that is nearer.
    """
    total = np.zeros(group.size)
    for member, weight in _weights(group):
        size = np.abs(weight)
        if threshold:
            size = np.maximum(size - threshold * np.sqrt(np.square(weight).mean()), 0)
        others = tuple(axis for axis in range(weight.ndim) if axis != member.axis)
        sums = (size**power).sum(axis=others)
        own = np.bincount(member.channels, sums[member.positions], minlength=group.size)
        if own.any():
            total += own / own.mean()
    return total


def relative(scores: Scores) -> Scores:
    """``scores`` with the mean 1."""
    mean = float(scores.mean())
    return scores / mean if mean > 0 else np.ones(len(scores))


def _weights(group: ChannelGroup) -> Iterator[tuple[Member, Array]]:
    for member in group.members:
        weight = constant(member.value)
        if weight is not None and weight.ndim >= 2:
            yield member, weight.astype(np.float64)


def _scales(group: ChannelGroup) -> Scores | None:
    total = np.zeros(group.size)
    for member in group.members:
        uses = member.value.uses()
        scale = constant(member.value)
        if scale is None or not any(is_op(n, "BatchNormalization") and i == 1 for n, i in uses):
            continue
        sizes = np.abs(scale.astype(np.float64))[member.positions]
        total += np.bincount(member.channels, sizes, minlength=group.size)
    return total if total.any() else None


def _distances(group: ChannelGroup) -> Scores:
    total = np.zeros(group.size)
    for member, weight in _weights(group):
        order = np.argsort(member.channels, kind="stable")
        counts = np.bincount(member.channels, minlength=group.size)
        if (counts != counts[0]).any():
            continue
        rows = np.moveaxis(weight, member.axis, 0)[member.positions[order]]
        rows = rows.reshape(group.size, -1)
        squares = np.square(rows).sum(axis=1)
        apart = squares[:, np.newaxis] + squares - 2 * rows @ rows.T
        own = np.sqrt(np.maximum(apart, 0)).sum(axis=1)
        if own.any():
            total += own / own.mean()
    return total
