"""FoldBatchNorm: same answers, the normalization gone, or a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fold_batch_norm import FoldBatchNorm

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
CONV = (
    HEAD
    + """main (float[1,4,6,6] x) => (float[1,8,4,4] y) {
  c = Conv <group = 1> (x, w)
  y = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)
}
"""
)
BEFORE = (
    HEAD
    + """main (float[1,4,6,6] x) => (float[1,8,4,4] y) {
  n = BatchNormalization <epsilon = 0.001> (x, gamma, beta, mean, var)
  y = Conv <pads = [0, 0, 0, 0]> (n, w)
}
"""
)


def arrays(
    text: str, channels: int, given: Mapping[str, Array] = {}, dtype: Any = np.float32
) -> dict[str, Array]:
    """Random values for the names that ``text`` reads and does not make."""
    rng = np.random.default_rng(0)
    made: dict[str, Array] = {name: rng.normal(size=channels) for name in ("gamma", "beta", "mean")}
    made["var"] = rng.uniform(0.5, 2, size=channels)
    made |= {f"{name}2": array * 1.1 + 0.1 for name, array in made.items()}
    made |= given
    used = {name: made[name] for name in made if re.search(rf"\b{name}\b", text)}
    return {name: np.asarray(array, dtype) for name, array in used.items()}


def normal(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def reference(model: ir.Model, x: Array) -> Array:
    """What ONNX's own evaluator answers: it knows types that ONNX Runtime's CPU kernels lack."""
    (answer,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    return np.asarray(answer)


def fold(model: ir.Model) -> Result:
    return FoldBatchNorm().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_graph_that_is_left(build: Build) -> None:
    model = build(CONV, **arrays(CONV, 8, {"w": normal(8, 4, 3, 3)}))

    result = fold(model)

    assert len(result.rewritten) == 1
    text = ir.to_onnx_text(model, exclude_initializers=True)
    assert text.splitlines()[4:] == [
        "main (float[1,4,6,6] x) => (float[1,8,4,4] y) ",
        '   <float[8,4,3,3] "y.weight", float[8] "y.bias">',
        "{",
        '   y = Conv <group: int = 1> (x, "y.weight", "y.bias")',
        "}",
    ]
    assert not fold(model).modified


CASES: dict[str, tuple[str, tuple[int, ...], dict[str, tuple[int, ...]], int]] = {
    "conv with bias": ("y = BN(Conv(x, w, b))", (2, 4, 6, 6), {"w": (8, 4, 3, 3), "b": (8,)}, 8),
    "conv 1-D": ("y = BN(Conv(x, w))", (2, 4, 9), {"w": (6, 4, 3)}, 6),
    "conv 3-D": ("y = BN(Conv(x, w))", (1, 4, 5, 5, 5), {"w": (6, 4, 3, 3, 3)}, 6),
    "grouped": ("y = BN(Conv<group=2>(x, w, b))", (1, 4, 6, 6), {"w": (8, 2, 3, 3), "b": (8,)}, 8),
    "depthwise": ("y = BN(Conv<group=4>(x, w))", (1, 4, 6, 6), {"w": (8, 1, 3, 3)}, 8),
    "padded": ("y = BN(Conv<pads=[1,1,1,1]>(x, w))", (1, 4, 6, 6), {"w": (8, 4, 3, 3)}, 8),
    "conv and add": (
        "y = BN(Add(Conv(x, w, b), k))",
        (1, 4, 6, 6),
        {"w": (8, 4, 3, 3), "b": (8,), "k": (8, 1, 1)},
        8,
    ),
    "add and conv": (
        "y = BN(Add(one, Conv(x, w)))",
        (1, 4, 6, 6),
        {"w": (8, 4, 3, 3), "one": (1, 1, 1, 1)},
        8,
    ),
    "transposed": (
        "y = BN(ConvTranspose<strides=[2,2]>(x, w, b))",
        (1, 4, 3, 3),
        {"w": (4, 6, 3, 3), "b": (6,)},
        6,
    ),
    "transposed, grouped": (
        "y = BN(ConvTranspose<group=2, output_padding=[1,1], strides=[2,2]>(x, w))",
        (1, 4, 3, 3),
        {"w": (4, 3, 3, 3)},
        6,
    ),
    "gemm": ("y = BN(Gemm(x, w))", (3, 4), {"w": (4, 8)}, 8),
    "gemm, all attributes": (
        "y = BN(Gemm<alpha=0.5, beta=2.0, transA=1, transB=1>(x, w, b))",
        (4, 3),
        {"w": (8, 4), "b": (8,)},
        8,
    ),
    "gemm, scalar bias": ("y = BN(Gemm<beta=2.0>(x, w, b))", (3, 4), {"w": (4, 8), "b": ()}, 8),
    "gemm, bias per row": ("y = BN(Gemm(x, w, b))", (3, 4), {"w": (4, 8), "b": (3, 1)}, 8),
    "gemm, full bias": ("y = BN(Gemm(x, w, b))", (3, 4), {"w": (4, 8), "b": (3, 8)}, 8),
    "gemm and add": ("y = BN(Add(Gemm(x, w), k))", (3, 4), {"w": (4, 8), "k": (1, 8)}, 8),
    "matmul": ("y = BN(MatMul(x, w))", (3, 4), {"w": (4, 8)}, 8),
    "matmul and add": ("y = BN(Add(MatMul(x, w), k))", (3, 4), {"w": (4, 8), "k": (8,)}, 8),
    "before conv": ("y = Conv(BN(x), w, b)", (1, 4, 6, 6), {"w": (8, 4, 3, 3), "b": (8,)}, 4),
    "before grouped conv": ("y = Conv<group=2>(BN(x), w)", (1, 4, 6, 6), {"w": (8, 2, 3, 3)}, 4),
    "before valid": (
        'y = Conv<auto_pad="VALID", strides=[2,2]>(BN(x), w)',
        (1, 4, 6, 6),
        {"w": (8, 4, 3, 3)},
        4,
    ),
    "before pointwise same": (
        'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(BN(x), w)',
        (1, 4, 6, 6),
        {"w": (8, 4, 1, 1)},
        4,
    ),
    "before pointwise transposed": (
        "y = ConvTranspose<group=2>(BN(x), w, b)",
        (1, 4, 3, 3),
        {"w": (4, 3, 1, 1), "b": (6,)},
        4,
    ),
    "before gemm": (
        "y = Gemm<alpha=0.5, beta=2.0, transB=1>(BN(x), w, b)",
        (3, 4),
        {"w": (8, 4), "b": (3, 1)},
        4,
    ),
    "before matmul": ("y = MatMul(BN(x), w)", (3, 4), {"w": (4, 8)}, 4),
    "before matmul and add": ("y = Add(MatMul(BN(x), w), k)", (3, 4), {"w": (4, 8), "k": (8,)}, 4),
    "before matmul and a row": (
        "y = Add(MatMul(BN(x), w), k)",
        (3, 4),
        {"w": (4, 8), "k": (3, 8)},
        4,
    ),
    "before flatten": (
        "y = Gemm(Flatten(BN(x)), w, b)",
        (2, 4, 3, 3),
        {"w": (36, 8), "b": (8,)},
        4,
    ),
    "before reshape": ("y = MatMul(Reshape(BN(x), rest), w)", (2, 4, 3, 3), {"w": (36, 8)}, 4),
    "before two": (
        "y = Add(Conv(BN(x), w), Conv<strides=[1,1]>(BN(x), v))",
        (1, 4, 6, 6),
        {"w": (8, 4, 3, 3), "v": (8, 4, 3, 3)},
        4,
    ),
}


def expand(formula: str, rank: int, out_rank: int, dtype: str) -> str:
    """A model that computes ``formula``, in which ``BN`` is one normalization."""
    lines: list[str] = []
    made: dict[str, str] = {}
    call = re.compile(r"(\w+)(<[^>]*>)?\(([^()]*)\)")
    text = formula.removeprefix("y = ")
    while match := call.search(text):
        kind, attributes, inputs = match.groups()
        if kind == "BN":
            kind, inputs = "BatchNormalization", f"{inputs}, gamma, beta, mean, var"
        line = f"{kind} {attributes or ''} ({inputs})"
        if line not in made:
            made[line] = f"v{len(made)}"
            lines.append(f"{made[line]} = {line}")
        text = text.replace(match.group(0), made[line], 1)
    body = "\n".join(lines).replace(f"{text} =", "y =")
    dims = [
        ",".join(f"{name}{axis}" for axis in range(n)) for name, n in (("d", rank), ("e", out_rank))
    ]
    return f"{HEAD}main ({dtype}[{dims[0]}] x) => ({dtype}[{dims[1]}] y) {{\n{body}\n}}"


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, np.float32) for case in CASES]
    # onnx.reference cannot run a ConvTranspose with groups, ONNX Runtime none in double.
    + [(case, np.float64) for case in CASES if "transposed" not in case],
)
def test_folding_keeps_the_answers(case: str, dtype: type, build: Build, answers: Answers) -> None:
    formula, shape, shapes, channels = CASES[case]
    out_rank = 2 if case.startswith(("before flatten", "before reshape")) else len(shape)
    text = expand(formula, len(shape), out_rank, "float" if dtype is np.float32 else "double")
    given = {name: normal(*size, seed=i) for i, (name, size) in enumerate(shapes.items())}
    extra = {"rest": np.array([0, -1])} if "rest" in text else {}
    model = build(text, **arrays(text, channels, given, dtype), **extra)
    x: Array = normal(*shape, seed=9).astype(dtype)

    def run() -> Array:
        return answers(model, x=x)["y"] if dtype is np.float32 else reference(model, x)

    before = run()

    result = fold(model)

    assert result.modified
    assert not result.declined
    assert "BatchNormalization" not in kinds(model)
    assert "Add" not in kinds(model) or "MatMul" in text or "before two" in case
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert not set(model.graph.initializers) & {"gamma", "w", "k", "b"} or "row" in case
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(run(), before, rtol=tolerance, atol=tolerance)
    assert not fold(model).modified


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("epsilon = 0.001", "training_mode = 1", "it runs in training mode"),
        ("[1,8,4,4] y)", "[1,8,4,4] y, float[1,8,4,4] c)", "the output of Conv is read elsewhere"),
        ("[1,4,6,6] x)", "[1,4,6,6] x, float[8] gamma)", "one of its statistics is not constant"),
        ("[1,4,6,6] x)", "[1,4,6,6] x, float[8,4,3,3] w)", "the weight of Conv is not constant"),
        ("(x, w)", "(x, w, dyn)", "the bias of Conv is not constant"),
        ("epsilon = 0.001", "epsilon = -3.0", "a variance plus epsilon is not positive"),
        ("Conv <group = 1> (x, w)", "Conv (x, quantized)", "the weight of Conv is quantized"),
        ("Conv <group = 1> (x, w)", "Relu (wide)", "its input comes from Relu"),
        ("(c, gamma", "(wide, gamma", "no node computes its input"),
        ("y = BatchNormalization <epsilon = 0.001> (c,",
         "s = Add (c, w1)\n y = BatchNormalization (s,", "does not add one constant per channel"),
        ("y = BatchNormalization <epsilon = 0.001> (c,",
         "s = Add (c, c)\n y = BatchNormalization (s,", "its input comes from Add"),
        ("y = BatchNormalization <epsilon = 0.001> (c,",
         "s = Add (c, b1)\n u = Relu (c)\n y = BatchNormalization (s,",
         "the output of Conv is read elsewhere"),
        ("y = BatchNormalization <epsilon = 0.001> (c,",
         "s = Add (c, b1)\n u = Relu (s)\n y = BatchNormalization (s,",
         "the output of Add is read elsewhere"),
        ("(c, gamma", "(c, broken", "one of its statistics is not finite"),
    ],
)  # fmt: skip
def test_it_declines_and_says_why(old: str, new: str, reason: str, build: Build) -> None:
    text = CONV.replace(old, new).replace("] x", "] x, float[1,8,4,4] wide, float[8] dyn")
    assert old in CONV
    text = text.replace("{\n", "{\n  quantized = DequantizeLinear (q, scale)\n", 1)
    given = {"w": normal(8, 4, 3, 3), "w1": normal(8, 4, 4), "b1": normal(8, 1, 1)}
    given |= {"scale": np.array(0.1), "broken": np.full(8, np.nan)}
    q = np.ones((8, 4, 3, 3), np.int8)
    model = build(text, **arrays(text, 8, given), q=q)
    before = ir.to_onnx_text(model)

    result = fold(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[0, 0, 0, 0]", "[1, 0, 0, 0]", "its shift is not zero and Conv pads with zeros"),
        ("pads = [0, 0, 0, 0]", 'auto_pad = "SAME_LOWER"', "Conv pads with zeros"),
        ("Conv <pads = [0, 0, 0, 0]> (n, w)", "ConvTranspose (n, t)", "different parts of the"),
        ("Conv <pads = [0, 0, 0, 0]> (n, w)", "Conv (x, n)", "it is read by Conv"),
        ("Conv <pads = [0, 0, 0, 0]> (n, w)", "Relu (n)", "it is read by Relu"),
        ("4] y)", "4] y, float[1,4,6,6] n)", "it is an output of the graph"),
        ("(n, w)", "(x, w)", "nothing reads it"),
        ("Conv <pads = [0, 0, 0, 0]> (n, w)", "MatMul (n, m)", "not known to have two axes"),
        ("y = Conv <pads = [0, 0, 0, 0]> (n, w)",
         "f = Flatten <axis = 2> (n)\n y = Gemm (f, m)", "its channels along another axis"),
        ("y = Conv <pads = [0, 0, 0, 0]> (n, w)",
         "f = Flatten (n)\n y = Gemm <transA = 1> (f, m)", "Gemm reads it transposed"),
        ("y = Conv <pads = [0, 0, 0, 0]> (n, w)",
         "f = Flatten (n)\n y = Gemm (f, m)", "Gemm has another number of channels"),
    ],
)  # fmt: skip
def test_it_declines_in_front_of_a_layer(old: str, new: str, reason: str, build: Build) -> None:
    assert old in BEFORE
    text = BEFORE.replace(old, new)
    given = {"w": normal(8, 4, 3, 3), "t": normal(4, 8, 3, 3), "m": normal(6, 6)}
    model = build(text, **arrays(text, 4, given))
    before = ir.to_onnx_text(model)

    result = fold(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("shape", ["[2,4]", "[2,4,4]"])
def test_a_product_needs_two_axes(shape: str, build: Build) -> None:
    text = (
        HEAD
        + f"""main (float{shape} x) => (float y) {{
      r = Relu (x)
      m = MatMul (r, m0)
      n = BatchNormalization (m, gamma, beta, mean, var)
      y = Relu (n)
    }}"""
    )
    model = build(text, **arrays(text, 4, {"m0": normal(4, 4)}))

    result = fold(model)

    assert result.modified == (shape == "[2,4]")
    assert (
        "MatMul's answer is not known to have two axes" in str(result.declined)
    ) != result.modified


def test_what_is_said_of_a_tensor_does_not_make_it_a_matrix(build: Build) -> None:
    text = (
        HEAD
        + """main (float[2,4,4] x) => (float y) <float[9,9] m> {
      m = MatMul (x, m0)
      n = BatchNormalization (m, gamma, beta, mean, var)
      y = Relu (n)
    }"""
    )
    model = build(text, **arrays(text, 4, {"m0": normal(4, 4)}))

    assert not fold(model).modified


@pytest.mark.parametrize("layer", ["Conv <pads = [1,1,1,1]> (n, w)", "ConvTranspose (n, t)"])
def test_without_a_shift_padding_does_no_harm(layer: str, build: Build, answers: Answers) -> None:
    text = BEFORE.replace("Conv <pads = [0, 0, 0, 0]> (n, w)", layer).replace(
        "[1,8,4,4]", "[a,b,c,d]"
    )
    given = {"w": normal(8, 4, 3, 3), "t": normal(4, 8, 3, 3)}
    given |= {"beta": np.zeros(4), "mean": np.zeros(4)}
    model = build(text, **arrays(text, 4, given))
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert fold(model).modified
    assert len(kinds(model)) == 1
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


def test_normalizations_in_a_row_fold_as_one(build: Build, answers: Answers) -> None:
    text = CONV.replace(
        "y = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)",
        "d = BatchNormalization (c, gamma, beta, mean, var)\n"
        "y = BatchNormalization (d, gamma2, beta2, mean2, var2)",
    )
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = answers(model, x=x)["y"]

    result = fold(model)

    assert kinds(model) == ["Conv"]
    assert len(result.rewritten) == 2
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


def test_a_row_without_a_layer_becomes_one(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[2,4,3] x) => (float[2,4,3] y) {
      d = BatchNormalization (x, gamma, beta, mean, var)
      e = BatchNormalization <epsilon = 0.5> (d, gamma2, beta2, mean2, var2)
      y = Relu (e)
    }"""
    )
    model = build(text, **arrays(text, 4))
    x = normal(2, 4, 3).astype(np.float32)
    before = answers(model, x=x)["y"]

    result = fold(model)

    assert kinds(model) == ["BatchNormalization", "Relu"]
    assert list(result.declined.values()) == ["no node computes its input, and it is read by Relu"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-6)
    assert not fold(model).modified


