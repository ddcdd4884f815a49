"""How many channels of each group stay, from what the loss of some costs and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis.channel_labels import Labels
from .importance import Scores
from .sensitivity import Curve
from .slice import Mask
from .work import Left, Work

BLOCKS = 2.0
"""Channels go in whole blocks unless that loses so many times as much as parts of blocks would."""


@dataclass(frozen=True)
class Ranked:
    """A group: its channels in the order in which they go, and what is lost on the way."""

    order: Labels
    curve: Curve
    step: int

    def counts(self, step: int, least: int) -> list[int]:
        """How many channels may be left, falling."""
        size = len(self.order)
        return [size, *range(size - (size % step or step), max(least, step) - 1, -step)]

    def scores(self) -> Scores:
        """The place of each channel in the order, with the mean 1."""
        places = np.empty(len(self.order))
        places[self.order] = np.arange(1, len(self.order) + 1)
        scores: Scores = places / places.mean()
        return scores

    def mask(self, left: int) -> Mask:
        """Which channels stay where ``left`` do."""
        mask = np.ones(len(self.order), dtype=np.bool_)
        mask[self.order[: len(mask) - left]] = False
        return mask


def allocate(groups: Sequence[Ranked], work: Work, budget: float, least: int) -> list[Mask]:
    """Masks of the channels that stay, so that ``work`` is at most ``budget`` MACs.

    Losses of groups add up in this plan. Time and again channels go where that loses least for
    what it saves: half of that are the MACs, and half those that kernels do for them, because the
    half of a block that is left takes as long as the whole. What is left is a multiple of each
    group's ``step``, or of half of it and so on where the budget cannot be met otherwise, or where
    whole blocks lose :data:`BLOCKS` times as much. If even the least that may stay is more than the
    budget, that comes back.
    """
    plans = []
    for halvings in range(max((group.step for group in groups), default=1).bit_length()):
        plan = _plan(groups, work, budget, least, halvings)
        plans.append(plan)
        if max(group.step >> halvings for group in groups) <= 1:
            break
    fitting = [plan for plan in plans if plan[1] <= budget] or plans[-1:]
    best = min(loss for _, _, loss in fitting)
    chosen = next(left for left, _, loss in fitting if loss <= BLOCKS * best + 1e-12)
    return [group.mask(count) for group, count in zip(groups, chosen, strict=True)]


def _plan(
    groups: Sequence[Ranked], work: Work, budget: float, least: int, halvings: int
) -> tuple[list[int], float, float]:
    """The channels left of each group, the MACs left, and the loss that is expected."""
    counts = [
        group.counts(max(group.step >> halvings, 1), least) if work.of_group[number] else []
        for number, group in enumerate(groups)
    ]
    state = _State(groups, work)
    while state.now.macs > budget:
        best: tuple[float, int, int] | None = None
        for number, own in enumerate(counts):
            for count in own:
                if count >= state.left[number]:
                    continue
                saved, lost = state.saves(number, count), state.loses(number, count)
                if saved.macs <= 0:
                    continue
                rate = lost / (saved.macs + saved.done)
                if best is None or rate < best[0]:
                    best = (rate, number, count)
        if best is None:
            break
        state.set(best[1], best[2])
    if state.now.macs <= budget:
        _put_back(state, counts, budget)
    return state.left, state.now.macs, state.loss()


def _put_back(state: _State, counts: Sequence[Sequence[int]], budget: float) -> None:
    """Use what the last step saved too much: the most telling channels that still fit come back.

    More is done for them only within the budget.
    """
    while True:
        found: tuple[float, int, int] | None = None
        for number, own in enumerate(counts):
            more = [count for count in own if count > state.left[number]]
            for count in more:
                saved, gained = state.saves(number, count), -state.loses(number, count)
                fits = state.now.macs - saved.macs <= budget and (
                    saved.done >= 0 or state.now.done - saved.done <= budget
                )
                if fits and (found is None or gained > found[0]):
                    found = (gained, number, count)
        if found is None:
            return
        state.set(found[1], found[2])


class _State:
    """How many channels of each group are left, and the MACs."""

    def __init__(self, groups: Sequence[Ranked], work: Work) -> None:
        self.left = [len(group.order) for group in groups]
        self._groups, self._work = groups, work
        self._masks = [group.mask(len(group.order)) for group in groups]
        self._each = [node.left(self._masks) for node in work.nodes]
        self.now = self._sum(self._each)

    def saves(self, number: int, count: int) -> Left:
        """What goes if ``count`` channels of a group are left; below 0 if some come back."""
        before = self._masks[number]
        self._masks[number] = self._groups[number].mask(count)
        each = list(self._each)
        for node in self._work.of_group[number]:
            each[node] = self._work.nodes[node].left(self._masks)
        self._masks[number] = before
        after = self._sum(each)
        return Left(self.now.macs - after.macs, self.now.done - after.done)

    def loses(self, number: int, count: int) -> float:
        """What that loses."""
        curve = self._groups[number].curve
        return curve.at(count) - curve.at(self.left[number])

    def set(self, number: int, count: int) -> None:
        """Leave ``count`` channels of a group."""
        self._masks[number] = self._groups[number].mask(count)
        for node in self._work.of_group[number]:
            self._each[node] = self._work.nodes[node].left(self._masks)
        self.left[number] = count
        self.now = self._sum(self._each)

    def loss(self) -> float:
        """What is lost by all groups."""
        pairs = zip(self._groups, self.left, strict=True)
        return sum(group.curve.at(count) for group, count in pairs)

    def _sum(self, each: Sequence[Left]) -> Left:
        macs, done = zip(*each, strict=True) if each else ((), ())
        return Left(self._work.sum(macs), self._work.sum(done))
