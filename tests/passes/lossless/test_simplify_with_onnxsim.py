"""SimplifyWithOnnxsim takes a smaller result over, and declines every other with its reason."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.compiler.pipeline import parse
from onnxpress.passes.lossless.simplify_with_onnxsim import SimplifyWithOnnxsim

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,3] x) => (float[N,3] y) {
  a = Transpose <perm = [1, 0]> (x)
  b = Transpose <perm = [1, 0]> (a)
  y = Relu (b)
}
"""


def answer(model: ir.Model, x: Array) -> Array:
    return session_of(model, SessionConfig(level="disabled")).run({"x": x})["y"]


def declined(model: ir.Model) -> str:
    """Run the pass, check that it declined and left the text as it was, and give the reason."""
    before = ir.to_onnx_text(model)
    result = SimplifyWithOnnxsim().call(model)
    assert not result.modified
    assert ir.to_onnx_text(model) == before
    assert list(result.declined) == ["the model"]
    return result.declined["the model"]


def test_a_smaller_result_is_taken_over_in_place() -> None:
    model = ir.from_onnx_text(MODEL)
    model.graph.doc_string = "kept"
    model.metadata_props["stamp"] = "kept"
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    before = answer(model, x)

    result = SimplifyWithOnnxsim().call(model)

    assert result.model is model
    assert result.rewritten == ["the model"]
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert (model.graph.doc_string, model.metadata_props["stamp"]) == ("kept", "kept")
    np.testing.assert_array_equal(answer(model, x), before)
    assert not SimplifyWithOnnxsim()(model).modified


def test_what_changes_nothing_is_no_change() -> None:
    model = ir.from_onnx_text(MODEL.replace("[1, 0]> (x)", "[1, 0]> (x)\n  r = Relu (a)"))
    assert SimplifyWithOnnxsim()(model).modified
    assert not SimplifyWithOnnxsim()(model).modified


def test_another_order_is_no_change() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[4,4] x) => (float[4,4] y) {
      a = Constant <value = float[4,4] {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> ()
      b = Constant <value = float[4,4] {2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2}> ()
      c = Greater (x, a)
      d = Where (c, x, b)
      e = Loop (, , d) <body = turn (int64 i, bool go, float[4,4] p) => (bool on, float[4,4] q)
        <float[4] k = {1, 2, 3, 4}, float[4] j = {1, 2, 3, 5}> {
          on = Constant <value = bool {0}> ()
          r = Mul (p, k)
          q = Mul (r, j)
        }>
      y = Neg (e)
    }"""
    model = ir.from_onnx_text(text)
    runs = [SimplifyWithOnnxsim()(model).modified for _ in range(6)]
    assert not any(runs[1:])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '<ir_version: 9, opset_import: ["" : 17, "com.example" : 1]>\n'
            "main (float[2] x) => (float[2] y) { y = com.example.Secret (x) }",
            "operators of the domain com.example",
        ),
        (
            '<ir_version: 9, opset_import: ["" : 17, "local" : 1]>\n'
            "main (float[2] x) => (float[2] y) { y = local.f (x) }\n"
            '<domain: "local", opset_import: ["" : 17]> f (a) => (b) { b = Relu (a) }',
            "local functions",
        ),
    ],
)
def test_it_says_why_onnxsim_may_not_run(text: str, reason: str) -> None:
    assert reason in declined(ir.from_onnx_text(text))


def test_weights_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "onnxpress.passes.lossless.simplify_with_onnxsim"
    monkeypatch.setattr(f"{module}.weight_bytes", lambda _model: 2 << 30)
    assert "over 1 GiB" in declined(ir.from_onnx_text(MODEL))


def returning(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make onnxsim answer with another model."""
    proto = onnx.parser.parse_model(text)
    monkeypatch.setattr(onnxsim, "simplify", lambda *_args, **_options: (proto, True))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("float[N,3] x)", "float[N,3] x, float z)", "changes the graph's inputs"),
        ("float[N,3] y)", "float[N,3] y, float[N,3] b)", "changes the graph's outputs"),
        ("Relu (b)", "Relu (c)\n  c = Neg (b)", "makes 4 nodes of 3"),
        (
            "Relu (b)",
            "Add (b, w)\n w = Constant <value = float[20000,1] {" + "0," * 19999 + "0}> ()",
            "adds 80000 bytes of weights",
        ),
    ],
)
def test_a_result_that_is_no_gain(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str
) -> None:
    returning(monkeypatch, MODEL.replace(old, new))
    assert reason in declined(ir.from_onnx_text(MODEL))


def test_a_failure_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("\n  Nodes must be sorted: \n more")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    assert declined(ir.from_onnx_text(MODEL)) == "onnxsim fails: Nodes must be sorted:"