def test_a_training_one_breaks_the_row(build: Build) -> None:
    text = CONV.replace(
        "y = BatchNormalization <epsilon = 0.001> (c, gamma, beta, mean, var)",
        "d = BatchNormalization (c, gamma, beta, mean, var)\n"
        "y, m, v = BatchNormalization <training_mode = 1> (d, gamma2, beta2, mean2, var2)",
    )
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))

    result = fold(model)

    assert kinds(model) == ["Conv", "BatchNormalization"]
    assert list(result.declined.values()) == ["it runs in training mode"]


def test_a_shared_weight_is_left_to_its_other_readers(build: Build, answers: Answers) -> None:
    text = CONV.replace("c = Conv", "o = Conv (x, w)\n c = Conv").replace(
        "] y)", "] y, float[a,b,c,d] o)"
    )
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = answers(model, x=x)

    result = fold(model)

    assert result.details == {"duplicated_bytes": 8 * 4 * 9 * 4}
    assert list(model.graph.initializers) == ["w", "y.weight", "y.bias"]
    after = answers(model, x=x)
    np.testing.assert_array_equal(after["o"], before["o"])
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-5, atol=1e-5)


def test_weights_behind_constant_and_identity_nodes(build: Build, answers: Answers) -> None:
    text = CONV.replace(
        "{\n", "{\n w = Identity (w0)\n var = Constant <value_floats = [0.5,1.0,2.0]> ()\n", 1
    )
    text = text.replace("[1,8,4,4]", "[1,3,4,4]")
    given = {"w0": normal(3, 4, 3, 3)}
    known = arrays(text, 3, given)
    del known["var"]
    model = build(text, **known)
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert fold(model).modified
    assert kinds(model) == ["Conv"]
    assert list(model.graph.initializers) == ["y.weight", "y.bias"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 18])
