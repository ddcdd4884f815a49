"""FuseSiblings: narrow layers that read the same become one and a Split, wide ones do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fuse_siblings import FuseSiblings

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
CONVS = (
    HEAD
    + """main (float[N,3,H,W] x) => (float[N,4,H,W] a, float[N,2,H,W] b) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, c1)
  p = Conv <pads = [1, 1, 1, 1]> (x, w2)
  b = Relu (p)
}"""
)
PRODUCTS = (
    HEAD
    + """main (float[N,S,3] x) => (float[N,S,4] a, float[N,S,2] b) {
  p = MatMul (x, m1)
  a = Add (p, c1)
  q = MatMul (x, m2)
  r = Add (c2, q)
  b = Relu (r)
}"""
)
GEMMS = (
    HEAD
    + """main (float[32,3] x) => (float[32,4] a, float[32,2] b) {
  a = Gemm <beta = 0.5> (x, m1, c1)
  b = Gemm (x, m2)
}"""
)


def arrays(text: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes: dict[str, tuple[int, ...]] = {"w1": (4, 3, 3, 3), "w2": (2, 3, 3, 3), "w3": (2, 3, 1, 1)}
    sizes |= {"w9": (9, 3, 3, 3), "l1": (4, 3, 3), "l2": (2, 3, 3), "v1": (4, 3, 1, 1, 1)}
    sizes |= {"m1": (3, 4), "m2": (3, 2), "m9": (3, 9), "t1": (4, 3), "t2": (2, 3)}
    sizes |= {"g1": (3, 1, 3, 3), "c1": (4,), "c2": (2,)}
    dtype = np.float16 if "float16" in text else np.float32
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {
        name: rng.normal(size=size).astype(dtype) for name, size in sizes.items() if name in words
    }


def fuse(model: ir.Model, target: Target | None = None) -> Result:
    return FuseSiblings().rewrite(model, Context(target=target or Target()))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


def assert_same(build: Build, answers: Answers, text: str, shape: tuple[int, ...]) -> ir.Model:
    """Fuse ``text`` and compare the answers; the model that is left."""
    model, original = build(text, **arrays(text)), build(text, **arrays(text))
    result = fuse(model)
    assert result.modified, result.declined
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for name, expected in answers(original, x=x).items():
        np.testing.assert_allclose(answers(model, x=x)[name], expected, rtol=1e-5, atol=1e-5)
    assert not fuse(model).modified
    return model


def test_the_convs_that_are_left(build: Build) -> None:
    model = build(CONVS, **arrays(CONVS))

    assert fuse(model).rewritten == ["Conv -> a"]

    assert kinds(model) == ["Conv", "Split", "Relu"]
    conv, split, relu = model.graph
    weight, bias = (value.const_value for value in conv.inputs[1:] if value is not None)
    assert weight is not None
    assert bias is not None
    assert (list(weight.shape), list(bias.shape)) == ([6, 3, 3, 3], [6])
    assert not bias.numpy()[4:].any()
    assert split.attributes["axis"].as_int() == 1
    assert (split.outputs[0], relu.outputs[0]) == tuple(model.graph.outputs)
    assert sorted(model.graph.initializers) == ["a.bias", "a.sizes", "a.weight"]


@pytest.mark.parametrize("opset", [9, 13, 22])
def test_convs(build: Build, answers: Answers, opset: int) -> None:
    model = assert_same(build, answers, CONVS.replace("17]", f"{opset}]"), (2, 3, 5, 4))
    assert kinds(model).count("Conv") == 1


def test_convs_of_one_axis_and_without_biases(build: Build, answers: Answers) -> None:
    text = CONVS.replace("1, 1, 1, 1", "1, 1").replace(",H,W", ",W").replace(", c1", "")
    text = text.replace("w1", "l1").replace("w2", "l2")
    model = assert_same(build, answers, text, (2, 3, 5))
    assert len(model.graph[0].inputs) == 2


@pytest.mark.parametrize("opset", [9, 17])
def test_products(build: Build, answers: Answers, opset: int) -> None:
    model = assert_same(build, answers, PRODUCTS.replace("17]", f"{opset}]"), (2, 5, 3))
    assert kinds(model) == ["MatMul", "Add", "Split", "Relu"]


def test_products_of_many_rows_without_biases(build: Build, answers: Answers) -> None:
    text = PRODUCTS.replace("Add (p, c1)", "Identity (p)").replace("Add (c2, q)", "Identity (q)")
    model = assert_same(build, answers, text.replace("N,S", "2,16"), (2, 16, 3))
    assert kinds(model).count("MatMul") == kinds(model).count("Split") == 1


@pytest.mark.parametrize(
    "text",
    [
        GEMMS,
        GEMMS.replace("<beta = 0.5>", "<transB = 1, alpha = 0.5>")
        .replace("Gemm (x", "Gemm <alpha = 0.5, transB = 1> (x")
        .replace("m1", "t1")
        .replace("m2", "t2"),
    ],
)
def test_gemms(build: Build, answers: Answers, text: str) -> None:
    assert kinds(assert_same(build, answers, text, (32, 3))) == ["Gemm", "Split"]


def test_an_attribute_that_may_come_in_any_order_is_the_same(build: Build) -> None:
    text = CONVS.replace(
        "<pads = [1, 1, 1, 1]> (x, w2)", "<group = 1, pads = [1, 1, 1, 1]> (x, w2)"
    )
    text = text.replace("<pads = [1, 1, 1, 1]> (x, w1", "<pads = [1, 1, 1, 1], group = 1> (x, w1")
    assert fuse(build(text, **arrays(text))).modified


def test_inside_a_branch(build: Build, answers: Answers) -> None:
    text = f"""{HEAD}
      main (float[N,S,3] x, bool c) => (float[N,S,2] y) {{
        y = If (c) <then_branch = yes () => (float[N,S,2] s) {{
            p = MatMul (x, m2)  a = Add (p, c2)  q = MatMul (x, m2)  b = Add (q, c2)
            s = Sub (a, b) }}, else_branch = no () => (float[N,S,2] t) {{
            t = MatMul (x, m2) }}>
      }}"""
    model, original = build(text, **arrays(text)), build(text, **arrays(text))
    assert fuse(model).modified
    for given in (True, False):
        fed = {"x": np.ones((2, 3, 3), np.float32), "c": np.array(given)}
        np.testing.assert_allclose(
            answers(model, **fed)["y"], answers(original, **fed)["y"], rtol=1e-5, atol=1e-5
        )


def test_inside_a_function_of_an_old_version(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 11, "local" : 1]>
      main (float[2,3,4,4] x) => (float[2,2,4,4] y) { y = local.heads (x, w3) }
      <domain: "local", opset_import: ["" : 11]>
      heads (x, given) => (y) {
        w = Constant <value = float[2,3,1,1] {1, 2, 3, 4, 5, 6}> ()
        v = Constant <value = float[2,3,1,1] {6, 5, 4, 3, 2, 1}> ()
        a = Conv (x, w)
        b = Conv (x, v)
        s = Sub (a, b)
        g = Conv (x, given)
        y = Add (s, g)
      }"""
    model, original = build(text, **arrays(text)), build(text, **arrays(text))
    assert fuse(model).rewritten == ["Conv -> a"]
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        answers(model, x=x)["y"], answers(original, x=x)["y"], rtol=1e-5, atol=1e-5
    )


