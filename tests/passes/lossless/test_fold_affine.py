"""FoldAffine: same answers with fewer nodes, or a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fold_affine import FoldAffine

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

SHAPES: dict[str, tuple[int, ...]] = {
    "w": (4, 4, 3, 3),  # a convolution
    "p": (4, 4, 1, 1),  # a pointwise one
    "d": (4, 1, 3, 3),  # a depthwise one
    "g": (4, 2, 3, 3),  # one in two groups
    "u": (4, 8, 1, 1),  # for eight channels
    "t": (4, 6, 2, 2),  # a transposed one
    "m": (4, 4),
    "m8": (4, 8),
    "m144": (144, 3),
    "q": (4,),
    "b": (4,),
    "r": (1,),
    "k8": (8, 1, 1),
    "s": (),
    "k": (4, 1, 1),
    "k1": (1, 4, 1, 1),
    "k6": (6, 1, 1),
    "e": (1, 1, 1, 1),
    "h": (6, 1),
    "n": (2, 4, 6, 6),
}
"""Constants that a model may read, by name."""


def normal(name: str, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(len(name) + sum(map(ord, name)))
    array = np.asarray(rng.uniform(0.5, 1.5, shape))
    return np.asarray(array * rng.choice([-1, 1], shape)) if name in "wpdgutn" else array


def text_of(body: str, x: str = "[2,4,6,6]", opset: int = 17, dtype: str = "float") -> str:
    """A model with the lines ``body``, of which the last computes ``y``."""
    lines = "\n".join(line.strip() for line in body.replace(";", "\n").splitlines())
    return (
        f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
        f"main ({dtype}{x} x) => ({dtype} y) {{\n{lines}\n}}"
    )


def constants(text: str, dtype: Any = np.float32) -> dict[str, Array]:
    names = set(re.findall(r"\b[a-z]\w*\b", text)) - set(re.findall(r"(\w+) =", text))
    return {
        name: normal(name, shape).astype(dtype) for name, shape in SHAPES.items() if name in names
    }


def fold(model: ir.Model) -> Result:
    return FoldAffine().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def check(model: ir.Model, answers: Answers, *xs: Array, tolerance: float = 2e-5) -> Result:
    """Fold ``model``, see that it answers as before, and that nothing is left to fold."""
    before = [answers(model, x=x) for x in xs]
    result = fold(model)
    for x, old in zip(xs, before, strict=True):
        for name, new in answers(model, x=x).items():
            scale = float(np.abs(old[name]).max(initial=1))
            np.testing.assert_allclose(new, old[name], rtol=tolerance, atol=tolerance * scale)
    once = ir.to_onnx_text(model)
    assert not fold(model).modified
    assert ir.to_onnx_text(model) == once
    return result


def images(*shape: int) -> Array:
    return np.random.default_rng(3).normal(size=shape or (2, 4, 6, 6)).astype(np.float32)


INTO_THE_LAYER_BEFORE = {
    "scalar": ("c = Conv (x, w); y = Mul (c, s)", ["Conv"]),
    "from the left": ("c = Conv (x, w); y = Mul (r, c)", ["Conv"]),
    "channels": ("c = Conv (x, w); y = Mul (c, k)", ["Conv"]),
    "as many axes": ("c = Conv (x, w, b); y = Add (k1, c)", ["Conv"]),
    "Sub": ("c = Conv (x, w); y = Sub (c, k)", ["Conv"]),
    "Sub from": ("c = Conv (x, w); y = Sub (k, c)", ["Conv"]),
    "Div": ("c = Conv (x, w); y = Div (c, k)", ["Conv"]),
    "a learnable affine block": ("c = Conv (x, w); a = Mul (s, c); y = Add (a, r)", ["Conv"]),
    "a long row": (
        "c = Conv (x, w); a = Sub (c, k); i = Div (a, s); j = Mul (i, k1); l = Add (j, e);"
        "n1 = BatchNormalization (l, b, b, q, q); y = Sub (r, n1)",
        ["Conv"],
    ),
    "padded": ("c = Conv <pads = [1,1,1,1]> (x, w); y = Add (c, k)", ["Conv"]),
    "grouped": ("c = Conv <group = 2> (x, g); a = Mul (c, k); y = Add (a, k)", ["Conv"]),
    "depthwise": ("c = Conv <group = 4> (x, d); a = Mul (c, k); y = Add (a, k)", ["Conv"]),
    "transposed": (
        "c = ConvTranspose <strides = [2,2]> (x, t); a = Mul (c, k6); y = Add (a, k6)",
        ["ConvTranspose"],
    ),
    "Relu": ("c = Conv (x, w); a = Relu (c); y = Mul (a, k)", ["Conv", "Relu"]),
    "LeakyRelu": ("c = Conv (x, w); a = LeakyRelu (c); y = Div (a, s)", ["Conv", "LeakyRelu"]),
    "PRelu": ("c = Conv (x, w); a = PRelu (c, k); y = Div (a, s)", ["Conv", "PRelu"]),
    "MaxPool": (
        "c = Conv (x, w); a = MaxPool <kernel_shape = [2,2], pads = [1,1,1,1]> (c);"
        "i = Mul (a, k); y = Sub (i, k)",
        ["Conv", "MaxPool"],
    ),
    "AveragePool": (
        "c = Conv (x, w); a = AveragePool <kernel_shape = [2,2], pads = [1,1,1,1]> (c);"
        "y = Sub (k, a)",
        ["Conv", "AveragePool"],
    ),
    "AveragePool that counts what it pads, scaled": (
        "c = Conv (x, w);"
        "a = AveragePool <kernel_shape = [2,2], pads = [1,1,1,1], count_include_pad = 1> (c);"
        "y = Mul (a, k)",
        ["Conv", "AveragePool"],
    ),
    "GlobalAveragePool": (
        "c = Conv (x, w); a = GlobalAveragePool (c); i = Mul (a, k); y = Sub (i, k)",
        ["Conv", "GlobalAveragePool"],
    ),
    "ReduceMean": (
        "c = Conv (x, w); a = ReduceMean <axes = [2,3], keepdims = 0> (c); y = Mul (a, q)",
        ["Conv", "ReduceMean"],
    ),
    "ReduceMax": (
        "c = Conv (x, w); a = ReduceMax <axes = [-1]> (c); i = Mul (a, k); y = Add (i, k)",
        ["Conv", "ReduceMax"],
    ),
    "Transpose": (
        "c = Conv (x, w); a = Transpose <perm = [0,2,3,1]> (c); i = Mul (a, q); y = Add (i, b)",
        ["Conv", "Transpose"],
    ),
    "any Transpose": ("c = Conv (x, w); a = Transpose (c); y = Mul (a, s)", ["Conv", "Transpose"]),
    "Flatten": ("c = Conv (x, w); a = Flatten (c); y = Mul (a, s)", ["Conv", "Flatten"]),
    "Squeeze": (
        "axes = Constant <value_ints = [2,3]> (); c = Conv (x, w); a = GlobalAveragePool (c);"
        "i = Squeeze (a, axes); y = Mul (i, q)",
        ["Conv", "GlobalAveragePool", "Squeeze"],
    ),
    "Unsqueeze": (
        "axes = Constant <value_ints = [1]> (); c = Conv (x, w); a = Unsqueeze (c, axes);"
        "y = Mul (a, k)",
        ["Conv", "Unsqueeze"],
    ),
    "Reshape": (
        "to = Constant <value_ints = [2,2,2,-1]> (); c = Conv (x, w); a = Reshape (c, to);"
        "y = Mul (a, s)",
        ["Conv", "Reshape"],
    ),
    "Concat": (
        "c = Conv (x, w); o = Conv (x, w, b); a = Concat <axis = 1> (c, o); y = Mul (a, k8)",
        ["Conv", "Conv", "Concat"],
    ),
    "Concat along another axis": (
        "c = Conv (x, w); o = Conv (x, w, b); a = Concat <axis = -1> (c, o); y = Mul (a, k)",
        ["Conv", "Conv", "Concat"],
    ),
    "Pad": (
        "pads = Constant <value_ints = [0,0,1,1,0,0,1,1]> (); c = Conv (x, w);"
        "a = Pad (c, pads); y = Mul (a, k)",
        ["Conv", "Pad"],
    ),
    "reflected": (
        "pads = Constant <value_ints = [0,0,1,1,0,0,1,1]> (); c = Conv (x, w);"
        'a = Pad <mode = "reflect"> (c, pads); y = Add (a, k)',
        ["Conv", "Pad"],
    ),
    "Resize": (
        "sc = Constant <value_floats = [1.0,1.0,2.0,2.0]> (); c = Conv (x, w);"
        'a = Resize <mode = "linear"> (c, , sc); i = Mul (a, k); y = Add (i, k)',
        ["Conv", "Resize"],
    ),
    "Slice": (
        "st = Constant <value_ints = [1]> (); en = Constant <value_ints = [3]> ();"
        "ax = Constant <value_ints = [2]> (); c = Conv (x, w);"
        "a = Slice (c, st, en, ax); i = Mul (a, k); y = Add (i, k)",
        ["Conv", "Slice"],
    ),
    "a sum": (
        "c = Conv (x, w); o = Conv (x, w, b); a = Add (c, o); i = Mul (a, k); y = Add (i, k)",
        ["Conv", "Conv", "Add"],
    ),
    "a difference": (
        "c = Conv (x, w); o = Conv (x, w, b); a = Sub (c, o); i = Mul (a, k); y = Add (i, k)",
        ["Conv", "Conv", "Sub"],
    ),
    "one summand": (
        "c = Conv (x, w); o = LpPool <kernel_shape = [3,3]> (x); a = Add (o, c); y = Add (a, k)",
        ["Conv", "LpPool", "Add"],
    ),
    "one factor": (
        "c = Conv (x, w); o = LpPool <kernel_shape = [3,3]> (x); a = Mul (o, c); y = Div (a, s)",
        ["Conv", "LpPool", "Mul"],
    ),
    "Dropout": ("c = Conv (x, w); a = Dropout (c); y = Mul (a, k)", ["Conv", "Dropout"]),
}


@pytest.mark.parametrize("case", INTO_THE_LAYER_BEFORE)
def test_into_the_layer_before(case: str, build: Build, answers: Answers) -> None:
    body, expected = INTO_THE_LAYER_BEFORE[case]
    text = text_of(body)
    model = build(text, **constants(text))

    result = check(model, answers, images())

    assert sorted(kinds(model)) == sorted(expected)
    assert not result.declined


INTO_LAYERS_BEHIND = {
    "channels": ("a = Mul (x, k); i = Add (a, k); y = Conv (i, w, b)", ["Conv"]),
    "a factor before padding": ("a = Div (x, k); y = Conv <pads = [1,1,1,1]> (a, w)", ["Conv"]),
    "a shift before a point": ("a = Sub (x, k); y = Conv (a, p)", ["Conv"]),
    "grouped": ("a = Sub (k, x); y = Conv <group = 2> (a, g)", ["Conv"]),
    "depthwise": ("a = Add (x, k); y = Conv <group = 4> (a, d)", ["Conv"]),
    "a transposed one": ("a = Mul (x, k); y = ConvTranspose (a, t)", ["ConvTranspose"]),
    "two readers": (
        "a = Mul (x, k); c = Conv (a, w); o = Conv (a, w, b); y = Add (c, o)",
        ["Conv", "Conv", "Add"],
    ),
    "Relu": ("a = Mul (x, s); i = Relu (a); y = Conv (i, w)", ["Relu", "Conv"]),
    "GlobalAveragePool": (
        "a = Add (x, k); i = GlobalAveragePool (a); y = Conv (i, p)",
        ["GlobalAveragePool", "Conv"],
    ),
    "a gate": (
        "a = Div (x, s); i = GlobalAveragePool (a); j = Conv (i, p); l = Sigmoid (j);"
        "n1 = Mul (a, l); y = Conv <pads = [1,1,1,1]> (n1, w)",
        ["GlobalAveragePool", "Conv", "Sigmoid", "Mul", "Conv"],
    ),
    "a sum": ("o = Exp (x); a = Add (o, k); i = Add (x, a); y = Conv (i, w)",
              ["Exp", "Add", "Conv"]),
    "a difference": ("o = Exp (x); a = Add (o, k); i = Sub (x, a); y = Conv (i, w)",
                     ["Exp", "Sub", "Conv"]),
    "Concat": ("o = Exp (x); a = Mul (o, k); i = Concat <axis = 1> (x, a); y = Conv (i, u)",
               ["Exp", "Concat", "Conv"]),
    "both parts": ("o = Exp (x); a = Mul (o, k); j = Add (x, s);"
                   "i = Concat <axis = -3> (j, a); y = Conv (i, u)", ["Exp", "Concat", "Conv"]),
    "Flatten": ("a = Mul (x, k); i = Add (a, k); j = Flatten (i); y = MatMul (j, m144)",
                ["Flatten", "MatMul", "Add"]),
    "Transpose": ("a = Mul (x, k); j = Transpose <perm = [0,3,2,1]> (a); y = MatMul (j, m)",
                  ["Transpose", "MatMul"]),
    "the other constant factor": ("o = Exp (x); a = Mul (o, k); i = Clip (a); j = Mul (x, k);"
                                  "l = Mul (i, j); y = Conv (l, w)",
                                  ["Exp", "Mul", "Clip", "Mul", "Conv"]),
}  # fmt: skip


@pytest.mark.parametrize("case", INTO_LAYERS_BEHIND)
def test_into_layers_behind(case: str, build: Build, answers: Answers) -> None:
    body, expected = INTO_LAYERS_BEHIND[case]
    text = text_of(body)
    model = build(text, **constants(text))

    result = check(model, answers, images())

    assert sorted(kinds(model)) == sorted(expected)
    assert result.modified


MATRICES = {
    "behind MatMul": ("c = MatMul (x, m8); a = Mul (c, v); y = Add (a, v)", ["MatMul", "Add"]),
    "around a bias": ("c = MatMul (x, m8); a = Add (c, v); y = Mul (a, v)", ["MatMul", "Add"]),
    "two biases": ("c = MatMul (x, m8); a = Add (c, v); y = Sub (a, r)", ["MatMul", "Add"]),
    "nothing": ("c = MatMul (x, m8); a = Add (c, v); y = Sub (a, v)", ["MatMul"]),
    "before MatMul": ("a = Mul (x, q); y = MatMul (a, m8)", ["MatMul"]),
    "before MatMul and Add": (
        "a = Mul (x, q); i = Sub (a, q); c = MatMul (i, m8); y = Add (c, v)",
        ["MatMul", "Add"],
    ),
    "through heads": (
        "to = Constant <value_ints = [0,0,2,4]> (); c = MatMul (x, m8); a = Add (c, v);"
        "i = Reshape (a, to); j = Transpose <perm = [0,2,1,3]> (i); y = Mul (j, s)",
        ["MatMul", "Add", "Reshape", "Transpose"],
    ),
    "channels of heads": (
        "to = Constant <value_ints = [0,0,2,4]> (); c = MatMul (x, m8);"
        "i = Reshape (c, to); y = Mul (i, q)",
        None,
    ),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices_with_batches(case: str, build: Build, answers: Answers) -> None:
    body, expected = MATRICES[case]
    text = text_of(body, "[batch,rows,4]")
    model = build(text, **constants(text), v=np.linspace(1, 2, 8, dtype=np.float32))

    check(model, answers, images(2, 3, 4), images(1, 1, 4))

    if expected is not None:
        assert sorted(kinds(model)) == sorted(expected)


@pytest.mark.parametrize("attributes", ["transB = 0", "alpha = 0.5, beta = 2.0", "transB = 1"])
@pytest.mark.parametrize("bias", ["", ", b", ", h1", ", s"])
@pytest.mark.parametrize("first", ["Sub", "Div"])
def test_gemm(attributes: str, bias: str, first: str, build: Build, answers: Answers) -> None:
    text = text_of(
        f"a = {first} (x, q); g = Gemm <{attributes}> (a, m{bias}); i = Mul (g, b); y = Add (i, r)",
        "[3,4]",
    )
    model = build(text, **constants(text), h1=np.ones((3, 1), np.float32))

    check(model, answers, images(3, 4))

    assert kinds(model) == ["Gemm"]


def test_gemm_reads_rows_where_it_is_transposed(build: Build, answers: Answers) -> None:
    text = text_of("a = Mul (x, q); y = Gemm <transA = 1> (a, m)", "[4,4]")
    model = build(text, **constants(text))

    result = check(model, answers, images(4, 4))

    assert "Gemm reads it transposed" in " ".join(result.declined.values())


LEFT = {
    "a Div": ("a = Exp (x); y = Div (a, k)", ["Exp", "Mul"]),
    "a Sub": ("a = Exp (x); y = Sub (a, s)", ["Exp", "Add"]),
    "what is subtracted": ("a = Exp (x); y = Sub (k, a)", ["Exp", "Sub"]),
    "a quotient": ("a = Exp (x); y = Div (k, a)", ["Exp", "Div"]),
    "a row": ("a = Exp (x); i = Mul (a, k); j = Div (i, s); y = Sub (j, r)",
              ["Exp", "Mul", "Add"]),
    "a row behind a convolution": ("c = Conv (x, w); a = Sigmoid (c); i = Mul (a, k);"
                                   "y = Sub (i, r)", ["Conv", "Sigmoid", "BatchNormalization"]),
    "a row with a normalization": ("a = Exp (x); i = BatchNormalization (a, b, b, q, q);"
                                   "y = Mul (i, r)", ["Exp", "BatchNormalization"]),
    "a mask": ("a = Sub (r, x); y = Mul (a, s)", ["Sub", "Mul"]),
    "a row without channels": ("to = Constant <value_ints = [-1]> (); a = Reshape (x, to);"
                               "i = Mul (a, r); j = Div (i, s); y = Sub (j, r)",
                               ["Reshape", "Mul", "Add"]),
    "before padding, between convolutions": (
        "c = Conv (x, w); a = Sigmoid (c); i = Add (a, s); y = Conv <pads = [1,1,1,1]> (i, d1)",
        ["Conv", "Sigmoid", "BatchNormalization", "Conv"]),
    "before a whole number": ("a = Div (x, s); i = Add (a, s); y = Floor (i)",
                              ["Div", "Add", "Floor"]),
    "what undoes itself": ("a = Exp (x); i = Add (a, s); j = Sub (i, s); y = Exp (j)",
                           ["Exp", "Exp"]),
    "a grown value": ("a = GlobalAveragePool (x); y = Div (a, n)", ["GlobalAveragePool", "Mul"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_without_a_layer(case: str, build: Build, answers: Answers) -> None:
    body, expected = LEFT[case]
    text = text_of(body)
    model = build(text, **constants(text), d1=normal("d", (4, 4, 3, 3)).astype(np.float32))

    check(model, answers, images())

    assert kinds(model) == expected


PARTLY = {
    "the factor goes on": (
        "a = Exp (x); i = Mul (a, q); j = Add (i, q); l = Pad (j, pads); y = MatMul (l, m)",
        ["Exp", "Add", "Pad", "MatMul"],
    ),
    "the factor goes back": (
        "c = MatMul (x, m); a = Relu (c); i = Mul (a, q); j = Add (i, q); y = Exp (j)",
        ["MatMul", "Relu", "Add", "Exp"],
    ),
    "the shift goes back": (
        "o = Exp (x); c = Gemm (x, m, b); a = Add (c, o); i = Sub (a, q); j = Mul (i, q);"
        "y = Exp (j)",
        ["Exp", "Gemm", "Add", "Mul", "Exp"],
    ),
    "the shift goes on": (
        "o = Exp (x); i = Mul (o, q); j = Add (i, q); l = Add (j, x); y = Gemm (l, m)",
        ["Exp", "Mul", "Add", "Gemm"],
    ),
}


@pytest.mark.parametrize("case", PARTLY)
def test_half_of_it(case: str, build: Build, answers: Answers) -> None:
    body, expected = PARTLY[case]
    text = text_of(body, "[3,4]")
    model = build(text, **constants(text), pads=np.array([1, 0, 0, 0]))

    check(model, answers, images(3, 4))

    assert sorted(kinds(model)) == sorted(expected)


REFUSALS = [
    ("c = Conv (x, w); a = Relu (c); y = Add (a, k)", "Relu, which a shift does not pass"),
    ("c = Conv (x, w); a = Relu (c); y = Mul (a, minus)", "Relu, which needs positive factors"),
    ("c = Conv (x, w); a = MaxPool <kernel_shape = [2,2]> (c); y = Mul (a, minus)",
     "MaxPool, which needs positive factors"),
    ("c = Conv (x, w); o = Exp (c); a = Mul (c, k); y = Add (a, o)",
     "the output of Conv is read elsewhere as well"),
    ("c = Conv (x, p1); y = Mul (c, k)", "the weight of Conv is not constant"),
    ("c = Conv (x, quantized); y = Mul (c, k)", "the weight of Conv is quantized"),
    ("a = Exp (x); i = Mul (a, k); o = Exp (i); c = Conv (i, w); y = Conv (o, w)",
     "it is read by Exp"),
    ("a = Exp (x); i = Mul (a, k); y = Conv (o, i)", "it is read by Conv"),
    ("c = Conv (x, w); y = Div (c, zero)", "its constant is not finite or divides by zero"),
    ("c = Conv (x, w); y = Mul (c, nan)", "its constant is not finite or divides by zero"),
    ("c = Conv (x, w); a = Slice (c, last, first, channel, back); y = Mul (a, k)",
     "Slice, which does not keep its channels"),
    ("c = Conv (x, w); a = AveragePool <kernel_shape = [2,2], pads = [1,1,1,1],"
     "count_include_pad = 1> (c); y = Add (a, k)", "AveragePool, which a shift does not pass"),
    ("c = Conv (x, w); a = ReduceSum <keepdims = 1> (c, channel); y = Add (a, s)",
     "ReduceSum, which a shift does not pass"),
    ("c = Conv (x, w); a = Pad (c, pads); y = Add (a, k)", "beside what is mapped"),
    ("c = Conv (x, w); a = Softmax (c); y = Mul (a, k)", "its input comes from Softmax"),
    ("a = Exp (x); i = Mul (a, k); j = Relu (i); l = LeakyRelu (i); o = Mul (j, l);"
     "y = Conv (o, w)", "two ways lead to Mul"),
    ("a = Exp (x); i = Mul (a, k); j = Add (i, a); y = Conv (j, w)",
     "Add, which a factor does not pass"),
    ("a = Exp (x); i = Add (a, k); j = Mul (i, a); y = Conv (j, w)",
     "Mul, which a shift does not pass"),
    ("a = Exp (x); i = Mul (a, k); j = Concat <axis = 2> (i, a); y = Conv (j, w)",
     "Concat, which joins it with what is not mapped"),
    ("o = Exp (x); a = Conv (x, w); i, mask = MaxPool <kernel_shape = [2,2]> (a);"
     "j = Cast <to = 1> (mask); l = Mul (i, k); y = Add (l, j)",
     "MaxPool, a further output of which is read"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "reason"), REFUSALS)
def test_it_declines_and_says_why(body: str, reason: str, build: Build) -> None:
    text = text_of(body).replace("float[2,4,6,6] x", "float[2,4,6,6] x, float[4,4,1,1] p1")
    text = text.replace("{\n", "{\nquantized = DequantizeLinear (q8, s)\n", 1)
    more = {
        "minus": np.float32(-1.5),
        "nan": np.array([[[1]], [[2]], [[np.nan]], [[4]]], np.float32),
        "zero": np.array([[[1]], [[2]], [[0]], [[4]]], np.float32),
        "last": np.array([3]),
        "first": np.array([-9]),
        "back": np.array([-1]),
        "channel": np.array([1]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "q8": np.ones((4, 4, 3, 3), np.int8),
    }
    model = build(text, **(constants(text) | more))
    before = ir.to_onnx_text(model)

    result = fold(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


UNTOUCHED = {
    "integers": "c = Cast <to = 7> (x); a = Div (c, seven); i = Mul (a, seven); j = Sub (i, seven);"
    "y = Cast <to = 1> (j)",
    "a bias": "a = MatMul (x, m6); y = Add (a, v6)",
    "GELU": "a = Div (x, root); i = Erf (a); j = Add (i, one); l = Mul (x, j); o = Mul (l, half);"
    "y = MatMul (o, m6)",
    "GELU, halved first": "h1 = Mul (x, half); a = Div (x, root); i = Erf (a); j = Add (i, one);"
    "l = Mul (h1, j); y = MatMul (l, m6)",
    "a normalization": "a = ReduceMean <axes = [-1]> (x); i = Sub (x, a); j = Mul (i, i);"
    "l = ReduceMean <axes = [-1]> (j); n1 = Add (l, small); o = Sqrt (n1); c = Div (i, o);"
    "e1 = Mul (c, v6); e2 = Add (e1, v6); y = MatMul (e2, m6)",
    "attention": "a = Transpose <perm = [0,1,3,2]> (x); i = MatMul (x, a); j = Div (i, root);"
    "y = Softmax (j)",
    "what broadcasts": "a = GlobalAveragePool (x); y = Mul (a, v6)",
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_better_left_alone(case: str, build: Build) -> None:
    more = {
        "seven": np.array(7),
        "m6": np.ones((6, 6), np.float32),
        "v6": np.linspace(1, 2, 6, dtype=np.float32),
        "root": np.sqrt(np.float32(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "small": np.float32(1e-5),
    }
    model = build(text_of(UNTOUCHED[case]), **more)
    before = ir.to_onnx_text(model)

    assert not fold(model).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 22])
def test_versions(opset: int, build: Build, answers: Answers) -> None:
    mean = "ReduceMean <axes = [2,3]> (c)" if opset < 18 else "ReduceMean (c, two)"
    pad = "Pad <pads = [0,0,1,1,0,0,1,1]> (a)" if opset < 11 else "Pad (a, pads)"
    body = f"c = Conv (x, w); a = {mean}; i = {pad}; j = Mul (i, k); y = Div (j, s)"
    more = {"two": np.array([2, 3]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    text = text_of(body, opset=opset)
    model = build(text, **constants(text), **{k: v for k, v in more.items() if f" {k})" in text})

    check(model, answers, images())

    assert kinds(model) == ["Conv", "ReduceMean", "Pad"]


def test_half_precision_is_rounded_once(build: Build) -> None:
    body = "c = Conv (x, w, b); a = Div (c, k); i = Sub (a, k); y = Mul (i, s)"
    text = text_of(body, dtype="float16")
    known = constants(text, np.float16)
    model = build(text, **known)
    wide = {name: array.astype(np.float64) for name, array in known.items()}

    fold(model)

    weight = model.graph.initializers["y.weight"].const_value
    bias = model.graph.initializers["y.bias"].const_value
    assert weight is not None
    assert bias is not None
    k, s = wide["k"].reshape(-1), wide["s"]
    exact = wide["w"] * (s / k).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(weight.numpy(), exact.astype(np.float16))
    np.testing.assert_allclose(bias.numpy(), (wide["b"] / k - k) * s, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("c = Conv (x, w); y = Mul (c, large)", "too large for float16"),
        ("c = Conv (x, w); y = Mul (c, little)", "too small for float16"),
        ("c = Conv (x, w); o = Exp (x1); a = Mul (c, o); y = Mul (a, s)", "which broadcasts"),
        ("c = Conv (x, w); a = GlobalAveragePool (c); y = Mul (a, s)", "in half precision"),
    ],
)
def test_what_half_precision_does_not_hold(body: str, reason: str, build: Build) -> None:
    text = text_of(body, dtype="float16").replace(" x)", " x, float16[2,4,4,4] x1)")
    more = {"large": np.float16(6e4), "little": np.float16(1e-5)}
    model = build(text, **constants(text, np.float16), **more)

    result = fold(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())


def test_bfloat16(build: Build) -> None:
    text = text_of("c = Conv (x, w); a = Mul (c, k); y = Add (a, k)", dtype="bfloat16")
    model = build(text, **constants(text, ml_dtypes.bfloat16))

    fold(model)

    assert kinds(model) == ["Conv"]
    assert model.graph.initializers["y.weight"].dtype == ir.DataType.BFLOAT16


def test_double(build: Build, answers: Answers) -> None:
    text = text_of("a = Mul (x, q); i = Add (a, q); c = Gemm (i, m); y = Div (c, s)", "[3,4]",
                   dtype="double")  # fmt: skip
    model = build(text, **constants(text, np.float64))

    check(model, answers, images(3, 4).astype(np.float64), tolerance=1e-13)

    assert kinds(model) == ["Gemm"]


def test_a_constant_that_can_be_fed_is_none(build: Build) -> None:
    text = text_of("c = Conv (x, w); y = Mul (c, k)").replace(" x)", " x, float[4,1,1] k)")
    model = build(text, **constants(text))

    assert not fold(model).modified


def test_a_weight_that_others_read_is_copied_unless_it_is_large(
    build: Build, answers: Answers
) -> None:
    text = text_of("c = MatMul (x, big); o = MatMul (x, big); a = Mul (c, s); y = Sub (a, o)",
                   "[1,1500]")  # fmt: skip
    for size in (1500, 3000):
        big = images(1500, size)
        model = build(text, **constants(text), big=big)
        result = check(model, answers, images(1, 1500))
        assert result.modified == (size == 1500)
    assert "is large and read elsewhere" in " ".join(result.declined.values())


def test_a_shift_alone_copies_no_weight(build: Build, answers: Answers) -> None:
    text = text_of("c = Conv (x, w); o = Conv (x, w); a = Add (c, k); y = Sub (a, o)")
    model = build(text, **constants(text))

    result = check(model, answers, images())

    assert list(model.graph.initializers) == ["w", "a.bias"]
    assert result.details == {}


def test_functions_and_branches(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    main (float[1,1,4,4] x, bool flag) => (float y) {
      z = local.block (x)
      y = If (flag) <
        then_branch = yes () => (float a) {
          c = Conv (z, w)
          i = Mul (c, k2)
          a = Sub (i, k2)
        },
        else_branch = no () => (float b) {
          d = Div (z, k2)
          b = Exp (d)
        }
      >
    }
    <domain: "local", opset_import: ["" : 17]>
    block (x) => (y) {
      w = Constant <value = float[2,1,1,1] {2, 3}> ()
      k = Constant <value = float[2,1,1] {0.5, 4}> ()
      c = Conv (x, w)
      a = Div (c, k)
      r = Relu (a)
      y = Mul (k, r)
    }"""
    w, k2 = np.ones((2, 2, 1, 1), np.float32), np.array([2, 3], np.float32).reshape(2, 1, 1)
    model = build(text, w=w, k2=k2)
    x = images(1, 1, 4, 4)
    before = [answers(model, x=x, flag=np.array(flag))["y"] for flag in (True, False)]

    assert fold(model).modified

    inner = {name: graph.as_graph() for name, graph in model.graph[-1].attributes.items()}
    left = {name: [node.op_type for node in graph] for name, graph in inner.items()}
    assert left == {"then_branch": ["Conv"], "else_branch": ["Mul", "Exp"]}
    (function,) = model.functions.values()
    assert [node.op_type for node in function if node.op_type != "Constant"] == ["Conv", "Relu"]
    for flag, old in zip((True, False), before, strict=True):
        now = answers(model, x=x, flag=np.array(flag))["y"]
        np.testing.assert_allclose(now, old, rtol=1e-5, atol=1e-5)


def test_the_graph_that_is_left(build: Build) -> None:
    text = text_of("c = Conv (x, w); a = Mul (s, c); i = Add (a, r); y = Conv (i, p)")
    model = build(text, **constants(text))

    fold(model)

    assert ir.to_onnx_text(model, exclude_initializers=True).splitlines()[4:] == [
        "main (float[2,4,6,6] x) => (float y) ",
        '   <float[4,4,1,1] p, float[4,4,3,3] "i.weight", float[4] "i.bias">',
        "{",
        '   i = Conv (x, "i.weight", "i.bias")',
        "   y = Conv (i, p)",
        "}",
    ]