def test_every_version_of_the_operator(opset: int, build: Build, answers: Answers) -> None:
    text = CONV.replace("17", str(opset))
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert fold(model).modified
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("opset", "old", "new", "reason"),
    [
        (8, "epsilon = 0.001", "spatial = 0", "it normalizes each position on its own (spatial=0)"),
        (8, "y = B", "y, m, v, sm, sv = B", "it runs in training mode"),
        (9, "y = B", "y, m, v, sm, sv = B", "it runs in training mode"),
        (15, "y = B", "y, m, v = B", "one of its further outputs is read"),
    ],
)
def test_training_forms_of_each_version(
    opset: int, old: str, new: str, reason: str, build: Build
) -> None:
    text = CONV.replace("17", str(opset)).replace(old, new)
    text = text.replace("] y)", "] y, float[8] m)") if opset == 15 else text
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))

    result = fold(model)

    assert not result.modified
    assert list(result.declined.values()) == [reason]


def test_half_precision_with_single_precision_statistics(build: Build, answers: Answers) -> None:
    text = CONV.replace("float[", "float16[")
    known: dict[str, Array] = arrays(text, 8)
    known |= {name: known[name].astype(np.float16) for name in ("gamma", "beta")}
    known["w"] = normal(8, 4, 3, 3).astype(np.float16)
    model = build(text, **known)
    x = normal(1, 4, 6, 6).astype(np.float16)
    exact = {name: array.astype(np.float64) for name, array in known.items()}
    wide = build(CONV.replace("float[", "double["), **exact)
    truth = reference(wide, x.astype(np.float64))

    assert fold(model).modified

    weight = model.graph.initializers["y.weight"].const_value
    assert weight is not None
    assert weight.dtype == ir.DataType.FLOAT16
    np.testing.assert_allclose(reference(model, x).astype(np.float64), truth, rtol=0.02, atol=0.02)


