"""Comparing two models: what is matched with what, and how far apart the answers are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import BackendError, UsageError
from onnxpress.compiler.compare import compare

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
W = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


def model(signature: str, body: str, dtype: Any = np.float32) -> ir.Model:
    return ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17, "nowhere" : 1]> '
        f"main ({signature.replace('->', ') => (')}) {{ {body} }}",
        initializers=[ir.tensor(W.astype(dtype), name="w")] if "w)" in body else [],
    )


FIRST = model("float[n,3] x -> float[n,2] y, float[n,2] z", "y = MatMul(x, w)\nz = Exp(y)")


def test_a_model_is_equal_to_itself() -> None:
    found = compare(FIRST, FIRST)
    assert found.equal
    assert found.reason == ""
    assert found.notes == found.only_first == found.only_second == []


def test_the_report_has_its_keys_and_is_json() -> None:
    models = [ir.load(MODELS / f"mnist_cnn_{seed}.onnx") for seed in (0, 1)]
    found = compare(*models).to_json()
    json.dumps(found, allow_nan=False)
    assert found["equal"] is False
    assert "elements are off" in found["reason"]
    metrics = found["outputs"]["probabilities"]
    assert metrics.keys() >= {"max_abs", "max_rel", "sqnr_db", "cosine", "top1_agreement"}
    assert 0 < metrics["max_abs"] < 1
    assert 0.5 < metrics["cosine"] < 1


def test_other_names_are_matched_by_position() -> None:
    other = model("float[n,3] a -> float[n,2] b, float[n,2] c", "b = MatMul(a, w)\nc = Exp(b)")
    found = compare(FIRST, other)
    assert found.equal
    assert found.notes == [
        "the inputs have different names and are matched by position",
        "the outputs have different names and are matched by position",
    ]
    assert set(found.to_json()["outputs"]) == {"y", "z"}


def test_a_name_that_the_second_uses_inside_gives_way() -> None:
    other = model(
        "float[n,3] a -> float[n,2] b, float[n,2] c",
        "x = Identity(a)\ny = MatMul(x, w)\nb = Identity(y)\nc = Exp(y)",
    )
    assert compare(FIRST, other).equal
    assert [value.name for value in other.graph.inputs] == ["a"]


def test_outputs_that_only_one_has_are_named() -> None:
    other = model("float[n,3] x -> float[n,2] q, float[n,2] y", "y = MatMul(x, w)\nq = Neg(y)")
    found = compare(FIRST, other)
    assert found.equal
    assert (found.only_first, found.only_second) == (["z"], ["q"])
    assert set(found.to_json()["outputs"]) == {"y"}


def test_inputs_in_another_order_are_matched_by_name() -> None:
    first = model("float[3] p, float[3] q -> float[3] y", "y = Sub(p, q)")
    second = model("float[3] q, float[3] p -> float[3] y", "y = Sub(p, q)")
    assert compare(first, second).equal


def test_another_type_is_cast_and_told() -> None:
    half = model(
        "float16[n,3] x -> float16[n,2] y, float16[n,2] z",
        "y = MatMul(x, w)\nz = Exp(y)",
        np.float16,
    )
    found = compare(FIRST, half, kinds={"x": "uniform(0,1)"})
    assert not found.equal
    assert len(found.notes) == 3
    assert "the input 'x' is cast to FLOAT16 for the second" in found.notes
    assert "the output 'y' is FLOAT16 in the second" in found.notes
    assert 50 < found.verification.sqnr_db < 90
    assert [value.dtype for value in half.graph.inputs] == [ir.DataType.FLOAT16]


def test_an_input_that_is_an_output_can_be_cast() -> None:
    first = model("float[n] x -> float[n] y", "y = Identity(x)")
    second = model("double[n] x -> double[n] y", "y = Identity(x)")
    assert compare(first, second).equal


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        ("float[3] p, float[3] q -> float[3] y", "y = Sub(p, q)", "take different inputs"),
        ("float[n,3] x -> float[n,3] q", "q = Neg(x)", "have no output in common"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(signature: str, body: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        compare(FIRST, model(signature, body))


def test_a_first_model_that_does_not_run_is_an_error_a_second_is_an_answer() -> None:
    strange = model("float[n,3] x -> float[n,2] y, float[n,2] z", "y = nowhere.Odd(x)\nz = Neg(y)")
    with pytest.raises(BackendError, match="the original cannot be loaded"):
        compare(strange, FIRST)
    found = compare(FIRST, strange)
    assert not found.equal
    assert "cannot be loaded" in found.reason
