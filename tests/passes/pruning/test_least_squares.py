"""Ridge least squares: the closed form, in any batches, drawn towards the weights there were."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.base import Array
from onnxpress.passes.pruning.least_squares import Moments, Solution, best_ridge


def moments(inputs: Array, targets: Array, batches: int = 1) -> Moments:
    """The moments of the rows, taken in parts of different sizes."""
    cuts = np.sort(np.random.default_rng(0).permutation(inputs.shape[1] - 1)[: batches - 1]) + 1
    parts = zip(np.split(inputs, cuts, axis=1), np.split(targets, cuts, axis=1), strict=True)
    return reduce(operator.add, (Moments.of(a, y) for a, y in parts))


def solve(inputs: Array, targets: Array, ridge: float, prior: Array, batches: int = 1) -> Solution:
    return moments(inputs, targets, batches).solve(ridge, prior)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def test_an_exact_linear_map_is_found() -> None:
    inputs, weight, bias = noise(2, 50, 4), noise(2, 4, 3, seed=1), noise(2, 1, 3, seed=2)

    found = solve(inputs, inputs @ weight + bias, 0, np.zeros((2, 4, 3)))

    np.testing.assert_allclose(found.weight, weight, atol=1e-10)
    np.testing.assert_allclose(found.bias, bias, atol=1e-10)
    assert found.residual == pytest.approx(0, abs=1e-12)


def test_the_closed_form() -> None:
    inputs, targets, prior = noise(1, 30, 4) + 3, noise(1, 30, 2, seed=1), noise(1, 4, 2, seed=2)

    found = solve(inputs, targets, 0.1, prior)

    centred, wanted = inputs[0] - inputs[0].mean(0), targets[0] - targets[0].mean(0)
    gram = centred.T @ centred
    penalty = 0.1 * np.trace(gram) / 4
    weight = np.linalg.solve(gram + penalty * np.eye(4), centred.T @ wanted + penalty * prior[0])
    np.testing.assert_allclose(found.weight[0], weight, rtol=1e-10)
    bias = targets[0].mean(0) - inputs[0].mean(0) @ weight
    np.testing.assert_allclose(found.bias[0, 0], bias, rtol=1e-9)
    rest = np.square(wanted - centred @ weight).sum() / np.square(wanted).sum()
    assert found.residual == pytest.approx(rest, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.floats(-100, 100))
def test_batches_and_large_means_make_no_difference(batches: int, mean: float) -> None:
    inputs, targets = noise(2, 40, 5) + mean, noise(2, 40, 3, seed=1) - mean
    prior = noise(2, 5, 3, seed=2)

    whole = solve(inputs, targets, 0.01, prior)
    parts = solve(inputs, targets, 0.01, prior, batches)

    np.testing.assert_allclose(parts.weight, whole.weight, atol=1e-8)
    np.testing.assert_allclose(parts.bias, whole.bias, atol=1e-5)


def test_single_precision_far_from_zero_keeps_its_digits() -> None:
    inputs = (noise(1, 400, 3) + 1000).astype(np.float32)
    weight = noise(1, 3, 2, seed=1)
    targets = inputs.astype(np.float64) @ weight

    found = solve(inputs, targets.astype(np.float32), 0, np.zeros((1, 3, 2)), batches=4)

    np.testing.assert_allclose(found.weight, weight, atol=1e-3)


def test_an_input_that_never_varies_keeps_its_weight() -> None:
    inputs, prior = noise(1, 30, 3), noise(1, 3, 2, seed=2)
    inputs[..., 1] = 5

    found = solve(inputs, noise(1, 30, 2, seed=1), 0.01, prior)

    np.testing.assert_allclose(found.weight[0, 1], prior[0, 1], rtol=1e-9)


def test_what_fits_already_is_left_alone() -> None:
    inputs, prior = noise(1, 5, 8), noise(1, 8, 2, seed=2)

    found = solve(inputs, inputs @ prior + 2, 0.5, prior)

    np.testing.assert_allclose(found.weight, prior, rtol=1e-10)
    np.testing.assert_allclose(found.bias, [[[2, 2]]], rtol=1e-9)


def test_constant_targets_leave_nothing_to_explain() -> None:
    found = solve(noise(1, 10, 2), np.full((1, 10, 3), 4.0), 0.01, np.zeros((1, 2, 3)))

    assert found.residual == 0
    np.testing.assert_allclose(found.bias, [[[4, 4, 4]]])


def test_a_strong_ridge_keeps_the_prior() -> None:
    prior = noise(1, 3, 2, seed=2)

    found = solve(noise(1, 50, 3), noise(1, 50, 2, seed=1), 1e9, prior)

    np.testing.assert_allclose(found.weight, prior, atol=1e-6)


def test_the_error_is_that_on_the_rows() -> None:
    inputs, targets = noise(2, 20, 3) + 1, noise(2, 20, 4, seed=1)
    weight, bias = noise(2, 3, 4, seed=2), noise(2, 1, 4, seed=3)

    error = moments(inputs, targets, 3).error(weight, bias)

    assert error == pytest.approx(np.square(inputs @ weight + bias - targets).sum())


def test_the_ridge_is_chosen_by_rows_held_out() -> None:
    prior = noise(1, 30, 1, seed=2)
    few, many = noise(1, 20, 30, seed=3), noise(1, 500, 30, seed=4)
    held = moments(many, many @ prior)

    overfit = moments(few, few @ prior + 3 * noise(1, 20, 1, seed=5))
    assert best_ridge(overfit, held, prior, (0.001, 1.0, 1000.0)) == 1000
    other = moments(many, many @ (prior + 2))
    assert best_ridge(other, moments(few, few @ (prior + 2)), prior, (0.001, 1.0, 1000.0)) == 0.001
