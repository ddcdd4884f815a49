"""Backward elimination: the costs and weights are those of the least squares that it stands for."""

from __future__ import annotations

import numpy as np

from onnxpress.passes.base import Array
from onnxpress.passes.pruning.eliminate import Reader, eliminate

BLOCKS = np.arange(12).reshape(6, 2)


def moments(seed: int) -> tuple[Array, Array]:
    """The moments of correlated inputs, and a weight."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    inputs -= inputs.mean(axis=0)
    return (inputs.T @ inputs)[np.newaxis], rng.normal(size=(1, 12, 3))


def best(gram: Array, weight: Array, left: list[int], penalty: float) -> tuple[float, Array]:
    """What the best weights of the inputs of channels ``left`` cost, as a solver finds them."""
    full = gram[0] + penalty * np.trace(gram[0]) / 12 * np.eye(12)
    stay = BLOCKS[left].ravel()
    found = np.zeros_like(weight[0])
    found[stay] = np.linalg.solve(full[np.ix_(stay, stay)], full[stay] @ weight[0])
    change = found - weight[0]
    return float((change * (full @ change)).sum()), found


def test_costs_and_weights_are_those_of_least_squares() -> None:
    gram, weight = moments(0)
    power = float((weight * (gram @ weight)).sum())

    found = eliminate([Reader.of(gram, weight, BLOCKS, 0.01)], 6, range(1, 6))

    for gone in range(1, 5):
        left = sorted(set(range(6)) - set(found.order[:gone].tolist()))
        cost, solved = best(gram, weight, left, 0.01)
        np.testing.assert_allclose(found.costs[gone - 1], cost / power, rtol=1e-6)
        np.testing.assert_allclose(found.weights[6 - gone][0][0], solved, rtol=1e-5, atol=1e-8)


def test_each_step_takes_the_cheapest() -> None:
    gram, weight = moments(1)

    found = eliminate([Reader.of(gram, weight, BLOCKS, 0.01)], 6, [3])

    costs = [best(gram, weight, [c for c in range(6) if c != one], 0.01)[0] for one in range(6)]
    assert found.order[0] == int(np.argmin(costs))
    assert sorted(found.order.tolist()) == list(range(6))
    assert list(found.weights) == [3]


def test_a_copy_costs_nothing() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(100, 3))
    inputs = np.repeat(inputs, [1, 2, 1], axis=1)
    gram = (inputs.T @ inputs)[np.newaxis]
    reader = Reader.of(gram, rng.normal(size=(1, 4, 2)), np.arange(4)[:, np.newaxis], 1e-8)

    found = eliminate([reader], 4, [3])

    assert found.order[0] in {1, 2}
    assert found.costs[0] < 1e-6


def test_readers_count_in_units_of_their_results() -> None:
    (first, weight), (second, other) = moments(3), moments(4)

    def order(scale: float) -> list[int]:
        readers = [
            Reader.of(first, weight, BLOCKS, 0.01),
            Reader.of(second, other * scale, BLOCKS, 0.01),
        ]
        found: list[int] = eliminate(readers, 6, [2]).order.tolist()
        return found

    assert order(1) == order(1000)


def test_inputs_that_never_vary_cost_nothing() -> None:
    reader = Reader.of(np.zeros((1, 12, 12)), moments(5)[1], BLOCKS, 0.01)

    found = eliminate([reader], 6, [2])

    assert np.isfinite(found.costs).all()


def test_many_channels_go_several_at_a_time() -> None:
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(300, 200))
    reader = Reader.of((inputs.T @ inputs)[np.newaxis], rng.normal(size=(1, 200, 2)),
                       np.arange(200)[:, np.newaxis], 0.01)  # fmt: skip

    found = eliminate([reader], 200, [150, 77])

    assert sorted(found.weights) == [77, 150]
    for left, (weight,) in found.weights.items():
        assert np.count_nonzero(weight.any(axis=(0, 2))) == left
    assert (np.diff(found.costs) >= 0).all()
