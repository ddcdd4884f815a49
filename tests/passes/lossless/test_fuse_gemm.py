"""MatMul and Add become one Gemm where both factors are matrices, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fuse_gemm import FuseGemm

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
WEIGHTS = "<float[3,2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {7, 8}>"
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def main(body: str, x: str = "float[N,3] x", y: str = "float[N,2] y", held: str = WEIGHTS) -> str:
    return HEAD + f"main ({x}) => ({y}) {held} {{{body}}}"


def fuse(model: ir.Model) -> Result:
    return FuseGemm().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


@pytest.mark.parametrize("add", ["Add (p, b)", "Add (b, p)"])
def test_the_graph_that_is_left(add: str, build: Build, answers: Answers) -> None:
    model = build(main(f"p = MatMul (x, w)  y = {add}"))
    before = answers(model, x=X)["y"]

    assert fuse(model).rewritten

    text = ir.to_onnx_text(model)
    assert "y = Gemm (x, w, b)" in text
    assert "(float[N,2] y)" in text
    assert kinds(model) == ["Gemm"]
    np.testing.assert_allclose(answers(model, x=X)["y"], before, rtol=1e-6, atol=1e-6)
    assert not fuse(model).modified


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
@pytest.mark.parametrize("added", ["{0} b = {{7}}", "{0}[1,2] b = {{7, 8}}", "{0}[1] b = {{7}}"])
def test_what_may_be_added(
    opset: int, dtype: str, added: str, build: Build, answers: Answers
) -> None:
    held = f"<{dtype}[3,2] w = {{1, 2, 3, 4, 5, 6}}, {added.format(dtype)}>"
    text = main("p = MatMul (x, w)  y = Add (p, b)", held=held).replace("17", str(opset))
    model = build(text.replace("float[N", f"{dtype}[N"))
    x = X.astype(ir.DataType[dtype.upper()].numpy())
    before = answers(model, x=x)["y"]

    fuse(model)

    assert kinds(model) == ["Gemm"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=4e-3, atol=4e-3)


def test_sums_of_products_one_after_the_other(build: Build, answers: Answers) -> None:
    model = build(
        main(
            "p = MatMul (x, w)  s = Add (p, b)  q = MatMul (x, v)  y = Add (s, q)",
            held=WEIGHTS[:-1] + ", float[3,2] v = {6, 5, 4, 3, 2, 1}>",
        )
    )
    before = answers(model, x=X)["y"]

    fuse(model)

    assert kinds(model) == ["Gemm", "Gemm"]
    np.testing.assert_allclose(answers(model, x=X)["y"], before, rtol=1e-5, atol=1e-5)


def test_inside_a_branch(build: Build, answers: Answers) -> None:
    model = build(
        main(
            """y = If (c) <
              then_branch = t () => (float[N,2] r) { p = MatMul (x, w)  r = Add (p, b) },
              else_branch = e () => (float[N,2] r) { r = MatMul (x, w) }
            >""",
            x="float[N,3] x, bool c",
        )
    )
    before = answers(model, x=X, c=np.array(True))["y"]
    fuse(model)
    assert kinds(model) == ["If", "Gemm", "MatMul"]
    after = answers(model, x=X, c=np.array(True))["y"]
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


SUM = "p = MatMul (x, w)  y = Add (p, b)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (main(SUM, x="float[N,M,3] x", y="float[N,M,2] y"), "not known to be matrices"),
        (main(SUM, x="float[3] x", y="float[2] y"), "not known to be matrices"),
        (main(SUM, x="float[3] x, float[3,2] w", y="float[2] y", held="<float[2] b = {7, 8}>"),
         "not known to be matrices"),
        (main(SUM, x="float[N,3] x, float[K,2] b", held="<float[3,2] w = {1,2,3,4,5,6}>"),
         "what is added to it may be larger"),
        (main(SUM, x="float[1,3] x, float[K,2] b", held="<float[3,2] w = {1,2,3,4,5,6}>"),
         "what is added to it may be larger"),
        (main(SUM, x="float[N,3] x, float[1,1,2] b", held="<float[3,2] w = {1,2,3,4,5,6}>"),
         "not known to be a matrix or less"),
        (main(SUM + " z = Neg (p)", y="float[N,2] y, float[N,2] z"), "read elsewhere"),
        (main(SUM, y="float[N,2] y, float[N,2] p"), "read elsewhere"),
        (main(SUM.replace("p = ", "u = DequantizeLinear (v, s)  p = ").replace(", w)", ", u)"),
              held="<uint8[3,2] v = {1,2,3,4,5,6}, float s = {0.5}, float[2] b = {7, 8}>"),
         "it multiplies what is dequantized"),
        (main(SUM, held="<int32[3,2] w = {1,2,3,4,5,6}, int32[2] b = {7, 8}>").replace(
            "float", "int32"), "no Gemm for its type"),
    ],
)  # fmt: skip
def test_what_is_declined(text: str, reason: str, build: Build) -> None:
    model = build(text)
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert ir.to_onnx_text(model) == before
    [declined] = result.declined.values()
    assert reason in declined


@pytest.mark.parametrize(
    "body", ["p = MatMul (x, w)  y = Add (p, p)", "y = MatMul (x, w)", "y = Add (x, x)"]
)
def test_what_is_no_match(body: str, build: Build) -> None:
    result = fuse(build(main(body)))
    assert (result.modified, result.declined) == (False, {})
