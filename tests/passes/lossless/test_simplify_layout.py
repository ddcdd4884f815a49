"""Fewer transposes and reshapes, with the same answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.cleanup import Cleanup
from onnxpress.passes.lossless.simplify_layout import SimplifyLayout

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def simplify(model: ir.Model) -> Result:
    result = SimplifyLayout().rewrite(model, Context())
    Cleanup().rewrite(model, Context())
    return result


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def graph(*lines: str, x: str, opset: int = 17, y: str = "float y") -> str:
    head = f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
    return f"{head}main ({x} x) => ({y}) {{\n" + "\n".join(lines) + "\n}"


def t(perm: str, x: str) -> str:
    return f"Transpose <perm = [{perm}]> ({x})"


def feed(shape: str) -> Array:
    """Numbers of the shape of a type such as ``float[N,3]``, with 2 for ``N`` and 3 for ``M``."""
    sizes = shape[shape.index("[") + 1 : -1].split(",") if "[" in shape else []
    return floats(*({"N": 2, "M": 3}.get(size) or int(size) for size in sizes))


IMAGE = "float[N,6,4,5]"
LAST, FIRST = "0, 2, 3, 1", "0, 3, 1, 2"
CONSTANTS = {
    **{f"i{n}": ints(n) for n in range(-1, 5)},
    "i12": ints(1, 2),
    "flat": ints(-1, 4, 5),
    "again": ints(-1, 6, 5, 4),
    "rows": ints(-1, 6),
    "back": ints(-1, 4, 5, 6),
    "merged": ints(0, 6, 20),
    "split": ints(0, 6, 4, 5),
    "halves": ints(0, 2, 3, 4, 5),
    "mixed": ints(0, 5, 24),
    "copies": ints(0, 0, -1),
    "whole": ints(0, -1),
    "channels": floats(6),
    "grid": floats(4, 5, 1),
    "all": floats(4, 5, 6),
    "half": np.float32(0.5),
    "matrix": floats(6, 3),
    "kernel": floats(6, 6, 1, 1),
    "pads": ints(0, 1, 0, 0, 0, 0, 2, 0),
    "s0": ints(1), "s1": ints(3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("x", "lines", "left"),
    [
        # Two transposes, also with sizes that are not known.
        (IMAGE, [f"a = {t(LAST, 'x')}", f"y = {t('0, 2, 1, 3', 'a')}"], ["Transpose"]),
        ("float[N,M,K]".replace("K", "4"),
         [f"a = {t('1, 0, 2', 'x')}", f"y = {t('0, 2, 1', 'a')}"], ["Transpose"]),
        # Two reshapes.
        (IMAGE, ["a = Reshape (x, merged)", "y = Reshape (a, mixed)"], ["Reshape"]),
        (IMAGE, ["a = Reshape (x, flat)", "y = Reshape (a, again)"], ["Reshape"]),
        (IMAGE, ["a = Flatten (x)", "y = Reshape (a, again)"], ["Reshape"]),
        ("float[N,M,4]", ["a = Unsqueeze (x, i0)", "y = Reshape (a, flat4)"], ["Reshape"]),
        ("float[N,M,4,1]", ["a = Squeeze (x, i3)", "y = Unsqueeze (a, i0)"], None),
        ("float[N,1,M]", ["a = Squeeze (x, i1)", "b = Unsqueeze (a, i0)", "y = Squeeze (b, i0)"],
         ["Squeeze"]),
        # A transpose between two reshapes.
        (IMAGE, ["a = Reshape (x, flat)", f"b = {t('0, 2, 1', 'a')}", "y = Reshape (b, again)"],
         ["Transpose"]),
        (IMAGE, [f"a = {t(LAST, 'x')}", "b = Reshape (a, rows)", "c = Reshape (b, back)",
                 f"y = {t(FIRST, 'c')}"], ["Identity"]),
        # Only axes of size 1 move.
        ("float[N,1,8]", [f"y = {t('0, 2, 1', 'x')}"], ["Reshape"]),
        ("float[N,8,1,1]", [f"a = {t(LAST, 'x')}", "y = Reshape (a, whole)"], ["Reshape"]),
        ("float[N,8,5]", ["a = Unsqueeze (x, i1)", f"b = {t('0, 3, 1, 2', 'a')}",
                          "y = Squeeze (b, i2)"], ["Transpose"]),
    ],
)  # fmt: skip
def test_rows_are_written_shorter(
    x: str, lines: list[str], left: list[str] | None, build: Build, answers: Answers
) -> None:
    model = build(graph(*lines, x=x), **CONSTANTS, flat4=ints(-1, 4))
    array = feed(x)
    before = answers(model, x=array)["y"]

    result = simplify(model)

    if left is None:
        assert not result.modified
    else:
        assert kinds(model) == left
        assert result.modified
    np.testing.assert_array_equal(answers(model, x=array)["y"], before)
    assert not simplify(model).modified


def test_the_graph_that_is_left(build: Build) -> None:
    lines = [
        f"a = {t(LAST, 'x')}",
        "b = Mul (a, channels)",
        "c = Relu (b)",
        f"y = {t(FIRST, 'c')}",
    ]
    model = build(graph(*lines, x=IMAGE), **CONSTANTS)

    simplify(model)

    assert ir.to_onnx_text(model, exclude_initializers=True).splitlines()[4:] == [
        "main (float[N,6,4,5] x) => (float y) ",
        '   <float[6,1,1] "b.moved">',
        "{",
        '   [node_Mul_0] "b.mul" = Mul (x, "b.moved")',
        '   [node_Relu_1] y = Relu ("b.mul")',
        "}",
    ]


@pytest.mark.parametrize(
    ("calls", "left"),
    [
        (["Relu (#)"], ["Relu"]),
        (["Clip (#, half)"], ["Clip"]),
        (["Add (#, half)"], ["Add"]),
        (["Add (channels, #)"], ["Add"]),
        (["Mul (#, grid)"], ["Mul"]),
        (["Sub (#, all)"], ["Sub"]),
        (["Pad (#, pads)"], ["Pad"]),
        (["Softmax <axis = -1> (#)"], ["Softmax"]),
        (["Concat <axis = 2> (#, #)"], ["Concat"]),
        (["Slice (#, s0, s1, i1)"], ["Slice"]),
        (["ReduceMean <axes = [1, 2]> (#)"], ["ReduceMean"]),
        (["ReduceSum (#, i12)"], ["ReduceSum"]),
        (["MatMul (#, matrix)"], ["Conv"]),
        (["Where (no, half, #)"], ["Where"]),
        (["Cast <to = 1> (#)", "Exp (#)", "Max (#, half, channels)"], ["Cast", "Exp", "Max"]),
    ],
)
def test_transposes_cancel_behind_what_is_between(
    calls: list[str], left: list[str], build: Build, answers: Answers
) -> None:
    names = [f"v{number}" for number in range(len(calls) + 1)]
    steps = [
        f"{after} = {call.replace('#', before)}"
        for call, before, after in zip(calls, names, names[1:], strict=False)
    ]
    lines = [f"v0 = {t(LAST, 'x')}", *steps, f"y = {t(FIRST, names[-1])}"]
    model = build(graph(*lines, x=IMAGE), **CONSTANTS, no=np.array(False))
    array = feed(IMAGE)
    before = answers(model, x=array)["y"]

    simplify(model)

    assert [kind for kind in kinds(model) if kind != "Cast"] == [k for k in left if k != "Cast"]
    np.testing.assert_allclose(answers(model, x=array)["y"], before, rtol=1e-5, atol=1e-6)
    assert not simplify(model).modified


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        # Several become one behind what joins them.
        ([f"a = {t(LAST, 'x')}", "r = Relu (x)", f"b = {t(LAST, 'r')}", "y = Add (a, b)"],
         ["Relu", "Add", "Transpose"]),
        # A gate of squeezed sizes lies alike.
        ([f"a = {t(LAST, 'x')}", "g = GlobalAveragePool (x)", f"b = {t(LAST, 'g')}",
          "c = Mul (a, b)", f"y = {t(FIRST, 'c')}"], ["GlobalAveragePool", "Mul"]),
        # Rows of a matrix.
        ([f"a = {t(LAST, 'x')}", "b = Reshape (a, rows)", "c = MatMul (b, kernel2)",
          "d = Relu (c)", "e = Reshape (d, back)", f"y = {t(FIRST, 'e')}"], ["Conv", "Relu"]),
        # Where Conv can take in what follows.
        (["a = Conv (x, kernel)", "b = Reshape (a, merged)", "c = Relu (b)", "y = Softmax (c)"],
         ["Conv", "Relu", "Reshape", "Softmax"]),
        (["a = Unsqueeze (x, i4)", "b = Exp (a)", "c = Squeeze (b, i4)", "y = Relu (c)"],
         ["Exp", "Relu"]),
        # What nothing cancels stays where it is.
        ([f"a = {t(LAST, 'x')}", "b = Relu (a)", "y = CumSum (b, k)"],
         ["Transpose", "Relu", "CumSum"]),
        ([f"a = {t(LAST, 'x')}", "y = Add (a, all)"], ["Transpose", "Add"]),
        # Something repeats it along an axis that is not there yet.
        (["a = ReduceMax (x)", "b = Squeeze (a, i12)", "c = Unsqueeze (b, i1)",
          "d = Add (c, wide)", "y = Relu (d)"], None),
    ],
)  # fmt: skip
def test_regions(lines: list[str], left: list[str] | None, build: Build, answers: Answers) -> None:
    more = {"kernel2": floats(6, 6), "k": np.array(1), "wide": floats(3, 1)}
    text = graph(*lines, x=IMAGE).replace("ReduceMax (x)", "ReduceMax <axes = [1, 2]> (x)")
    model = build(text, **CONSTANTS, **more)
    array = feed(IMAGE)
    before = answers(model, x=array)["y"]

    simplify(model)

    if left is not None:
        assert kinds(model) == left
    np.testing.assert_allclose(answers(model, x=array)["y"], before, rtol=1e-5, atol=1e-6)
    assert not simplify(model).modified


def test_what_something_else_reads_stays(build: Build, answers: Answers) -> None:
    lines = [f"a = {t(LAST, 'x')}", "b = Relu (a)", f"y = {t(FIRST, 'b')}", "z = Exp (b)"]
    model = build(graph(*lines, x=IMAGE, y="float y, float z"), **CONSTANTS)
    array = feed(IMAGE)
    before = answers(model, x=array)

    simplify(model)

    assert sorted(kinds(model)) == ["Exp", "Relu", "Transpose"]
    for name, value in answers(model, x=array).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("x", "lines"),
    [
        # Two sizes that a constant target cannot say.
        ("float[N,M,4]", [f"a = {t('1, 0, 2', 'x')}", "y = Reshape (a, rows4)"]),
        # A size that is copied, and may be 0, beside one that is left over.
        ("float[N,M,1,4]", ["a = Squeeze (x, i2)", "y = Unsqueeze (a, i0)"]),
        # A number of axes that is not known.
        ("float[]", ["a = Unsqueeze (x, i0)", "y = Squeeze (a, i0)"]),
        # Nothing in it.
        ("float[N,0,4]", [f"a = {t('0, 2, 1', 'x')}", "y = Reshape (a, none)"]),
        # A target that is computed.
        ("float[N,4]", ["s = Shape (x)", f"a = {t('1, 0', 'x')}", "y = Reshape (a, s)"]),
    ],
)
def test_what_is_left(x: str, lines: list[str], build: Build) -> None:
    model = build(graph(*lines, x=x), **CONSTANTS, rows4=ints(-1, 4), none=ints(0, 0, 4))
    assert not SimplifyLayout().rewrite(model, Context()).modified


def test_quantized_groups_stay(build: Build) -> None:
    lines = [
        f"a = {t(LAST, 'd')}",
        "b = Relu (a)",
        f"c = {t(FIRST, 'b')}",
        "y = QuantizeLinear (c, scale, zero)",
    ]
    text = graph("d = DequantizeLinear (x, scale, zero)", *lines, x="uint8[N,6,4,5]", y="uint8 y")
    model = build(text, scale=np.float32(0.1), zero=np.uint8(3))
    assert not SimplifyLayout().rewrite(model, Context()).modified


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
@pytest.mark.parametrize("dtype", ["float", "double", "float16", "int32"])
def test_every_version_and_type(opset: int, dtype: str, build: Build, answers: Answers) -> None:
    old = opset < 13
    native = {"float": "f4", "double": "f8", "float16": "f2", "int32": "i4"}[dtype]
    lines = [
        f"a = {t(LAST, 'x')}",
        "b = Add (a, channels)",
        "c = Squeeze <axes = [1]> (b)" if old else "c = Squeeze (b, i1)",
        "d = Unsqueeze <axes = [1]> (c)" if old else "d = Unsqueeze (c, i1)",
        f"y = {t(FIRST, 'd')}",
    ]
    text = graph(*lines, x=f"{dtype}[N,6,1,5]", opset=opset, y=f"{dtype} y")
    model = build(text, **{**CONSTANTS, "channels": np.arange(6).astype(native)})
    array = (10 * floats(2, 6, 1, 5)).astype(native)
    before = answers(model, x=array)["y"]

    simplify(model)

    assert kinds(model) == ["Add"]
    np.testing.assert_array_equal(answers(model, x=array)["y"], before)


def test_empty_batches(build: Build, answers: Answers) -> None:
    lines = ["a = Reshape (x, flat)", f"b = {t('0, 2, 1', 'a')}", "y = Reshape (b, again)"]
    model = build(graph(*lines, x=IMAGE), **CONSTANTS)
    simplify(model)
    assert answers(model, x=floats(0, 6, 4, 5))["y"].shape == (0, 6, 5, 4)


def test_inside_of_branches_and_functions(build: Build, answers: Answers) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
    main (float[N,6,4,5] x) => (float y) {{
        o = {t(LAST, "x")}
        total = ReduceSum <keepdims = 0> (x)
        truth = Greater (total, low)
        z = If (truth) <then_branch = then () => (float p) {{
                a = {t(LAST, "x")}
                b = Relu (a)
                p = {t(FIRST, "b")}
            }}, else_branch = other () => (float q) {{
                q = {t(FIRST, "o")}
            }}>
        y = local.f (z)
    }}
    <opset_import: ["" : 17], domain: "local">
    f (x) => (y) {{
        a = {t(LAST, "x")}
        b = Relu (a)
        y = {t(FIRST, "b")}
    }}"""
    model = build(text, low=np.float32(-1e9))
    array = feed(IMAGE)
    before = answers(model, x=array)["y"]

    assert simplify(model).modified

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Relu"]
    np.testing.assert_array_equal(answers(model, x=array)["y"], before)