def test_bfloat16_is_rounded_once(build: Build) -> None:
    text = CONV.replace("float[", "bfloat16[")
    known = arrays(text, 8, {"w": normal(8, 4, 3, 3)})
    known = {name: array.astype(ml_dtypes.bfloat16) for name, array in known.items()}
    model = build(text, **known)
    wide = {name: array.astype(np.float64) for name, array in known.items()}
    scale = wide["gamma"] / np.sqrt(wide["var"] + float(np.float32(0.001)))
    expected = wide["w"] * scale.reshape(-1, 1, 1, 1)

    assert fold(model).modified

    weight = model.graph.initializers["y.weight"].const_value
    assert weight is not None
    assert weight.dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(weight.numpy(), expected.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("gamma", "reason"), [(1e5, "too large for float16"), (1e-8, "too small for float16")]
)
@pytest.mark.parametrize("text", [CONV, BEFORE])
def test_what_half_precision_cannot_hold_stays(
    gamma: float, reason: str, text: str, build: Build
) -> None:
    channels = 8 if text is CONV else 4
    text = text.replace("float[", "float16[")
    known: dict[str, Array] = arrays(text, channels)
    known |= {"gamma": np.full(channels, gamma, np.float32), "w": np.ones((8, 4, 3, 3), np.float16)}
    model = build(text, **known)

    result = fold(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())


