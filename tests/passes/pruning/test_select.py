"""Selection: the work fits the budget, the least important channels go, none is emptied."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.analysis.channel_rules import RULES
from onnxpress.passes.analysis.channels import channel_groups
from onnxpress.passes.analysis.macs import macs, sized
from onnxpress.passes.pruning.select import Scope, select
from onnxpress.passes.pruning.slice import Mask, cuts_of, slice_channels
from onnxpress.passes.pruning.work import Extent, NodeWork, Work, work_of
from tests.passes.pruning.helpers import build, networks, normal


def chain(*sizes: int) -> Work:
    """A chain of dense layers: 5 inputs, groups of these sizes, 3 results."""
    extents = [Extent(size, {g: np.ones(size, dtype=np.int64)}) for g, size in enumerate(sizes)]
    ends = [Extent(5, {}), *extents, Extent(3, {})]
    nodes = [NodeWork(a.size * b.size, (a, b)) for a, b in pairwise(ends)]
    return Work(nodes, len(sizes))


def full(*sizes: int) -> list[Mask]:
    return [np.ones(size, dtype=np.bool_) for size in sizes]


def choose(
    scores: Sequence[Sequence[float]],
    work: Work,
    budget: int,
    scope: Scope,
    least: int = 1,
    step: int = 1,
) -> list[Mask]:
    arrays = [np.array(each, dtype=np.float64) for each in scores]
    steps = [step] * len(scores)
    return select(arrays, work, budget, scope, min_channels=least, steps=steps)


def counts(masks: list[Mask]) -> list[int]:
    return [int(mask.sum()) for mask in masks]


def test_work_shrinks_with_both_sides() -> None:
    masks = full(4, 6)
    masks[0][0] = masks[1][:3] = False

    assert chain(4, 6).total(full(4, 6)) == 5 * 4 + 4 * 6 + 6 * 3
    assert chain(4, 6).total(masks) == 5 * 3 + 3 * 3 + 3 * 3


def test_the_least_important_go_wherever_they_are() -> None:
    masks = choose([[0.9, 0.1, 1.5, 1.5], [0.2, 1.8]], chain(4, 2), 25, "global")

    assert [mask.tolist() for mask in masks] == [[True, False, True, True], [False, True]]


def test_uniform_takes_the_same_part_of_each() -> None:
    masks = choose([[4, 3, 2, 1], [1, 2]], chain(4, 2), 19, "uniform")

    assert [mask.tolist() for mask in masks] == [[True, True, False, False], [False, True]]


def test_what_went_too_early_comes_back() -> None:
    """The last channel of the large group saves so much that one of the small group can stay."""
    work = Work(
        [
            NodeWork(100, (Extent(2, {0: np.ones(2, dtype=np.int64)}),)),
            NodeWork(4, (Extent(4, {1: np.ones(4, dtype=np.int64)}),)),
        ],
        2,
    )

    masks = choose([[1.0, 1.5], [0.2, 1.2, 1.3, 1.3]], work, 54, "global")

    assert counts(masks) == [1, 4]


@pytest.mark.parametrize(
    ("size", "budget", "left"),
    [(40, 40, 40), (40, 39, 32), (40, 17, 16), (40, 15, 8), (40, 7, 4), (40, 1, 1), (44, 43, 40)],
)
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_what_stays_is_a_multiple_or_of_half_of_it(
    size: int, budget: int, left: int, scope: Scope
) -> None:
    work = Work([NodeWork(size, (Extent(size, {0: np.ones(size, dtype=np.int64)}),))], 1)

    (mask,) = choose([np.linspace(0, 2, size).tolist()], work, budget, scope, step=8)

    assert mask.sum() == left
    assert not mask[: size - left].any()


def test_multiples_of_all_groups_go_before_halves_of_one() -> None:
    masks = choose(
        [np.linspace(0, 0.1, 16).tolist(), [5.0] * 16], chain(16, 16), 200, "global", step=8
    )

    assert counts(masks) == [8, 8]


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("step", [1, 8])
def test_some_channels_stay_in_any_case(scope: Scope, step: int) -> None:
    scores = [np.linspace(0, 1e-9, 8).tolist(), np.linspace(1, 2, 8).tolist()]

    assert counts(choose(scores, chain(8, 8), 0, scope, 3, step)) == [3, 3]


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_nothing_goes_if_all_fits(scope: Scope) -> None:
    work = chain(3, 3)

    masks = choose([[1, 1, 1], [1, 1, 1]], work, int(work.total(full(3, 3))), scope)

    assert counts(masks) == [3, 3]


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_groups_without_work_stay_whole(scope: Scope) -> None:
    work = Work(chain(4).nodes, 2)

    assert counts(choose([[1] * 4, [0] * 4], work, 0, scope)) == [1, 4]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=20), min_size=1, max_size=5),
    st.floats(0, 1),
    st.sampled_from(["global", "uniform"]),
    st.integers(1, 4),
    st.sampled_from([1, 2, 8]),
)
def test_the_budget_is_kept_and_used(
    scores: list[list[float]], part: float, scope: Scope, least: int, step: int
) -> None:
    sizes = [len(score) for score in scores]
    work = chain(*sizes)
    budget = int(part * work.total(full(*sizes)))

    masks = choose(scores, work, budget, scope, least, step)

    stay = counts(masks)
    assert all(s >= min(least, size) for s, size in zip(stay, sizes, strict=True))
    for mask, each in zip(masks, scores, strict=True):
        kept, gone = np.array(each)[mask], np.array(each)[~mask]
        assert gone.size == 0 or gone.max() <= kept.min()
    if work.total(masks) > budget + 0.5:
        assert stay == [min(least, size) for size in sizes]
    elif step == 1:
        for mask in masks:
            if not mask.all():
                back = int(np.flatnonzero(~mask)[0])
                mask[back] = True
                assert work.total(masks) > budget
                mask[back] = False


def test_weights_may_come_without_a_shape_beside_them() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,4] x) => (float[N,2] y) { a = MatMul (x, w)  y = MatMul (a, v) }
    """
    model = build(text, {"w": normal(4, 8), "v": normal(8, 2)})
    for value in model.graph.initializers.values():
        value.shape = None
    groups = channel_groups(model, RULES).groups[:1]

    assert work_of(model, sized(model), groups).total([np.arange(8) < 6]) == 6 * (4 + 2)


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
