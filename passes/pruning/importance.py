"""How much each channel of a group matters, judged by the weights alone."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ..analysis.channels import ChannelGroup
from ..graph import constant

Criterion: TypeAlias = Literal["auto", "reconstruction", "l2", "l1", "random"]

Scores: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
"""One number per channel, at least 0, larger where the channel matters more; their mean is 1."""


def importance(group: ChannelGroup, criterion: Criterion, rng: np.random.Generator) -> Scores:
    """The importance of each channel of ``group``.

    ``l2`` is the Euclidean norm of what a channel takes up in all weights of the group: the rows
    that make it and the columns that read it. Each weight counts in units of its own mean over
    the channels, because a network may scale one layer down and the next one up without a change
    in its answers. ``l1`` is the same with absolute values, ``random`` draws from ``rng``. Biases
    and other vectors do not count.
    """
    if criterion == "random":
        return _relative(rng.uniform(size=group.size))
    power = 2 if criterion == "l2" else 1
    total = np.zeros(group.size)
    for member in group.members:
        weight = constant(member.value)
        if weight is None or weight.ndim < 2:
            continue
        others = tuple(axis for axis in range(weight.ndim) if axis != member.axis)
        sums = (np.abs(weight.astype(np.float64)) ** power).sum(axis=others)
        own = np.bincount(member.channels, sums[member.positions], minlength=group.size)
        if own.any():
            total += own / own.mean()
    return _relative(total ** (1 / power))


def _relative(scores: Scores) -> Scores:
    mean = float(scores.mean())
    return scores / mean if mean > 0 else np.ones(len(scores))
