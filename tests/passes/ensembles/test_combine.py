"""Combining answers in the graph: NumPy's numbers, the first member's type, or a stated reason."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.combine import Combine
from onnxpress.passes.ensembles.merge import Merge, merge


def answers(model: ir.Model, **feeds: Array) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled", threads=1)).run(feeds)


def returning(array: ArrayLike, kind: str = "float") -> ir.Model:
    """A model that takes ``x`` and always answers ``array``."""
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
    main (float[n] x) => ({kind}[{",".join(map(str, np.shape(array)))}] y) {{ y = Identity (w) }}"""
    dtype = {"float": "f4", "float16": "f2", "double": "f8", "int64": "i8", "bool": "?"}[kind]
    return ir.from_onnx_text(text, initializers=[ir.tensor(np.array(array, dtype), name="w")])


def combined(models: list[ir.Model], combine: Combine, weights: list[float] | None = None) -> Array:
    names = [f"m{index}" for index in range(len(models))]
    merged = merge(models, names=names, combine=combine, weights=weights).model
    return answers(merged, x=np.zeros(1, np.float32))["y"]


def vote_shares(answers_apart: list[Array]) -> Array:
    """The share of votes of each class along the last axis."""
    classes = np.arange(answers_apart[0].shape[-1])
    votes = [scores.argmax(-1)[..., None] == classes for scores in answers_apart]
    return np.asarray(np.mean(votes, axis=0))


scores = st.lists(
    st.lists(st.integers(-4, 4).map(float), min_size=6, max_size=6), min_size=2, max_size=5
)


@settings(max_examples=25, deadline=None)
@given(scores, st.data())
def test_combined_answers_are_numpys(rows: list[list[float]], data: st.DataObject) -> None:
    arrays = [np.array(row, np.float32).reshape(2, 3) for row in rows]
    weight = st.floats(0.1, 10)
    weights = data.draw(st.lists(weight, min_size=len(rows), max_size=len(rows)))
    models = [returning(array) for array in arrays]

    mean = combined(models, "mean")
    weighted = combined(models, "weighted", weights)
    vote = combined(models, "vote")

    np.testing.assert_allclose(mean, np.mean(arrays, axis=0), rtol=1e-6, atol=1e-6)
    expected = np.average(arrays, axis=0, weights=weights)
    np.testing.assert_allclose(weighted, expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(vote, vote_shares(arrays), rtol=1e-6)


@pytest.mark.parametrize("combine", ["mean", "weighted", "vote"])
@pytest.mark.parametrize(
    "kinds", [("float16", "float16"), ("double", "double"), ("float16", "double")]
)
def test_the_first_members_type_stays(combine: Combine, kinds: tuple[str, str]) -> None:
    first, second = [[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]]
    weights = [1.0, 3.0] if combine == "weighted" else None

    answer = combined([returning(first, kinds[0]), returning(second, kinds[1])], combine, weights)

    assert answer.dtype == {"float16": np.float16, "double": np.float64}[kinds[0]]
    expected = np.average([first, second], axis=0, weights=weights)
    if combine == "vote":
        expected = np.array([0, 0.5, 0.5])
    np.testing.assert_allclose(answer, expected, rtol=1e-15 if "float16" not in kinds else 2e-3)


def test_float16_is_summed_in_float32() -> None:
    answer = combined([returning([60000.0], "float16")] * 3, "mean")

    np.testing.assert_array_equal(answer, [60000])


def test_ties_go_to_the_lowest_class() -> None:
    answer = combined(
        [returning([[1.0, 0.0, 5.0, 5.0]]), returning([[0.0, 9.0, 0.0, 9.0]])], "vote"
    )

    np.testing.assert_array_equal(answer, [[0, 0.5, 0.5, 0]])
    assert answer.argmax() == 1


def test_a_vote_over_a_class_axis_of_unknown_length() -> None:
    models = [returning(row) for row in ([[1, 2, 3]], [[1, 3, 2]], [[0, 0, 9]])]
    for model in models:
        model.graph.outputs[0].shape = None

    np.testing.assert_allclose(combined(models, "vote"), [[0, 1 / 3, 2 / 3]])


def test_weights_are_normalised_even_where_their_sum_overflows() -> None:
    models = [returning([1.0]), returning([3.0])]
    result = merge(models, names="ab", combine="weighted", weights=[1.5e308, 0.5e308])

    assert result.details["weights"] == [0.75, 0.25]
    np.testing.assert_array_equal(answers(result.model, x=np.zeros(1, np.float32))["y"], [1.5])


def test_outputs_go_together_by_name_else_in_order() -> None:
    def model(*outputs: str) -> ir.Model:
        body = " ".join(
            f"{name} = Mul (x, {role})" for name, role in zip(outputs, "wv", strict=True)
        )
        results = ", ".join(f"float[2] {name}" for name in sorted(outputs))
        return ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => ({results}) '
            f"<float[2] w = {{1, 1}}, float[2] v = {{10, 10}}> {{ {body} }}"
        )

    merged = merge([model("p", "q"), model("q", "a")], names=["a", "b"]).model

    after = answers(merged, x=np.ones(2, np.float32))
    assert list(after) == ["p", "q"]
    np.testing.assert_array_equal([after["p"][0], after["q"][0]], [5.5, 5.5])


