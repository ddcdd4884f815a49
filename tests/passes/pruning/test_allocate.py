"""Allocation: the budget is met, cheap channels go first, blocks stay whole where that is cheap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onnxpress.passes.pruning.allocate import Ranked, allocate
from onnxpress.passes.pruning.sensitivity import Curve
from onnxpress.passes.pruning.work import Extent, NodeWork, Work


def chain(*sizes: int) -> Work:
    """The work of layers in a row, from 3 channels through ``sizes`` to 5."""
    extents = [Extent(size, {g: np.ones(size, dtype=np.int64)}) for g, size in enumerate(sizes)]
    ends = [Extent(3, {}), *extents, Extent(5, {})]
    nodes = [NodeWork(a.size * b.size, (a, b)) for a, b in pairwise(ends)]
    return Work(nodes, len(sizes))


def ranked(size: int, slope: float, step: int = 1) -> Ranked:
    """A group that loses ``slope`` times the square of the part that goes."""
    left = list(range(size, 0, -1))
    return Ranked(
        np.arange(size), Curve(left, [slope * ((size - one) / size) ** 2 for one in left]), step
    )


@pytest.mark.parametrize("part", [0.9, 0.6, 0.3, 0.1])
def test_the_budget_is_met_and_used(part: float) -> None:
    work = chain(16, 16, 16)
    whole = work.total([np.ones(16, dtype=np.bool_)] * 3)

    masks = allocate([ranked(16, slope) for slope in (1, 2, 3)], work, part * whole, 2)

    total = work.total(masks)
    assert total <= part * whole
    assert total > part * whole - 60
    assert all(mask.sum() >= 2 for mask in masks)


def test_channels_go_where_they_tell_least() -> None:
    work = chain(16, 16)
    whole = work.total([np.ones(16, dtype=np.bool_)] * 2)

    cheap, dear = allocate([ranked(16, 0.01), ranked(16, 10)], work, 0.6 * whole, 2)

    assert cheap.sum() < dear.sum()
    assert not cheap[0]
    assert cheap[-1]


def test_blocks_stay_whole() -> None:
    work = chain(16, 16)
    whole = work.total([np.ones(16, dtype=np.bool_)] * 2)

    masks = allocate([ranked(16, 1, 8), ranked(16, 1, 8)], work, 0.6 * whole, 2)

    assert {int(mask.sum()) % 8 for mask in masks} == {0}


def test_blocks_are_halved_where_the_budget_asks_for_it() -> None:
    work = chain(16, 16)
    whole = work.total([np.ones(16, dtype=np.bool_)] * 2)

    masks = allocate([ranked(16, 1, 16), ranked(16, 1, 16)], work, 0.2 * whole, 2)

    assert work.total(masks) <= 0.2 * whole


def test_the_least_comes_back_where_the_budget_is_less() -> None:
    work = chain(8)

    (mask,) = allocate([ranked(8, 1)], work, 1, 2)

    assert mask.sum() == 2
    assert ranked(4, 1).scores().mean() == 1


def test_what_kernels_do_in_whole_blocks_counts() -> None:
    def layer(group: int, block: int) -> NodeWork:
        return NodeWork(100, (Extent(16, {group: np.ones(16, dtype=np.int64)}),), block=block)

    # Half of a block of 16 is done as a whole; of single channels, half is.
    work = Work([layer(0, 16), layer(1, 1)], 2)
    assert work.nodes[0].left([np.arange(16) < 8]) == (50, 100)

    masks = allocate([ranked(16, 1, 8), ranked(16, 1, 8)], work, 150, 2)

    assert [mask.sum() for mask in masks] == [16, 8]
