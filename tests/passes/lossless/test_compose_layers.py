"""ComposeLayers: one layer instead of two in a row, same answers, or a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.compose_layers import ComposeLayers

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

SHAPES: dict[str, tuple[int, ...]] = {
    "up": (8, 2, 1, 1),
    "up3": (8, 2, 3, 3),
    "down": (4, 8, 1, 1),
    "down3": (4, 8, 3, 3),
    "sq3": (2, 2, 3, 3),
    "low": (1, 2, 1, 1),
    "high": (8, 1, 1, 1),
    "gup": (8, 1, 1, 1),
    "gdown": (4, 4, 3, 3),
    "row3": (8, 2, 1, 3),
    "u": (2, 8),
    "d": (8, 4),
    "ut": (8, 2),
    "dt": (4, 8),
    "l": (2, 1),
    "h": (1, 8),
    "b": (8,),
    "b1": (1, 8),
    "b3": (8, 1, 1),
    "rows": (6, 8),
    "c": (4,),
    "k": (),
}


def sample(*shape: int, seed: int = 9, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def constants(text: str, dtype: Any = np.float32) -> dict[str, Array]:
    """Random values for the names that ``text`` reads and does not make."""
    made = {name: sample(*shape, seed=len(name)) for name, shape in SHAPES.items()}
    used = {name: made[name] for name in made if re.search(rf"\b{name}\b", text)}
    return {name: np.asarray(array, dtype) for name, array in used.items()}


def model_text(body: str, x: str, opset: int = 17, kind: str = "float") -> str:
    y = ",".join("mnop"[: x.count(",") + 1])
    return f"""<ir_version: 8, opset_import: ["" : {opset}]>
    main ({kind}[{x}] x) => ({kind}[{y}] y) {{ {body} }}"""


def compose(model: ir.Model) -> Result:
    return ComposeLayers().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


IMAGE = "2,2,7,6"
CONVS = {
    "1x1 and 3x3": "p = Conv (x, up, b) y = Conv (p, down3, c)",
    "1x1 and 3x3 that pads": "p = Conv (x, up) y = Conv <pads = [1,1,1,1]> (p, down3, c)",
    "padded 1x1 and 3x3 that pads": "p = Conv <pads = [1,0,0,2]> (x, up)"
    " y = Conv <pads = [1,1,1,1]> (p, down3, c)",
    "3x3 and 1x1": "p = Conv <pads = [1,1,1,1]> (x, up3, b) y = Conv (p, down, c)",
    "1x1 and 1x1": "p = Conv (x, up, b) y = Conv (p, down)",
    "strides": "p = Conv <strides = [2,1]> (x, up, b) y = Conv <strides = [1,2]> (p, down3)",
    "strides and dilations": "p = Conv <pads = [1,1,1,1], strides = [2,2]> (x, up3, b)"
    " y = Conv <strides = [2,3]> (p, down, c)",
    "dilations": "p = Conv (x, up, b) y = Conv <dilations = [2,2]> (p, down3, c)",
    "full padding": "p = Conv <pads = [0,2,0,2]> (x, row3) y = Conv <pads = [0,1,0,1]> (p, down)",
    "groups": "p = Conv <group = 2> (x, gup, b) y = Conv <group = 2> (p, gdown)",
    "groups and none": "p = Conv <group = 2> (x, gup, b) y = Conv (p, down3)",
    "SAME": "p = Conv <auto_pad = \"SAME_UPPER\"> (x, up)"
    " y = Conv <auto_pad = \"SAME_LOWER\", strides = [2,2]> (p, down3)",
    "a bias of its own": "p = Conv (x, up) q = Add (b3, p) y = Conv (q, down3)",
    "three": "p = Conv (x, up, b) q = Conv (p, down3) y = Conv (q, high4)",
}  # fmt: skip


@pytest.mark.parametrize("body", CONVS.values(), ids=CONVS)
def test_convs_become_one(body: str, build: Build, answers: Answers) -> None:
    given = constants(body) | ({"high4": sample(5, 4, 1, 1)} if "high4" in body else {})
    check(build(model_text(body, IMAGE), **given), answers, ["Conv"])


def check(model: ir.Model, answers: Answers, left: list[str]) -> None:
    (declared,) = model.graph.inputs
    x = sample(*(size if isinstance(size, int) else 3 for size in declared.shape or ()))
    before = answers(model, x=x)["y"]

    result = compose(model)

    assert result.modified
    assert kinds(model) == left
    onnx.checker.check_model(ir.to_proto(model))
    after = answers(model, x=x)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
    assert {name.split(".")[0] for name in model.graph.initializers} == {"y"}
    text = ir.to_onnx_text(model)
    assert not compose(model).modified
    assert ir.to_onnx_text(model) == text


PRODUCTS = {
    "MatMul": ("p = MatMul (x, u) y = MatMul (p, d)", ["MatMul"]),
    "a bias between": (
        "p = MatMul (x, u) q = Add (p, b) y = MatMul (q, d)",
        ["MatMul", "Add"],
    ),
    "a bias behind": (
        "p = MatMul (x, u) q = Add (b, p) r = MatMul (q, d) y = Add (c, r)",
        ["MatMul", "Add"],
    ),
    "a number between": (
        "p = MatMul (x, u) q = Add (k, p) r = MatMul (q, d) y = Add (r, k)",
        ["MatMul", "Add"],
    ),
    "Gemm": (
        "p = Gemm <alpha = 0.5, beta = 2.0> (x, u, b) y = Gemm <alpha = 3.0, beta = 0.1> (p, d, c)",
        ["Gemm"],
    ),
    "turned weights": ("p = Gemm <transB = 1> (x, ut) y = Gemm <transB = 1> (p, dt, k)", ["Gemm"]),
    "a bias per row": ("p = Gemm (x, u, rows) y = Gemm (p, d, c)", ["Gemm"]),
    "Gemm and MatMul": ("p = Gemm (x, u, b1) y = MatMul (p, d)", ["MatMul", "Add"]),
    "MatMul and Gemm": ("p = MatMul (x, u) y = Gemm (p, d, c)", ["Gemm"]),
    "a turned input": ("p = Gemm <transA = 1> (x, u, b) y = Gemm (p, d)", ["Gemm"]),
}


@pytest.mark.parametrize(("body", "left"), PRODUCTS.values(), ids=PRODUCTS)
def test_products_become_one(body: str, left: list[str], build: Build, answers: Answers) -> None:
    x = "2,6" if "transA" in body else "6,2"
    check(build(model_text(body, x), **constants(body)), answers, left)


def test_products_of_many_axes(build: Build, answers: Answers) -> None:
    body = PRODUCTS["a bias behind"][0]
    check(build(model_text(body, "n,3,5,2"), **constants(body)), answers, ["MatMul", "Add"])


REFUSED = {
    "one Conv would take more multiplications": (
        "p = Conv (x, low) y = Conv (p, high)",
        "p = Conv <pads = [1,1,1,1]> (x, sq3) y = Conv (p, sq3)",
    ),
    "one product would take more multiplications": ("p = MatMul (x, l) y = MatMul (p, h)",),
    "the second Conv pads with zeros where the first one would answer with its bias": (
        "p = Conv (x, up, b) y = Conv <pads = [0,0,0,1]> (p, down3)",
        "p = Conv (x, up) q = Add (p, b3) y = Conv <auto_pad = \"SAME_UPPER\"> (q, down3)",
    ),
    "the second Conv pads with zeros where the first one would see its input": (
        "p = Conv <pads = [0,1,0,2]> (x, row3) y = Conv <pads = [0,1,0,1]> (p, down)",
        "p = Conv <pads = [0,2,0,1]> (x, row3) y = Conv <pads = [0,0,0,1]> (p, down)",
    ),
    "what is in between is read elsewhere as well": (
        "p = Conv (x, up) q = Conv (p, down) r = Relu (p) s = Conv (r, down) y = Add (q, s)",
    ),
    "the weight of Conv is not constant": (
        "v = Relu (up) p = Conv (x, v) y = Conv (p, down)",
        "v = Relu (down) p = Conv (x, up) y = Conv (p, v)",
    ),
    "how Conv pads depends on sizes that are not known": (
        "p = Conv (x, up) y = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (p, down3)",
    ),
    "Gemm reads it transposed": ("p = Gemm (x, u) y = Gemm <transA = 1> (p, d)",),
    "the first one reads its input transposed": ("p = Gemm <transA = 1> (x, u) y = MatMul (p, d)",),
    "what is added in between may have more axes": (
        "p = MatMul (x, u) q = Add (p, b1) y = MatMul (q, d)",
    ),
}  # fmt: skip
CASES = [(reason, body) for reason, bodies in REFUSED.items() for body in bodies]


@pytest.mark.parametrize(("reason", "body"), CASES)
def test_refusals(reason: str, body: str, build: Build) -> None:
    x = "n,2,h,w" if "Conv" in body else "2,2"
    model = build(model_text(body, x), **constants(body))
    before = ir.to_onnx_text(model)

    result = compose(model)

    assert not result.modified
    assert list(result.declined.values()) == [reason]
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    "body",
    [
        "p = Conv (x, up) q = Relu (p) y = Conv (q, down)",
        "y = Conv (x, up)",
        "p = Conv (x, up) q = Add (p, x8) y = Conv (q, down)",
    ],
)
def test_what_is_no_pair(body: str, build: Build) -> None:
    given = {"x8": sample(1, 8, 7, 6)} if "x8" in body else {}
    model = build(model_text(body, IMAGE), **constants(body), **given)

    assert not compose(model).modified


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_types(dtype: Any, build: Build) -> None:
    kind = "double" if dtype is np.float64 else np.dtype(dtype).name
    body = CONVS["1x1 and 1x1"]
    known = constants(body, dtype)
    model = build(model_text(body, IMAGE, kind=kind), **known)
    wide = {name: array.astype(np.float64) for name, array in known.items()}
    expected = wide["down"][:, :, 0, 0] @ wide["up"][:, :, 0, 0]

    assert compose(model).modified

    weight = model.graph.initializers["y.weight"].const_value
    assert weight is not None
    exact = expected.astype(dtype)
    np.testing.assert_allclose(weight.numpy()[:, :, 0, 0], exact, rtol=1e-14)


def test_a_shared_weight_stays(build: Build) -> None:
    body = "p = Conv (x, up) q = Conv (p, down) r = Conv (x, up) s = Relu (r) t = Conv (s, down)"
    model = build(model_text(body + " y = Add (q, t)", IMAGE), **constants(body))

    assert compose(model).details == {"duplicated_bytes": 4 * 2 * 4}
    assert list(model.graph.initializers) == ["up", "down", "q.weight"]


def test_in_a_function(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    main (float[2,1,4] x) => (float[2,2,4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 17]>
    block (x) => (y) {
      v = Constant <value = float[3,1,1] {3,1,2}> ()
      a = Conv (x, v)
      w = Constant <value = float[2,3,1] {1,2,3,4,5,6}> ()
      y = Conv <pads = [0,0]> (a, w)
    }"""
    model = build(text)
    x = sample(2, 1, 4)
    before = answers(model, x=x)["y"]

    assert compose(model).modified

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Conv"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5)


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, dict[str, Array], Array]:
    """Two Convs in a row of any shape, their constants and a sample."""
    rank, seed = draw(st.integers(1, 2)), draw(st.integers(0, 1000))
    known: dict[str, Array] = {}
    lines, value, channels = [], "x", 2
    for index, outputs in enumerate((draw(st.sampled_from([2, 8])), 2)):
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        pads = [draw(st.integers(0, 3)) for _ in range(2 * rank)] if draw(st.booleans()) else []
        group = draw(st.sampled_from([1, 2]))
        attributes = (
            f"<group={group}, strides={[stride] * rank}, dilations={[dilation] * rank},"
            f" pads={pads or [0] * 2 * rank}>"
        )
        known[f"w{index}"] = sample(outputs, channels // group, *kernel, seed=seed + index)
        bias = f", b{index}" if draw(st.booleans()) else ""
        known |= {f"b{index}": sample(outputs, seed=seed + 9 + index)} if bias else {}
        lines.append(f"t{index} = Conv {attributes} ({value}, w{index}{bias})")
        value, channels = f"t{index}", outputs
    text = model_text(" ".join(lines) + " y = Identity (t1)", "2,2" + ",s" * rank)
    size = draw(st.integers(18, 24))
    return text, known, sample(2, 2, *[size] * rank, seed=seed + 3)


@settings(max_examples=100, deadline=None)
@given(rows())
def test_any_convs_keep_their_answers(case: tuple[str, dict[str, Array], Array]) -> None:
    text, known, x = case
    proto = onnx.parser.parse_model(text)
    for name, array in known.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)

    def run() -> Array:
        return session_of(model, SessionConfig(level="disabled", threads=1)).run({"x": x})["y"]

    old = run()
    result = compose(model)
    assert result.modified != bool(result.declined)
    np.testing.assert_allclose(run(), old, rtol=2e-5, atol=2e-5 * float(np.abs(old).max()))
