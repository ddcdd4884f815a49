"""Backward elimination: which channels the layers that read them can best do without.

A layer computes ``a W`` from inputs ``a`` with centred second moments ``G``. Weights that miss its
results by ``change`` from the best ones cost ``change^T H change`` with ``H = G + penalty I``. Of
all weights that are zero in the block ``B`` of one channel's inputs, the best ones cost::

    W_B^T ((H^-1)_BB)^-1 W_B

more, and are ``W - (H^-1)_:B ((H^-1)_BB)^-1 W_B``; the inverse for the inputs that are left
follows from that for all by the same subtraction (Hassibi and Stork 1992, for blocks of weights as
in Frantar and Alistarh 2022). So one inversion serves all removals, and every step sees how well
the channels that are left make up for the one that goes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis.channel_labels import Labels
from ..base import Array

TOGETHER = 64
"""One of so many channels that are left goes at a time, at least one."""


@dataclass
class Reader:
    """A layer that reads channels.

    ``inverse[problem, input, input]`` is that of ``H``, ``weight[problem, input, output]`` is best
    for the inputs that are left, and ``blocks[channel]`` tells the inputs of each channel. What it
    misses is counted in units of ``power``, the variance of its results.
    """

    inverse: Array
    weight: Array
    blocks: Labels
    power: float

    @classmethod
    def of(cls, gram: Array, weight: Array, blocks: Labels, penalty: float) -> Reader:
        """From the moments of its inputs; ``penalty`` is relative to their mean variance."""
        size = gram.shape[1]
        weight = weight.astype(np.float64)
        power = float((weight * (gram @ weight)).sum())
        hessian = gram.copy()
        scale = np.trace(gram, axis1=1, axis2=2)[:, np.newaxis] / size
        diagonal = np.arange(size)
        # Inputs that never vary cost nothing, whatever their weights are.
        hessian[:, diagonal, diagonal] += penalty * scale + (scale == 0)
        return cls(np.linalg.inv(hessian), weight, blocks, power or 1.0)

    def costs(self, channels: Labels) -> Array:
        """What the removal of each of ``channels`` costs, as part of the results' variance."""
        blocks = self.blocks[channels]
        inner = self.inverse[:, blocks[:, :, np.newaxis], blocks[:, np.newaxis, :]]
        weight = self.weight[:, blocks]
        cost = (weight * np.linalg.solve(inner, weight)).sum(axis=(0, 2, 3))
        found: Array = np.maximum(cost, 0) / self.power
        return found

    def remove(self, channels: Labels) -> None:
        """Make the weights those that are best without ``channels``."""
        block = self.blocks[channels].ravel()
        columns = self.inverse[:, :, block]
        inner = columns[:, block]
        self.weight -= columns @ np.linalg.solve(inner, self.weight[:, block])
        self.weight[:, block] = 0
        self.inverse -= columns @ np.linalg.solve(inner, columns.swapaxes(1, 2))
        # What is left of them is rounding, which must not grow: they never come back.
        self.inverse[:, block, :] = 0
        self.inverse[:, :, block] = 0
        self.inverse[:, block, block] = 1


@dataclass(frozen=True)
class Elimination:
    """Channels in the order in which they go, and what that costs.

    ``costs[i]`` is the part of the variance that the readers together miss once ``order[: i + 1]``
    is gone. ``weights`` holds, for each number of channels left that was asked for, the weight of
    each reader.
    """

    order: Labels
    costs: Array
    weights: dict[int, list[Array]]


def eliminate(readers: Sequence[Reader], channels: int, levels: Collection[int]) -> Elimination:
    """Remove the ``channels`` of a group one after the other, each time the cheapest one.

    ``readers`` are used up. ``levels`` are the numbers of channels left at which weights are kept.
    """
    left = np.arange(channels)
    order: list[Labels] = []
    costs: list[Array] = []
    weights: dict[int, list[Array]] = {}
    total = 0.0
    wanted = sorted(levels, reverse=True)
    while len(left) > 1:
        cost = np.sum([reader.costs(left) for reader in readers], axis=0)
        step = max(1, len(left) // TOGETHER)
        ahead = [level for level in wanted if level < len(left)]
        if ahead:
            step = min(step, len(left) - ahead[0])
        cheapest = np.argsort(cost, kind="stable")[: min(step, len(left) - 1)]
        gone = left[cheapest]
        costs.append(total + np.cumsum(cost[cheapest]))
        total = float(costs[-1][-1])
        order.append(gone)
        left = np.setdiff1d(left, gone)
        for reader in readers:
            reader.remove(gone)
        if len(left) in levels:
            weights[len(left)] = [reader.weight.copy() for reader in readers]
        if not ahead:
            break
    # Below the last level nothing is asked for: the rest goes in the order of what it costs now.
    rest = left[np.argsort(np.sum([reader.costs(left) for reader in readers], axis=0))]
    order.append(rest)
    costs.append(np.full(len(rest), total))
    return Elimination(np.concatenate(order), np.concatenate(costs), weights)
