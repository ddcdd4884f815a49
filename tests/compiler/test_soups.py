"""Soups: weights averaged by structure, normalization measured anew, and bad ones sent back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, Feeds
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.compiler.soups import Kitchen, cook

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Samples:
    x: Array

    def batches(self, size: int) -> Iterator[Feeds]:
        for start in range(0, len(self.x), size):
            yield {"x": self.x[start : start + size]}


def perceptron(
    first: Array,
    second: Array,
    *,
    names: tuple[str, str] = ("w", "v"),
    extra: str = "",
    relu: str = "Relu",
) -> ir.Model:
    w, v = names
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> m (float[n,8] x) => (float[n,3] y) '
        f"{{ {extra} {w}_a = MatMul (x, {w}) {w}_r = {relu} ({w}_a) y = MatMul ({w}_r, {v}) }}",
        initializers=[ir.tensor(first, name=w), ir.tensor(second, name=v)],
    )


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


W, V = normal(8, 16), normal(16, 3)
SAMPLES = Samples(normal(200, 8))


def answer(model: ir.Model) -> Array:
    return session_of(model).run({"x": SAMPLES.x})["y"]


def near(scale: float) -> ir.Model:
    return perceptron(W + scale * normal(8, 16), V + scale * normal(16, 3))


def labels() -> Array:
    return np.asarray(answer(perceptron(W, V)).argmax(-1))


def test_weights_are_averaged_whatever_they_are_called() -> None:
    models = [perceptron(W, V), perceptron(3 * W, V + 1, names=("v", "w"))]

    soup = cook(models, "ab", kitchen=Kitchen(forced=True)).model

    expected = perceptron(2 * W, V + np.float32(0.5))
    np.testing.assert_allclose(answer(soup), answer(expected), rtol=1e-5, atol=1e-5)
    assert [value.name for value in soup.graph.initializers.values()] == ["w", "v"]
    first = models[0].graph.initializers["w"].const_value
    assert first is not None
    np.testing.assert_array_equal(first.numpy(), W)


def test_weighted() -> None:
    models = [perceptron(W, V), perceptron(2 * W, V)]
    soup = cook(models, "ab", weights=[3, 1], kitchen=Kitchen(forced=True)).model

    expected = perceptron(np.float32(1.25) * W, V)
    np.testing.assert_allclose(answer(soup), answer(expected), rtol=1e-5, atol=1e-5)


def test_exporters_noise_does_not_matter() -> None:
    noisy = perceptron(W, V, extra="z = Identity (x)")
    other = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[n,8] q) => (float[n,3] y) '
        "{ i = Identity (q) a = MatMul (i, w) r = Relu (a) y = MatMul (r, v) }",
        initializers=[ir.tensor(W, name="w"), ir.tensor(V, name="v")],
    )
    kitchen = Kitchen(SAMPLES, labels())
    soup = cook([noisy, other], "ab", kitchen=kitchen).model
    np.testing.assert_allclose(answer(soup), answer(noisy), rtol=1e-5, atol=1e-5)


def test_members_of_one_basin_make_a_soup_as_good_as_they_are() -> None:
    models = [near(0.02) for _ in range(4)]
    found = cook(models, "abcd", kitchen=Kitchen(SAMPLES, labels()))

    assert found.details["score"] >= min(found.details["scores"])
    assert "the soup scores" in found.details["notes"][0]


def test_members_of_different_basins_are_refused_with_the_score_unless_forced() -> None:
    order = RNG.permutation(16)
    models = [perceptron(W, V), perceptron(W[:, order], V[order])]
    np.testing.assert_allclose(answer(models[0]), answer(models[1]), rtol=1e-4, atol=1e-4)

    with pytest.raises(UsageError, match=r"do not share a basin: the soup scores \d+\.\d+%"):
        cook(models, "ab", kitchen=Kitchen(SAMPLES))
    forced = cook(models, "ab", kitchen=Kitchen(SAMPLES, forced=True))
    assert forced.details["score"] < 0.9


def test_a_greedy_soup_leaves_out_what_makes_it_worse() -> None:
    order = RNG.permutation(16)
    models = [near(0.02), near(0.02), perceptron(W[:, order], V[order] + normal(16, 3))]
    found = cook(models, "abc", recipe="greedy", kitchen=Kitchen(SAMPLES, labels()))

    assert found.details["weights"][2] == 0
    assert found.details["score"] >= max(found.details["scores"])


def test_normalization_is_measured_anew() -> None:
    def model(shift: float) -> ir.Model:
        parts = {"s": np.ones(4), "b": np.zeros(4), "mean": np.full(4, shift), "var": np.ones(4)}
        return ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["" : 17]> m (float[n,8] x) => (float[n,4] y) '
            "{ a = MatMul (x, w) y = BatchNormalization (a, s, b, mean, var) }",
            initializers=[
                ir.tensor(normal(8, 4), name="w"),
                *(ir.tensor(one.astype(np.float32), name=name) for name, one in parts.items()),
            ],
        )

    models = [model(0.0), model(5.0)]
    soup = cook(models, "ab", kitchen=Kitchen(SAMPLES, forced=True)).model

    np.testing.assert_allclose(answer(soup).mean(0), np.zeros(4), atol=1e-4)
    np.testing.assert_allclose(answer(soup).std(0), np.ones(4), atol=1e-3)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (perceptron(W, V, relu="Tanh"), "member 'b' is of another architecture .* operators"),
        (perceptron(normal(8, 9), normal(9, 3)), "types or shapes"),
    ],
)
def test_another_architecture_is_refused(other: ir.Model, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        cook([perceptron(W, V), other], "ab", kitchen=Kitchen(forced=True))


def test_without_samples_nothing_is_known_of_it() -> None:
    with pytest.raises(UsageError, match="shows only on samples"):
        cook([perceptron(W, V)] * 2, "ab")
    with pytest.raises(UsageError, match="2 models and 1 weights"):
        cook([perceptron(W, V)] * 2, "ab", weights=[1], kitchen=Kitchen(forced=True))
