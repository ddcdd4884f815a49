"""Which channels go, so that only a given part of the multiply-accumulates (MACs) is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ..analysis.channel_labels import Labels
from .importance import Scores
from .slice import Mask
from .work import Work

Scope: TypeAlias = Literal["global", "uniform"]


def select(
    scores: Sequence[Scores],
    work: Work,
    budget: int,
    scope: Scope,
    *,
    min_channels: int,
    steps: Sequence[int],
) -> list[Mask]:
    """Masks of the channels that stay, so that ``work`` is at most ``budget`` MACs.

    Args:
        scores: For each group the importance of its channels, with the mean 1, so that no group
            is emptied for its small weights.
        work: The MACs; groups without any stay whole.
        budget: How many may be left. If even the least that may stay is more, that comes back.
        scope: ``global`` takes the least important channels of all, ``uniform`` the same part of
            each group.
        min_channels: How many channels of each group stay at least.
        steps: For each group, what the number of channels that stay is a multiple of. Where the
            budget cannot be met that way, half of it, and so on.
    """
    blocks = [
        block
        for group, (each, step) in enumerate(zip(scores, steps, strict=True))
        if work.of_group[group]
        for block in _blocks(group, each, step, min_channels)
    ]
    blocks.sort(key=lambda b: (b.halvings, b.score if scope == "global" else b.part))
    # Half a MAC is room for rounding: the true number is whole.
    return _cut(blocks, work, budget + 0.5, [len(score) for score in scores])


@dataclass(frozen=True)
class _Block:
    """Channels of a group that go together, after all blocks of the group before it.

    ``part`` of the group is gone then. ``halvings`` is how often the step had to be halved.
    """

    group: int
    channels: Labels
    score: float
    part: float
    halvings: int


def _blocks(group: int, scores: Scores, step: int, min_channels: int) -> Iterator[_Block]:
    """The channels of a group in the order in which they may go."""
    order = np.argsort(scores, kind="stable")
    gone, size, halvings = 0, len(order), 0
    while (left := size - gone) > min_channels:
        while step > 1 and left - (left % step or step) < max(min_channels, step):
            step, halvings = step // 2, halvings + 1
        channels = order[gone : gone + (left % step or step)]
        gone += len(channels)
        yield _Block(group, channels, float(scores[channels].mean()), gone / size, halvings)


def _cut(blocks: Sequence[_Block], work: Work, budget: float, sizes: Sequence[int]) -> list[Mask]:
    """Remove ``blocks`` in order until the budget is met, then put back what turns out to fit."""
    masks = [np.ones(size, dtype=np.bool_) for size in sizes]
    left = [node.left(masks).macs for node in work.nodes]

    def put(block: _Block, stays: bool) -> None:
        masks[block.group][block.channels] = stays
        for number in work.of_group[block.group]:
            left[number] = work.nodes[number].left(masks).macs

    removed: list[_Block] = []
    for block in blocks:
        if work.sum(left) <= budget:
            break
        put(block, False)
        removed.append(block)
    settled: set[int] = set()
    for block in reversed(removed):
        if block.group not in settled:
            put(block, True)
            if work.sum(left) > budget:
                put(block, False)
                settled.add(block.group)
    return masks
