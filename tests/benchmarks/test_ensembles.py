"""The suite of ensembles: what is compared answers the same, and a row says what it has to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import pytest

import onnxpress
from benchmarks import ensemble_equalities, ensembles, ensembles_suite, store
from benchmarks.__main__ import main
from benchmarks.contenders import Way
from benchmarks.ensembles import Case, compiled, perceptron
from benchmarks.perturbed import perturbed
from benchmarks.zoo.digits import shipped_for_testing
from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.layouts import FORMS
from onnxpress.compiler.pipeline import parse
from onnxpress.passes.ensembles.combine import Combine

SMALL = Case("small", tuple(perceptron(seed, (6, 5, 4)) for seed in range(3)))
ONE = SessionConfig(threads=1)


def test_apart_and_every_layout_answer_the_same(tmp_path: Path) -> None:
    merged = SMALL.merged()
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    members = tuple(tmp_path / f"{name}.onnx" for name in SMALL.names)
    for model, file in zip(SMALL.models, members, strict=True):
        onnxpress.save(model, file)
    (expected,) = Way(members, ONE, mean=True).open(feeds)()
    layouts = dict(compiled(merged, parse("fold-constants,cleanup"), Target("cpu")))

    assert layouts.keys() == FORMS.keys()
    (at_once,) = Way(members, ONE, at_once=True, mean=True).open(feeds)()
    np.testing.assert_array_equal(at_once, expected)
    for model in layouts.values():
        onnxpress.save(model, tmp_path / "merged.onnx", force=True)
        (answer,) = Way((tmp_path / "merged.onnx",), ONE).open(feeds)()
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_heads_share_their_backbone() -> None:
    models = ensembles.shared_backbone()
    case = Case("heads", models, "none")
    nodes = sum(len(model.graph) for model in models)

    assert len(case.merged().graph) < nodes * 0.6
    sizes = ensembles.sizes(case)
    assert sizes["merged"] < sizes["members"] * 0.55


@pytest.mark.parametrize("combine", ["mean", "vote", "stack", "logistic", "none"])
def test_small_members_are_equal_to_numpy(combine: Combine) -> None:
    for form in ("", "stack-members"):
        row = ensemble_equalities.check(SMALL, combine, form)
        assert row["equal"], row


def test_only_votes_that_rounding_was_seen_to_move_are_open() -> None:
    one = np.array([[0.5, 0.5 - 1e-7, 0.1], [0.2, 0.2, 0.1], [0.3, 0.1, 0.3 - 1e-4]])
    other = one + np.array([[1e-7, 0, 0], [0, 0, 0], [1e-7, 0, 0]])

    low, high = ensemble_equalities.vote_bounds([one, one], [one, other])

    np.testing.assert_array_equal(low, [[0.5, 0, 0], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(high, [[1, 0.5, 0], [1, 0, 0], [1, 0, 0]])
    # What is moved by more than rounding excuses nothing.
    low, high = ensemble_equalities.vote_bounds([one], [one + np.array([1e-2, 0, 0])])
    np.testing.assert_array_equal(low, high)


def test_a_case_fails_where_too_many_votes_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_open(apart: list[Array], merged: list[Array]) -> tuple[Array, Array]:
        del merged
        return np.zeros(apart[0].shape), np.ones(apart[0].shape)

    monkeypatch.setattr(ensemble_equalities, "vote_bounds", all_open)

    assert not ensemble_equalities.check(SMALL, "vote", "")["equal"]


def test_weights_in_constant_nodes_are_changed_as_well() -> None:
    model = onnx_ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[n,8] x) => (float[n,9] y) '
        "{ y = MatMul (x, w) }",
        initializers=[onnx_ir.tensor(np.ones((8, 9), np.float32), name="w")],
    )
    weight = model.graph.initializers.pop("w")
    node = onnx_ir.node("Constant", [], {"value": weight.const_value})
    model.graph.insert_before(model.graph[0], node)
    model.graph[1].replace_input_with(1, node.outputs[0])

    found = ensemble_equalities.changed((model,))

    assert found is not None
    x = np.ones((1, 8), np.float32)
    one, other = (session_of(each).run({"x": x})["y"] for each in found)
    assert not np.allclose(one, other, rtol=1e-4)
    np.testing.assert_allclose(one, other, rtol=0.1)


def test_what_does_not_fit_is_refused_by_name() -> None:
    case = Case("unlike", (perceptron(0, (6, 5, 4)), perceptron(1, (6, 5, 3))))

    row = ensemble_equalities.check(case, "mean", "")

    assert "'m1'" in row["refused"]
    assert list(ensembles_suite.equal_lines([row])) == [
        "unlike: 0 of 0 equal, at most 0.0e+00 apart; refused: mean"
    ]


def test_a_digit_is_moved_a_little() -> None:
    digits = shipped_for_testing()[:50]

    found = perturbed(digits, 2)

    assert found.images.shape == (100, 28, 28)
    assert found.labels.tolist() == digits.labels.tolist() * 2
    ink = found.images.sum((1, 2)) / np.tile(digits.images.sum((1, 2)), 2)
    assert 0.8 < np.median(ink) < 1.2
    assert (found.images[:50] != digits.images).any((1, 2)).all()


def test_a_case_is_found_by_its_name_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = ["ensembles", "--case", "four", "--kinds", "bytes", "--results", str(tmp_path)]

    assert main(run) == 0
    assert main([*run, "--limit", "0.01", "--resume"]) == 0

    (row,) = store.load("ensembles", tmp_path)["bytes"]
    assert row["case"] == "four CNNs"
    assert row["members"] > row["merged"] * 0.9


@pytest.mark.slow
def test_a_row_has_a_speedup_for_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxpress.compiler.layouts._SECONDS", 0.01)

    row = ensembles.measure(SMALL, 1, 2, seconds=0.01)

    assert (row["members"], row["threads"], row["batch"]) == (3, 1, 2)
    assert row["of_best"] > 0
    assert {"apart", "at once"} < row["against"].keys()
    assert len(ensembles_suite.cells(row)) == 12
