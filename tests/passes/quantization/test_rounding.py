"""Integers chosen together: never worse than the nearest, and never beyond what the grid allows."""

import numpy as np
import pytest

from onnxpress.passes.base import Array
from onnxpress.passes.quantization.rounding import Feedback, Grid, error, improved, nearest


def problem(
    seed: int, inputs: int = 12, outputs: int = 5, most: int = 128
) -> tuple[Array, Array, Grid]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, inputs)) @ rng.normal(size=(inputs, inputs))
    weight = rng.normal(size=(outputs, inputs))
    scale = np.abs(weight).max(axis=1) / 127
    partner = np.arange(inputs) ^ 1
    if inputs % 2:
        partner[-1] = -1
    return weight, rows.T @ rows, Grid(scale, 127, partner, np.full(outputs, most))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("inputs", [1, 2, 7, 12])
def test_each_step_makes_the_error_smaller_and_pairs_fit(seed: int, inputs: int) -> None:
    weight, moments, grid = problem(seed, inputs)

    first = nearest(weight, grid)
    better = improved(first, weight, moments, grid)
    fed = improved(Feedback.of(moments).round(weight, grid), weight, moments, grid)

    before = error(first, weight, moments, grid)
    assert (error(better, weight, moments, grid) <= before * (1 + 1e-9)).all()
    for integers in (first, better, fed):
        assert np.abs(integers).max() <= 127
        assert (integers == np.rint(integers)).all()
        pairs = inputs // 2 * 2
        sums = integers[:, 0:pairs:2] + integers[:, 1:pairs:2]
        assert np.abs(sums).max(initial=0) <= 128


def test_feedback_gains_where_inputs_go_together() -> None:
    weight, moments, grid = problem(0, inputs=24, most=254)

    fed = improved(Feedback.of(moments).round(weight, grid), weight, moments, grid)

    plain = error(nearest(weight, grid), weight, moments, grid).sum()
    assert error(fed, weight, moments, grid).sum() < 0.6 * plain


def test_weights_on_the_grid_stay() -> None:
    weight, moments, grid = problem(1, most=254)
    exact = nearest(weight, grid) * grid.scale[:, None]

    np.testing.assert_array_equal(
        Feedback.of(moments).round(exact, grid) * grid.scale[:, None], exact
    )
    np.testing.assert_array_equal(
        improved(nearest(exact, grid), exact, moments, grid), nearest(weight, grid)
    )