def test_a_function_gets_constant_nodes(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    main (float[1,1,4,4] x) => (float[1,2,4,4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 17]>
    block (x) => (y) {
      w = Constant <value = float[2,1,1,1] {2, 3}> ()
      ones = Constant <value_floats = [1.5, 2.5]> ()
      c = Conv (x, w)
      y = BatchNormalization (c, ones, ones, ones, ones)
    }"""
    model = build(text)
    x = normal(1, 1, 4, 4).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert fold(model).modified

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Constant", "Conv"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5)


def test_attributes_given_by_the_caller_are_not_known(build: Build) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    main (float[1,1,4,4] x) => (float[1,2,4,4] y) { y = local.block <eps = 0.1> (x) }
    <domain: "local", opset_import: ["" : 17]>
    block <eps> (x) => (y) {
      w = Constant <value = float[2,1,1,1] {2, 3}> ()
      ones = Constant <value_floats = [1.5, 2.5]> ()
      c = Conv (x, w)
      y = BatchNormalization <epsilon: float = @eps> (c, ones, ones, ones, ones)
    }"""
    model = build(text)

    result = fold(model)

    assert not result.modified
    assert "set by the caller of the function" in " ".join(result.declined.values())


BRANCH = (
    HEAD
    + """main (float[1,4,6,6] x, bool flag) => (float[1,8,4,4] y) {{
  {outside}
  y = If (flag) <
    then_branch = yes () => (float[1,8,4,4] a) {{
      {inside}
      a = BatchNormalization (c, gamma, beta, mean, var)
    }},
    else_branch = no () => (float[1,8,4,4] b) {{ b = Conv (x, w) }}
  >
}}"""
)


def test_inside_a_branch_constants_of_the_outer_graph_count(build: Build, answers: Answers) -> None:
    text = BRANCH.format(outside="", inside="c = Conv (x, w)")
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))
    x = normal(1, 4, 6, 6).astype(np.float32)
    before = [answers(model, x=x, flag=np.array(flag))["y"] for flag in (True, False)]

    assert fold(model).modified

    branch = model.graph[0].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Conv"]
    assert list(branch.initializers) == ["a.weight", "a.bias"]
    for flag, old in zip((True, False), before, strict=True):
        now = answers(model, x=x, flag=np.array(flag))["y"]
        np.testing.assert_allclose(now, old, rtol=1e-5, atol=1e-5)


