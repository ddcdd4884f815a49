"""Selection: the work fits the budget, the least important channels go, none is emptied."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.analysis.channel_rules import RULES
from onnxpress.passes.analysis.channels import channel_groups
from onnxpress.passes.analysis.macs import macs, sized
from onnxpress.passes.pruning.select import Extent, NodeWork, Scope, Work, select, work_of
from onnxpress.passes.pruning.slice import Mask, cuts_of, slice_channels
from tests.passes.pruning.helpers import networks


def chain(*sizes: int) -> Work:
    """A chain of dense layers: 5 inputs, groups of these sizes, 3 results."""
    extents = [Extent(size, {g: np.ones(size, dtype=np.int64)}) for g, size in enumerate(sizes)]
    ends = [Extent(5, {}), *extents, Extent(3, {})]
    nodes = [NodeWork(a.size * b.size, (a, b)) for a, b in pairwise(ends)]
    return Work(nodes, len(sizes))


def full(*sizes: int) -> list[Mask]:
    return [np.ones(size, dtype=np.bool_) for size in sizes]


def test_work_shrinks_with_both_sides() -> None:
    masks = full(4, 6)
    masks[0][0] = masks[1][:3] = False

    assert chain(4, 6).total(full(4, 6)) == 5 * 4 + 4 * 6 + 6 * 3
    assert chain(4, 6).total(masks) == 5 * 3 + 3 * 3 + 3 * 3


def test_the_least_important_go_wherever_they_are() -> None:
    scores = [np.array([0.9, 0.1, 1.5, 1.5]), np.array([0.2, 1.8])]

    masks = select(scores, chain(4, 2), 25, "global", 1)

    assert [mask.tolist() for mask in masks] == [[True, False, True, True], [False, True]]


def test_uniform_takes_the_same_part_of_each() -> None:
    scores = [np.array([4.0, 3, 2, 1]), np.array([1.0, 2])]

    masks = select(scores, chain(4, 2), 20, "uniform", 1)

    assert [mask.tolist() for mask in masks] == [[True, True, False, False], [False, True]]


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_some_channels_stay_in_any_case(scope: Scope) -> None:
    scores = [np.linspace(0, 1e-9, 8), np.linspace(1, 2, 8)]

    masks = select(scores, chain(8, 8), 0, scope, 3)

    assert [int(mask.sum()) for mask in masks] == [3, 3]


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_nothing_goes_if_all_fits(scope: Scope) -> None:
    work = chain(3, 3)

    masks = select([np.ones(3), np.ones(3)], work, int(work.total(full(3, 3))), scope, 1)

    assert all(mask.all() for mask in masks)


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_groups_without_work_stay_whole(scope: Scope) -> None:
    work = Work(chain(4).nodes, 2)

    masks = select([np.ones(4), np.zeros(4)], work, 0, scope, 1)

    assert [int(mask.sum()) for mask in masks] == [1, 4]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=9), min_size=1, max_size=5),
    st.floats(0, 1),
    st.sampled_from(["global", "uniform"]),
    st.integers(1, 4),
)
def test_the_budget_is_kept_and_not_undercut_by_more_than_a_step(
    scores: list[list[float]], part: float, scope: Scope, least: int
) -> None:
    sizes = [len(score) for score in scores]
    work = chain(*sizes)
    budget = int(part * work.total(full(*sizes)))

    masks = select([np.array(score) for score in scores], work, budget, scope, least)

    stay = [int(mask.sum()) for mask in masks]
    assert all(s >= min(least, size) for s, size in zip(stay, sizes, strict=True))
    if work.total(masks) > budget + 0.5:
        assert all(s == min(least, size) for s, size in zip(stay, sizes, strict=True))
    elif scope == "global" and stay != sizes:
        gone = [(scores[g][c], g, c) for g, m in enumerate(masks) for c in np.flatnonzero(~m)]
        _, group, channel = max(gone)
        masks[group][channel] = True
        assert work.total(masks) > budget


@settings(deadline=None, max_examples=25)
@given(networks(), st.integers(0, 99))
def test_the_work_is_what_is_counted_after_slicing(model: ir.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    coupling = channel_groups(model, RULES)
    groups = [group for group in coupling.groups if not group.frozen]
    work = work_of(model, sized(model), groups)
    assert work.total(full(*(group.size for group in groups))) == macs(model)
    masks = [rng.uniform(size=group.size) < 0.6 for group in groups]
    for mask in masks:
        mask[0] = True

    slice_channels(model, coupling, cuts_of(groups, masks))

    assert work.total(masks) == pytest.approx(macs(model))
