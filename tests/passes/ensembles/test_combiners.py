"""Every combiner against NumPy, and what is fitted against what it was fitted to."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.errors import DataError, UsageError
from onnxpress.passes.ensembles.combine import Combine
from onnxpress.passes.ensembles.fit import fit_stack, fit_weights, targets_of
from onnxpress.passes.ensembles.logistic import Logistic, fit_logistic, is_raw, log_of, minimize
from onnxpress.passes.ensembles.merge import merge

from .test_combine import answers, returning, vote_shares

RNG = np.random.default_rng(0)


def softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def numpys(combine: str, arrays: list[Array]) -> Array:
    if combine == "softmax-mean":
        return np.asarray(np.mean([softmax(one) for one in arrays], axis=0))
    if combine == "geometric":
        return np.asarray(np.prod(arrays, axis=0) ** (1 / len(arrays)))
    return np.asarray((np.max if combine == "max" else np.median)(arrays, axis=0))


def members(arrays: list[Array], kind: str, opset: int = 17) -> list[ir.Model]:
    models = [returning(array, kind) for array in arrays]
    for model in models:
        model.graph.opset_imports[""] = opset
    return models


@pytest.mark.parametrize("combine", ["softmax-mean", "geometric", "max", "median"])
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_combiners_are_numpys(combine: Combine, count: int, kind: str) -> None:
    arrays = [RNG.random((4, 2, 3)) for _ in range(count)]
    merged = merge(members(arrays, kind), names="abcdef"[:count], combine=combine).model

    (answer,) = answers(merged, x=np.zeros(1, np.float32)).values()

    exact = [np.asarray(returning(one, kind).graph.initializers["w"].const_value) for one in arrays]
    expected = numpys(combine, [one.astype(np.float64) for one in exact])
    rtol = {"float": 1e-6, "double": 1e-14, "float16": 1e-3}[kind]
    np.testing.assert_allclose(answer, expected, rtol=rtol)
    assert answer.dtype == {"float": "f4", "double": "f8", "float16": "f2"}[kind]


def test_a_geometric_mean_with_a_zero_is_zero() -> None:
    merged = merge(members([np.zeros(2), np.ones(2)], "float"), names="ab", combine="geometric")

    np.testing.assert_array_equal(answers(merged.model, x=np.zeros(1, np.float32))["y"], [0, 0])


@pytest.mark.parametrize("opset", [9, 17, 21])
@pytest.mark.parametrize("combine", ["mean", "median", "vote"])
def test_uncertainty_is_numpys(combine: Combine, opset: int) -> None:
    arrays = [RNG.random((5, 3)) for _ in range(4)]
    models = members(arrays, "float", opset)
    merged = merge(models, names="abcd", combine=combine, uncertainty=True).model

    found = answers(merged, x=np.zeros(1, np.float32))

    np.testing.assert_allclose(found["y/variance"], np.var(arrays, axis=0), rtol=1e-5)
    most = vote_shares(arrays).max(-1)
    np.testing.assert_allclose(found["y/disagreement"], 1 - most, rtol=1e-6)


def test_an_answer_without_classes_has_a_variance_only() -> None:
    merged = merge([taking("p", "q"), taking("q", "p")], names="ab", uncertainty=True)

    assert merged.details["outputs"] == ["y", "y/variance"]
    found = answers(merged.model, p=np.array([3], np.float32), q=np.array([1], np.float32))
    assert found["y/variance"].tolist() == [4]


def test_weights_are_fitted_to_what_mixed_the_answers() -> None:
    rows = [RNG.random((50, 3)) for _ in range(3)]
    mixed = 0.7 * rows[0] + 0.3 * rows[2]

    np.testing.assert_allclose(fit_weights(rows, mixed), [0.7, 0, 0.3], atol=1e-4)


def test_weights_of_equal_members_are_equal() -> None:
    rows = [np.ones((4, 2))] * 4

    np.testing.assert_allclose(fit_weights(rows, np.zeros((4, 2))), [0.25] * 4)


def test_stack_finds_a_linear_map_and_writes_it() -> None:
    rows = [RNG.random((200, 4)) for _ in range(3)]
    truth = RNG.standard_normal((12, 4))
    targets = np.concatenate(rows, -1) @ truth + 1.5

    linear = fit_stack(rows, targets)

    np.testing.assert_allclose(linear.weight, truth, atol=1e-3)
    np.testing.assert_allclose(linear.bias, np.full(4, 1.5), atol=1e-3)
    models = members([one[:5] for one in rows], "float")
    merged = merge(models, names="abc", combine="stack", linear=linear).model
    found = answers(merged, x=np.zeros(1, np.float32))["y"]
    np.testing.assert_allclose(found, targets[:5], atol=1e-2)


def test_stack_does_not_trust_noise() -> None:
    rows = [RNG.standard_normal((30, 8)) for _ in range(3)]

    assert np.abs(fit_stack(rows, RNG.standard_normal((30, 1))).weight).max() < 0.5


def test_logistic_finds_who_knows_which_class_and_writes_it() -> None:
    labels = RNG.integers(3, size=2000)
    raw = np.eye(3)[labels] * 2 + RNG.standard_normal((2000, 3))
    noise = softmax(RNG.standard_normal((2000, 3)))

    fitted = fit_logistic([raw, noise], np.eye(3)[labels])

    assert fitted.raw == (True, False)
    assert (fitted([raw, noise]).argmax(-1) == labels).mean() > 0.8
    assert np.abs(fitted.weight[3:]).max() < np.abs(fitted.weight[:3]).max() / 4
    models = members([raw[:7], noise[:7]], "float")
    merged = merge(models, names="ab", combine="logistic", linear=fitted).model
    found = answers(merged, x=np.zeros(1, np.float32))["y"]
    np.testing.assert_allclose(found, fitted([raw[:7], noise[:7]]), rtol=1e-4, atol=1e-6)


def test_logistic_survives_probabilities_of_zero() -> None:
    fitted = Logistic(np.eye(2), np.zeros(2), (False,))

    assert fitted([np.array([[0.0, 1.0]])]).argmax() == 1
    assert np.isfinite(log_of(np.array([[0.0, 1.0]]), raw=False)).all()
    assert is_raw(np.array([[2.0, -1.0]]))
    assert not is_raw(np.array([[0.25, 0.75]]))


def test_logistic_is_fitted_to_classes_and_to_enough_of_them() -> None:
    with pytest.raises(DataError, match="fitted to classes"):
        fit_logistic([np.ones((9, 2))], np.full((9, 2), 3.0))
    with pytest.raises(DataError, match="4 samples or more, and there are 2"):
        fit_logistic([np.full((2, 2), 0.5)], np.eye(2))


def test_a_bowl_is_minimized_to_its_ground() -> None:
    curved = np.array([1.0, 100.0, 0.01])

    found = minimize(lambda at: (float(curved @ at**2) / 2, curved * at), np.ones(3))

    np.testing.assert_allclose(found, 0, atol=2e-4)


def test_labels_become_targets() -> None:
    np.testing.assert_array_equal(
        targets_of(np.array([1, 0]), np.zeros((2, 3))), [[0, 1, 0], [1, 0, 0]]
    )
    np.testing.assert_array_equal(targets_of(np.ones((2, 3)), np.zeros((2, 3))), np.ones((2, 3)))


@pytest.mark.parametrize("labels", [np.array([3, 0]), np.array([0.5, 1]), np.array([0])])
def test_labels_that_do_not_fit_are_refused(labels: Array) -> None:
    with pytest.raises(DataError, match=r"the labels are .* answer \[2, 3\]"):
        targets_of(labels, np.zeros((2, 3)))


def taking(*inputs: str) -> ir.Model:
    declared = ", ".join(f"float[n] {name}" for name in inputs)
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 17]> m ({declared}) => (float[n] y) '
        f"{{ y = Sub ({', '.join(inputs)}) }}"
    )


def test_inputs_are_mapped_by_hand() -> None:
    models = [taking("left", "right"), taking("p", "q")]
    mapped = {"b": {"p": "right", "q": "left"}}
    merged = merge(models, names="ab", combine="none", inputs=mapped).model

    found = answers(merged, left=np.array([5], np.float32), right=np.array([2], np.float32))

    assert {name: value.tolist() for name, value in found.items()} == {"a/y": [3], "b/y": [-3]}


@pytest.mark.parametrize(
    ("mapped", "reason"),
    [
        ({"c": {"p": "left"}}, "no member is called 'c'"),
        ({"b": {"z": "left"}}, "member 'b' has no input 'z'"),
        ({"b": {"p": "z"}}, "member 'a' has no input 'z'"),
        ({"b": {"p": "left", "q": "left"}}, "mapped to the same"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(mapped: dict[str, dict[str, str]], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        merge([taking("left", "right"), taking("p", "q")], names="ab", inputs=mapped)


def test_what_cannot_be_combined_so_is_refused() -> None:
    models = members([np.ones(2), np.ones(2)], "float")
    with pytest.raises(UsageError, match="fitted on data"):
        merge(models, names="ab", combine="stack")
    with pytest.raises(UsageError, match="no uncertainty"):
        merge(models, names="ab", combine="none", uncertainty=True)
    with pytest.raises(UsageError, match="no class axis"):
        merge([taking("p", "q")] * 2, names="ab", combine="softmax-mean")
