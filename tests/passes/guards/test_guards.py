"""Guards leave ordinary runs as they are and screen, flag or tell what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxpress
from onnxpress.backends.base import Feeds
from onnxpress.backends.errors import DataError, OnnxpressError, UsageError
from onnxpress.compiler.verify import check_signature
from onnxpress.passes.base import Context, Result
from onnxpress.passes.errors import PassError
from onnxpress.passes.guards.guard_inputs import GuardInputs
from onnxpress.passes.guards.guard_outputs import GuardOutputs

NAN, INF = np.nan, np.inf


class Samples:
    """Samples of ``x``, one a row."""

    def __init__(self, *rows: list[float], dtype: Any = np.float32) -> None:
        self.rows = np.array(rows, dtype)

    def batches(self, size: int) -> Iterator[Feeds]:
        for start in range(0, len(self.rows), size):
            yield {"x": self.rows[start : start + size]}


def model(opset: int = 17, dtype: str = "float", body: str = "y = Exp(x)") -> ir.Model:
    text = f"""<ir_version: 9, opset_import: ["" : {opset}]>
    g ({dtype}[n, 2] x) => ({dtype}[n, 2] y) {{ {body} }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def guard(one: ir.Model, pass_: Any, samples: Samples | None = None) -> Result:
    result: Result = pass_.rewrite(one, Context(data=samples))
    onnx.checker.check_model(ir.to_proto(one), full_check=True)
    return result


def run(one: ir.Model, *rows: list[float], dtype: Any = np.float32) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(one).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    feeds = {"x": np.array(rows, dtype).reshape(-1, 2)}
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_inputs_are_clipped_and_nan_is_replaced(opset: int) -> None:
    one = model(opset, body="y = Relu(x)")

    guard(one, GuardInputs(margin=0.5, fill=0.25), Samples([0, 1], [0.5, 1]))

    found = run(one, [0, 1], [-9, 9], [NAN, INF], [-INF, 1.2])["y"]
    assert found.tolist() == pytest.approx(
        np.array([[0, 1], [0, 1.5], [0.25, 1.5], [0, 1.2]], np.float32)
    )


@pytest.mark.parametrize(
    ("dtype", "numpy"), [("float", np.float32), ("double", np.float64), ("float16", np.float16)]
)
def test_every_type_of_floats_is_screened_and_told(dtype: str, numpy: Any) -> None:
    one = model(17, dtype, "y = Identity(x)")

    guard(one, GuardInputs(nonfinite="flag", clip=False))
    guard(one, GuardOutputs())

    largest = float(np.finfo(numpy).max)
    fine, odd = run(one, [1, largest], dtype=numpy), run(one, [NAN, INF], dtype=numpy)
    assert fine["y"].tolist() == [[1, largest]]
    assert fine["inputs_finite"] is np.True_ or bool(fine["inputs_finite"]) is True
    assert odd["y"].tolist() == [[0, largest]]
    assert not odd["inputs_finite"]
    assert odd["outputs_finite"]
    assert odd["outputs_finite"].shape == ()


def test_an_answer_that_overflows_is_told_and_the_others_stay() -> None:
    one, plain = model(), model()

    guard(one, GuardOutputs(output="fine"))

    for rows in ([[1.0, 2.0]], [[1.0, 200.0]], [[NAN, 0.0]], []):
        found, wanted = run(one, *rows), run(plain, *rows)
        np.testing.assert_array_equal(found["y"], wanted["y"])
        assert bool(found["fine"]) == bool(np.isfinite(wanted["y"]).all())
    assert check_signature(plain, one) == []
    assert check_signature(one, plain) != []


def test_a_second_time_nothing_is_done_even_after_saving(tmp_path: Path) -> None:
    one = model()
    guard(one, GuardInputs(nonfinite="flag"), Samples([0, 1]))
    guard(one, GuardOutputs())
    onnxpress.save(one, tmp_path / "guarded.onnx")
    again = onnxpress.load(tmp_path / "guarded.onnx")
    count = len(again.graph)

    for pass_ in (GuardInputs(nonfinite="flag"), GuardOutputs()):
        assert not guard(again, pass_, Samples([0, 1])).modified
    assert len(again.graph) == count


def test_bodies_read_the_screened_input_as_well() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]>
    g (bool c, float[n, 2] x) => (float[n, 2] y) {
      y = If (c) <then_branch = t () => (float[n, 2] a) { a = Neg(x) },
                  else_branch = e () => (float[n, 2] b) { b = Identity(x) }>
    }"""
    one = ir.from_proto(onnx.parser.parse_model(text))

    result = guard(one, GuardInputs(clip=False))

    assert result.declined == {"c": "it is no tensor of floats"}
    session = ort.InferenceSession(ir.to_proto(one).SerializeToString())
    (found,) = session.run(None, {"c": np.array(True), "x": np.array([[NAN, 1]], np.float32)})
    assert found.tolist() == [[0, -1]]


@pytest.mark.parametrize(
    ("one", "because"),
    [
        (model(8, body="y = Relu(x)"), "opset 9 is the first that tells NaN"),
        (model(dtype="int32", body="y = Abs(x)"), "it is no tensor of floats"),
    ],
)
def test_what_cannot_be_screened_is_declined(one: ir.Model, because: str) -> None:
    result = guard(one, GuardInputs(clip=False))

    assert result.declined == {"x": because}
    assert not result.modified
    assert not guard(one, GuardOutputs()).modified


def test_sequences_and_optionals_of_floats_are_left() -> None:
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    )
    kind = onnx.helper.make_optional_type_proto(kind)
    one = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) {y = Identity(x)}'
    )
    proto = ir.to_proto(one)
    proto.graph.input[0].type.CopyFrom(kind)
    proto.graph.output[0].type.CopyFrom(kind)
    one = ir.from_proto(proto)

    for result in (guard(one, GuardInputs(clip=False)), guard(one, GuardOutputs())):
        assert not result.modified
        assert list(result.declined.values()) == ["it is no tensor of floats"]


@pytest.mark.parametrize(
    ("options", "samples", "error"),
    [
        ({}, None, PassError),
        ({}, Samples([NAN, NAN]), DataError),
        ({"nonfinite": "ignore"}, None, UsageError),
        ({"margin": -0.1}, None, UsageError),
        ({"fill": NAN}, None, UsageError),
        ({"samples": -1}, None, UsageError),
    ],
)
def test_what_cannot_be_meant_is_refused(
    options: dict[str, Any], samples: Samples | None, error: type[OnnxpressError]
) -> None:
    with pytest.raises(error):
        GuardInputs(**options).rewrite(model(), Context(data=samples))


def test_a_guarded_model_passes_verification() -> None:
    outcome = onnxpress.optimize(
        model(body="y = Relu(x)"), passes="guard-inputs{clip=false},guard-outputs", time=False
    )

    assert [record.status for record in outcome.report.passes] == ["ok", "ok"]
    assert outcome.report.verified["status"] == "ok"