DYNAMIC = GEMMS.replace("32,", "N,")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CONVS.replace("w2", "w9").replace("N,2,", "N,9,"), "so many channels"),
        (PRODUCTS.replace("(x, m2)", "(x, m9)").replace("Add (c2, q)", "Identity (q)").replace(
            "Add (p, c1)", "Identity (p)").replace("S,2]", "S,9]"), "so many channels"),
        (DYNAMIC, "so many rows"),
        (PRODUCTS.replace("Add (c2, q)", "Identity (q)").replace("Add (p, c1)", "Identity (p)"),
         "so many rows"),
        (GEMMS.replace("<beta = 0.5>", "<transA = 1>").replace("Gemm (x", "Gemm <transA = 1> (x")
         .replace("32,3] x", "3,32] x"), "matrices"),
        (PRODUCTS.replace("float[N,S,3] x", "float x"), "matrices"),
        (CONVS.replace("(x, w1, c1)", "(x, g1)").replace("(x, w2)", "(x, g1)").replace(
            "1]>", "1], group = 3>").replace("N,4,", "N,3,").replace("N,2,", "N,3,"), "groups"),
    ],
)  # fmt: skip
def test_it_declines_and_says_why(build: Build, text: str, reason: str) -> None:
    model = build(text, **arrays(text))
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


def test_what_is_dequantized_is_declined(build: Build) -> None:
    text = CONVS.replace("float[N,3,H,W] x", "uint8[N,3,H,W] u").replace(
        "  a = Conv", "  x = DequantizeLinear (u, s, z)\n  a = Conv"
    )
    model = build(text, **arrays(text), s=np.float32(0.5), z=np.uint8(3))
    result = fuse(model)
    assert not result.modified
    assert "dequantized" in " ".join(result.declined.values())


@pytest.mark.parametrize(
    "text",
    [
        CONVS.replace("w2", "w3"),  # another kernel
        CONVS.replace("<pads = [1, 1, 1, 1]> (x, w2)", "<pads = [0, 0, 2, 2]> (x, w2)"),
        CONVS.replace("(x, w2)", "(y, w2)").replace("] x)", "] x, float[N,3,H,W] y)"),
        CONVS.replace("(x, w2)", "(x, k)").replace("] x)", "] x, float[2,3,3,3] k)"),
        CONVS.replace("float[", "float16["),
        GEMMS.replace("Gemm (x", "Gemm <alpha = 0.5> (x"),
        PRODUCTS.replace("Add (c2, q)", "Identity (q)"),
        PRODUCTS.replace("MatMul (x, m2)", "MatMul (k, x)").replace(
            "3] x)", "3] x, float[2,S] k)").replace("b)", "b, float q)").replace("S,2] b", "2,3] b")
        .replace("Add (c2, q)", "Identity (q)"),
    ],
)  # fmt: skip
def test_what_is_not_alike_is_left_alone(build: Build, text: str) -> None:
    model = build(text, **arrays(text))
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert (result.modified, result.declined) == (False, {})
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("name", ["portable", "cuda"])
def test_other_targets_are_left_alone(build: Build, name: Any) -> None:
    assert not fuse(build(CONVS, **arrays(CONVS)), Target(name=name)).modified
