"""Sizes of operands get names, and ONNX Runtime then fuses the sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.layout import operators, optimized
from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.name_sizes import NameSizes

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
W, V = (RNG.normal(size=(32, 32, 3, 3)).astype(np.float32) for _ in range(2))
X = RNG.normal(size=(2, 32, 5, 7)).astype(np.float32)
GATED = """
  a = Conv <pads = [1, 1, 1, 1]> (x, w)
  p = GlobalAveragePool (a) g = Sigmoid (p) m = Mul (a, g)
  c = Conv <pads = [1, 1, 1, 1]> (m, v)
  s = Add (c, a)
  y = Conv (s, w)"""


def main(body: str, x: str = "float[N,32,H,W] x", y: str = "float[n,c,h,w] y") -> str:
    return f'<ir_version: 8, opset_import: ["" : 17]>\nmain ({x}) => ({y}) {{\n{body}\n}}'


def name(model: ir.Model, target: str = "cpu") -> Result:
    return NameSizes().rewrite(model, Context(target=Target(target)))  # type: ignore[arg-type]


def shapes(model: ir.Model) -> dict[str | None, str]:
    return {
        output.name: str(output.shape)
        for node in model.graph
        for output in node.outputs
        if output.shape is not None and not output.is_graph_output()
    }


def test_operands_get_the_names_of_the_inputs(build: Build, answers: Answers) -> None:
    model = build(main(GATED), w=W, v=V)
    before = answers(model, x=X)
    result = name(model)

    assert result.rewritten == ["Add -> s"]
    assert shapes(model) == {"a": "[N,32,H,W]", "c": "[N,32,H,W]"}
    np.testing.assert_array_equal(answers(model, x=X)["y"], before["y"])
    assert not name(model).modified


def test_the_sum_is_fused(build: Build) -> None:
    model = build(main(GATED), w=W, v=V)
    assert operators(optimized(ir.to_proto(model)))["Add"] == 1
    name(model)
    found = operators(optimized(ir.to_proto(model)))
    assert found["Add"] == found["Reshape"] == 0


def test_sizes_that_no_input_has_are_named_as_well(build: Build) -> None:
    halved = GATED.replace("[1, 1, 1, 1]> (x", "[1, 1, 1, 1], strides = [2, 2]> (x")
    model = build(main(halved, x="float[N,32,?,?] x"), w=W, v=V)
    assert name(model).modified
    assert shapes(model)["a"] == shapes(model)["c"]
    assert operators(optimized(ir.to_proto(model)))["Add"] == 0


def test_what_a_model_says_is_not_believed(build: Build) -> None:
    model = build(main(GATED), w=W, v=V)
    stale = next(node for node in model.graph if node.op_type == "Add").inputs[0]
    assert stale is not None
    stale.shape = ir.Shape([2, 32, "H", "H"])
    name(model)
    assert shapes(model)["c"] == "[N,32,H,W]"


@pytest.mark.parametrize(
    ("body", "because"),
    [
        (GATED.replace("Add (c, a)", "Add (c, g)"), "not known to have the same sizes"),
        (GATED.replace("s = Add (c, a)", "h = Resize (a, , k) s = Add (c, h)"), "the same sizes"),
        (GATED.replace("y = Conv (s, w)", "z = Add (s, a) y = Add (z, s)"), ""),
    ],
)
def test_what_is_declined(body: str, because: str, build: Build) -> None:
    scales = np.array([1, 1, 1, 1], np.float32)
    given = {"k": scales} if "Resize" in body else {}
    result = name(build(main(body), w=W, v=V, **given))
    assert any(because in reason for reason in result.declined.values()) or not because
    assert result.modified == (not because)


def test_outputs_keep_the_type_that_users_see(build: Build) -> None:
    model = build(main(GATED, y="float[n,c,h,w] y, float[n,c,h,w] a"), w=W, v=V)
    assert list(name(model).declined.values())[-1] == "an operand is an output of the graph"


def test_half_precision_is_left(build: Build) -> None:
    text = main(GATED, x="float16[N,32,H,W] x").replace("float[n", "float16[n")
    result = name(build(text, w=W.astype(np.float16), v=V.astype(np.float16)))
    assert "only float32 runs in the blocked layout" in result.declined.values()


@pytest.mark.parametrize("x", ["float[N,32,8,9] x", "float[2,32,8,9] x"])
def test_images_of_fixed_sizes_are_known(x: str, build: Build) -> None:
    model = build(main(GATED, x=x), w=W, v=V)
    assert not name(model).modified
    assert operators(optimized(ir.to_proto(model)))["Add"] == 0


@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_only_cpus_have_that_layout(target: str, build: Build) -> None:
    assert not name(build(main(GATED), w=W, v=V), target).modified


def test_inside_of_a_branch(build: Build, answers: Answers) -> None:
    inner = GATED.replace("y = Conv (s, w)", "t = Conv (s, w)")
    body = f"""
      r = Relu (x) k = Conv (r, w)
      y = If (b) <
        then_branch = then () => (float[n,c,h,w] t) {{ {inner} }},
        else_branch = else () => (float[n,c,h,w] u) {{ u = Neg (x) }}>"""
    model = build(main(body, x="float[N,32,H,W] x, bool b"), w=W, v=V)
    before = answers(model, x=X, b=np.array(True))
    assert name(model).rewritten == ["Add -> s"]
    np.testing.assert_array_equal(answers(model, x=X, b=np.array(True))["y"], before["y"])