@pytest.mark.parametrize(
    ("second", "combine", "reason"),
    [
        (
            returning([1], "int64"),
            "mean",
            "labels, indices and text have no mean; only float outputs do",
        ),
        (
            returning([True], "bool"),
            "weighted",
            "labels, indices and text have no mean; only float outputs do",
        ),
        (
            returning([1], "int64"),
            "vote",
            "labels, indices and text have no mean; only float outputs do",
        ),
        (returning([[1.0]]), "mean", "the first member's is 'y' float[1]"),
        (returning([1.0, 2.0]), "mean", "the first member's is 'y' float[1]"),
    ],
)
def test_answers_that_cannot_be_combined_are_refused(
    second: ir.Model, combine: Combine, reason: str
) -> None:
    weights = [1.0, 1.0] if combine == "weighted" else None

    with pytest.raises(
        UsageError, match=r"output 'y' .* of member 'm1' cannot be combined"
    ) as error:
        combined([returning([1.0]), second], combine, weights)

    assert error.value.message.endswith(reason)
    assert "'none'" in error.value.hint


def test_a_sequence_cannot_be_combined() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
    m (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct (x, x) }""")

    with pytest.raises(UsageError, match="by mean: it is not a tensor"):
        merge([model, model], names="ab")


def test_a_vote_needs_a_class_axis() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[n] x) => (float[n] y) { y = Abs (x) }'
    )

    with pytest.raises(UsageError, match="no class axis"):
        merge([model, model], names="ab", combine="vote")


@pytest.mark.parametrize(
    ("combine", "weights", "reason"),
    [
        ("mode", None, "no way to combine called 'mode'"),
        ("weighted", None, "need each other"),
        ("mean", (0.5, 0.5), "need each other"),
        ("weighted", (0.5, -0.5), "not -0.5"),
        ("weighted", (0.5, float("nan")), "not nan"),
        ("weighted", (0.5, float("inf")), "not inf"),
        ("weighted", (0.0, 0.0), "above zero"),
    ],
)
def test_bad_options_are_refused(
    combine: str, weights: tuple[float, ...] | None, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        Merge(combine, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "names", "weights", "reason"),
    [
        (1, ["a"], None, "at least two members, not 1"),
        (2, ["a"], None, "2 models and 1 names"),
        (2, ["a", "b"], (1.0, 1.0, 1.0), "2 models and 3 weights"),
    ],
)
def test_names_and_weights_have_to_fit_the_models(
    count: int, names: list[str], weights: tuple[float, ...] | None, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        Merge("weighted" if weights else "mean", weights)([returning([1.0])] * count, names=names)