def test_a_model_that_the_checker_rejects_is_declined() -> None:
    unknown = MODEL.replace("Relu (b)", "Gelu (b)")
    assert "No Op registered for Gelu" in declined(ir.from_onnx_text(unknown))


def test_what_onnxsim_prints_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = onnxsim.simplify

    def noisy(*args: object, **options: object) -> object:
        import os

        os.write(1, b"noise\n")
        os.write(2, b"noise\n")
        return real(*args, **options)

    monkeypatch.setattr(onnxsim, "simplify", noisy)
    assert SimplifyWithOnnxsim()(ir.from_onnx_text(MODEL)).modified
    assert capfd.readouterr() == ("", "")


def test_what_onnxsim_prints_where_output_is_redirected_is_not_shown() -> None:
    unknown = MODEL.replace("Relu (b)", "Gelu (b)")
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
        assert declined(ir.from_onnx_text(unknown))
    assert (out.getvalue(), error.getvalue()) == ("", "")


def test_an_input_with_a_default_is_no_constant() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[3] w) => (float[3] y) <float[3] w = {1, 2, 3}> {
      k = Constant <value = float[3] {1, 1, 1}> ()
      y = Add (k, w)
    }"""
    assert "an input has a default" in declined(ir.from_proto(onnx.parser.parse_model(text)))


def test_inputs_and_outputs_stay_as_declared() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,4] x) => (float[M,?] y) {
      k = Constant <value = int64[2] {-1, 4}> ()
      r = Reshape (x, k)
      y = Neg (r)
    }"""
    model = ir.from_onnx_text(text)

    assert SimplifyWithOnnxsim()(model).modified

    declared = [str(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)]
    assert declared == ["[N,4]", "[M,None]"]


def test_false_shapes_of_an_exporter_are_not_believed() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,S,4] x) => (float[N,5,4] y) <float[N,5,4] a> {
      a = Neg (x)
      s = Shape (a)
      r = Relu (x)
      y = Reshape (r, s)
    }"""
    model = ir.from_onnx_text(text)
    assert str(model.graph[0].outputs[0].shape) == "[N,5,4]"
    x = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float32)

    SimplifyWithOnnxsim()(model)

    np.testing.assert_array_equal(answer(model, x), np.maximum(x, 0))
    assert str(model.graph.outputs[0].shape) == "[N,5,4]"


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
    text = MODEL.replace("Relu (b)", "MatMul (b, w)")
    model = ir.from_onnx_text(text, initializers=[ir.tensor(weight, name="w")])
    ir.save(model, tmp_path / "model.onnx", external_data="weights", size_threshold_bytes=0)
    model = ir.load(tmp_path / "model.onnx")
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)

    assert SimplifyWithOnnxsim().call(model).rewritten == ["the model"]

    assert [node.op_type for node in model.graph] == ["MatMul"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(answer(model, x), x @ weight)


def test_large_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = ir.tensor(np.linspace(-1, 1, 64**2, dtype=np.float32).reshape(64, 64), name="w")
    text = MODEL.replace("Relu (b)", "MatMul (b, w)").replace("N,3", "N,64")
    model = ir.from_onnx_text(text, initializers=[weight])
    handed = []
    simplify = onnxsim.simplify

    def spy(proto: onnx.ModelProto, **options: object) -> object:
        handed.append(proto.ByteSize())
        return simplify(proto, **options)

    monkeypatch.setattr(onnxsim, "simplify", spy)

    assert SimplifyWithOnnxsim().call(model).rewritten == ["the model"]

    assert handed[0] < 1000
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.graph.initializers["w"].const_value is weight
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(answer(model, x), x @ weight.numpy(), rtol=1e-6)


def test_a_large_weight_that_is_no_longer_read_goes() -> None:
    weight = ir.tensor(np.ones((2000,), np.float32), name="w")
    text = MODEL.replace("Relu (b)", "Relu (b)\n  s = Shape (w)\n  t = Identity (s)")
    model = ir.from_onnx_text(text, initializers=[weight])

    assert SimplifyWithOnnxsim().call(model).rewritten == ["the model"]

    assert list(model.graph.initializers) == []


def test_constants_of_an_old_ir_version_need_not_be_inputs() -> None:
    text = MODEL.replace("ir_version: 9", "ir_version: 3").replace("17", "9")
    weight = ir.tensor(np.ones((3, 3), np.float32), name="w")
    model = ir.from_onnx_text(text.replace("Relu (b)", "MatMul (b, w)"), initializers=[weight])

    assert SimplifyWithOnnxsim().call(model).rewritten == ["the model"]

    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [node.op_type for node in model.graph] == ["MatMul"]


def test_the_option_is_text_too() -> None:
    (step,) = parse("simplify-with-onnxsim{max_growth=0}").steps()
    assert step.run == SimplifyWithOnnxsim(max_growth=0)
    with pytest.raises(UsageError, match="negative"):
        SimplifyWithOnnxsim(max_growth=-1)