def test_a_constant_of_one_element_may_have_more_axes_than_what_is_reshaped(
    build: Build, answers: Answers
) -> None:
    lines = ("u = Unsqueeze (x, i1)", "s = Add (u, one)", "y = Squeeze (s, i1)")
    given = {"i1": ints(1), "one": floats(1, 1, 1)}
    model = build(graph(*lines, x="float[2,3]"), **given)
    x = floats(2, 3)
    right = answers(build(graph(*lines, x="float[2,3]"), **given), x=x)["y"]
    simplify(model)
    assert kinds(model) == ["Add"]
    np.testing.assert_allclose(answers(model, x=x)["y"], right, rtol=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [("i_column", "i_row"), ("i_row", "i_column"), ("i_column", "i_column")],
)
def test_a_column_minus_a_row_is_a_matrix(
    one: str, other: str, build: Build, answers: Answers
) -> None:
    lines = [
        "n = Neg (x)",
        f"a = Reshape (x, {one})",
        f"b = Reshape (n, {other})",
        "y = Sub (a, b)",
    ]
    text = graph(*lines, x="float[N]")
    model = build(text, i_column=ints(-1, 1), i_row=ints(1, -1))
    x = floats(4)
    before = answers(model, x=x)["y"]

    simplify(model)

    np.testing.assert_array_equal(answers(model, x=x)["y"], before)


def test_a_cube_of_constants_is_turned(build: Build, answers: Answers) -> None:
    lines = [f"a = {t(LAST, 'x')}", "b = Mul (a, cube)", f"y = {t(FIRST, 'b')}"]
    model = build(graph(*lines, x="float[N,4,4,4]"), cube=floats(4, 4, 4))
    x = floats(2, 4, 4, 4)
    before = answers(model, x=x)["y"]

    simplify(model)

    assert kinds(model) == ["Mul"]
    np.testing.assert_array_equal(answers(model, x=x)["y"], before)