def test_a_layer_outside_the_branch_stays(build: Build) -> None:
    text = BRANCH.format(outside="c = Conv (x, w)", inside="")
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))

    result = fold(model)

    assert not result.modified
    assert "its input is computed in an outer graph" in " ".join(result.declined.values())


def test_a_layer_inside_a_branch_stays(build: Build) -> None:
    text = (
        HEAD
        + """main (float[1,4,6,6] x, bool flag) => (float[1,8,4,4] y) {
      n = BatchNormalization (x, gamma, beta, mean, var)
      y = If (flag) <
        then_branch = yes () => (float[1,8,4,4] a) { a = Conv (n, w) },
        else_branch = no () => (float[1,8,4,4] b) { b = Conv (x, w) }
      >
    }"""
    )
    model = build(text, **arrays(text, 4, {"w": normal(8, 4, 3, 3)}))

    result = fold(model)

    assert not result.modified
    assert "it is read in an inner graph" in " ".join(result.declined.values())


def test_the_declared_output_stays(build: Build) -> None:
    text = CONV.replace("[1,8,4,4] y", "[batch,8,h,w_] y")
    model = build(text, **arrays(text, 8, {"w": normal(8, 4, 3, 3)}))
    model.graph[0].outputs[0].shape = ir.Shape([1, 8, 4, 4])

    fold(model)

    assert str(model.graph.outputs[0].shape) == "[batch,8,h,w_]"


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, dict[str, Array], Array, int]:
    """A convolution with a normalization on one side, its constants, an input."""
    rank = draw(st.integers(1, 3))
    group = draw(st.integers(1, 3))
    per_group = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    strides = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    pads = draw(
        st.one_of(
            st.just([0] * 2 * rank),
            st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank),
        )
    )
    transpose, before, bias = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    inputs, outputs = group * per_group[0], group * per_group[1]
    shape = (inputs, per_group[1], *kernel) if transpose else (outputs, per_group[0], *kernel)
    seed = draw(st.integers(0, 1000))
    known = {"w": normal(*shape, seed=seed)} | (
        {"b": normal(outputs, seed=seed + 1)} if bias else {}
    )
    kind = "ConvTranspose" if transpose else "Conv"
    attributes = f"<group={group}, strides={strides}, pads={pads}>"
    call = f"{kind}{attributes}({'BN(x)' if before else 'x'}, w{', b' if bias else ''})"
    text = expand(f"y = {call}" if before else f"y = BN({call})", rank + 2, rank + 2, "float")
    x = normal(2, inputs, *(size + 3 for size in kernel), seed=seed + 2).astype(np.float32)
    return text, known, x, inputs if before else outputs


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_any_convolution_keeps_its_answers(case: tuple[str, dict[str, Array], Array, int]) -> None:
    text, known, x, channels = case
    proto = onnx.parser.parse_model(text)
    for name, array in arrays(text, channels, known).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)

    def run() -> Array:
        return session_of(model, SessionConfig(level="disabled", threads=1)).run({"x": x})["y"]

    old = run()
    result = fold(model)
    assert result.modified != bool(result.declined)
    np.testing.assert_allclose(run(), old, rtol=2e-5, atol=2e-5 * float(np.abs(old).max()))
