from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.lift_convolutions import LiftConvolutions
from tests.passes.lossless.conftest import Answers

Build = Callable[..., ir.Model]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RNG.normal(size=shape).astype(np.float32)


def graph(body: str, dims: str = "N,64,L", opset: int = 17) -> str:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return f"{head}\ng (float[{dims}] x) => (float[a,b,c] y) {{ {body} }}"


STRIDED = "y = Conv <kernel_shape = [3], strides = [2], pads = [0, 1], dilations = [2]> (x, w, b)"
DEPTHWISE = "y = Conv <kernel_shape = [3], group = 64> (x, w)"
ROW = """
    c = Conv <pads = [1, 1]> (x, w)
    r = Relu (c)
    p = MaxPool <kernel_shape = [2], strides = [2], pads = [1, 0]> (r)
    d = Conv <auto_pad = "SAME_UPPER"> (p, v)
    s = Sigmoid (d)
    y = Mul (d, s)"""


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        (STRIDED, {"w": (32, 64, 3), "b": (32,)}),
        (DEPTHWISE, {"w": (64, 1, 3)}),
        (ROW, {"w": (32, 64, 3), "v": (16, 32, 3)}),
    ],
)
@pytest.mark.parametrize("opset", [11, 13, 17])
def test_answers_stay(
    build: Build, answers: Answers, body: str, arrays: dict[str, tuple[int, ...]], opset: int
) -> None:
    model = build(graph(body, opset=opset), **{name: normal(*s) for name, s in arrays.items()})
    x = normal(2, 64, 13)
    before = answers(model, x=x)["y"]

    assert LiftConvolutions()(model).modified

    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)
    assert not LiftConvolutions()(model).modified


def test_the_graph_that_comes_out(build: Build) -> None:
    model = build(graph(STRIDED), w=normal(32, 64, 3), b=normal(32))

    result = LiftConvolutions().call(model)

    assert result.rewritten == ["Conv -> y"]
    up, conv, down = model.graph
    assert [node.op_type for node in model.graph] == ["Unsqueeze", "Conv", "Squeeze"]
    assert conv.attributes["kernel_shape"].as_ints() == (1, 3)
    assert conv.attributes["strides"].as_ints() == (1, 2)
    assert conv.attributes["dilations"].as_ints() == (1, 2)
    assert conv.attributes["pads"].as_ints() == (0, 0, 0, 1)
    assert model.graph.outputs[0] is down.outputs[0]
    shapes = {name: str(value.shape) for name, value in model.graph.initializers.items()}
    assert shapes["w.lifted"] == "[32,64,1,3]"
    assert "w" not in shapes
    assert up.inputs[1] is not None
    assert str(model.graph.outputs[0].shape) == "[a,b,c]"


def test_what_is_between_stays_lifted(build: Build) -> None:
    model = build(graph(ROW), w=normal(32, 64, 3), v=normal(16, 32, 3))

    LiftConvolutions()(model)

    assert [node.op_type for node in model.graph] == [
        "Unsqueeze", "Conv", "Relu", "MaxPool", "Conv", "Sigmoid", "Mul", "Squeeze",
    ]  # fmt: skip


def test_a_value_that_others_read_is_lowered_once_for_all(build: Build, answers: Answers) -> None:
    body = """
        c = Conv <strides = [2]> (x, w)
        r = Relu (c)
        e = Exp (r)
        f = Neg (r)
        d = Conv <strides = [2]> (r, v)
        g = GlobalAveragePool (d)
        h = Add (e, f)
        y = Mul (h, g)"""
    arrays = {"w": normal(16, 64, 2) / 9, "v": normal(16, 16, 8) / 9}
    model = build(graph(body), **arrays)
    x = normal(1, 64, 40)
    before = answers(model, x=x)["y"]

    LiftConvolutions()(model)

    operators = [node.op_type for node in model.graph]
    assert operators.count("Squeeze") == 2
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


def test_two_rows_that_are_summed_are_one(build: Build, answers: Answers) -> None:
    body = "a = Conv (x, w) b = Conv (x, v) y = Add (a, b)"
    model = build(graph(body), w=normal(16, 64, 3), v=normal(16, 64, 3))
    x = normal(1, 64, 9)
    before = answers(model, x=x)["y"]

    LiftConvolutions()(model)

    operators = [node.op_type for node in model.graph]
    assert operators == ["Unsqueeze", "Conv", "Conv", "Add", "Squeeze"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


def test_a_shared_weight_is_written_once(build: Build) -> None:
    body = "a = Conv <strides = [2]> (x, w) y = Conv <strides = [2]> (a, w)"
    model = build(graph(body), w=normal(64, 64, 3))

    LiftConvolutions()(model)

    assert [name for name in model.graph.initializers if "axes" not in name] == ["w.lifted"]


def test_convolutions_in_branches_and_functions(build: Build, answers: Answers) -> None:
    numbers = ",".join(["0.5"] * 64)
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
      g (float[N,64,L] x, bool b) => (float[a,b,c] y) {
        u = local.f (x)
        y = If (b) <
          then_branch = t () => (float[a,b,c] p) { p = Conv <group = 64> (u, w) },
          else_branch = e () => (float[a,b,c] q) { q = Identity (u) }>
      }
      <opset_import: ["" : 17], domain: "local"> f (x) => (y) {
        k = Constant <value = float[64,1,1] {NUMBERS}> ()
        y = Conv <group = 64> (x, k)
      }"""
    model = build(text.replace("NUMBERS", numbers), w=normal(64, 1, 3))
    feeds = {"x": normal(1, 64, 8), "b": np.array(True)}
    before = answers(model, **feeds)["y"]

    result = LiftConvolutions().call(model)

    assert len(result.rewritten) == 2
    np.testing.assert_allclose(answers(model, **feeds)["y"], before, rtol=1e-5, atol=1e-5)


def declined(model: ir.Model, target: Target | None = None) -> str:
    result: Result = LiftConvolutions().rewrite(model, Context(target=target or Target("cpu")))
    assert not result.modified
    (reason,) = result.declined.values()
    return reason


@pytest.mark.parametrize(
    ("body", "shape", "reason"),
    [
        ("y = Conv (x, w)", (64, 64, 3), "no faster"),
        ("y = Conv <strides = [2]> (x, w)", (64, 64, 1), "no faster"),
        ("y = Conv <strides = [2]> (x, w)", (64, 64, 24), "no faster"),
        ("y = Conv <strides = [2]> (x, w)", (50, 64, 3), "do not fill blocks"),
        ("y = Conv <group = 4> (x, w)", (32, 16, 3), "do not fill blocks"),
        ("y = Conv <group = 64> (x, w)", (128, 1, 3), "do not fill blocks"),
    ],
)
def test_refusals(build: Build, body: str, shape: tuple[int, ...], reason: str) -> None:
    assert reason in declined(build(graph(body), w=normal(*shape)))


def test_other_types_and_targets_stay(build: Build) -> None:
    text = graph(DEPTHWISE).replace("float[", "double[")
    assert "only float32" in declined(build(text, w=np.ones((64, 1, 3))))
    other = build(graph(DEPTHWISE), w=normal(64, 1, 3))
    assert "CPU provider" in declined(other, Target("cuda"))


def test_two_dimensions_are_no_near_miss(build: Build) -> None:
    text = graph("y = Conv <strides = [2, 2]> (x, w)", "N,64,L,L")
    assert not LiftConvolutions().call(build(text, w=normal(64, 64, 3, 3))).declined
