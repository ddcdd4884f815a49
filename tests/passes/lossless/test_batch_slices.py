"""What is computed slice by slice is computed at once, with the same answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.batch_slices import BatchSlices
from onnxpress.passes.lossless.cleanup import Cleanup

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 6)).astype(np.float32)


def weights(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


CONSTANTS = {
    **{f"i{n}": ints(n) for n in range(-1, 7)},
    **{f"s{n}": np.array(n) for n in range(-1, 3)},
    **{f"w{n}": weights(6, 5) for n in range(3)},
    **{f"v{n}": weights(6, 4) for n in range(3)},
    **{f"b{n}": weights(5) for n in range(3)},
    **{f"k{n}": weights(4, 2, 3) for n in range(3)},
    "row4": weights(4, 1),
    "row6": weights(6),
    "flat": ints(-1, 2),
    "pair": ints(0, 2, 2),
    "ten": ints(2, 12),
    "table": weights(9, 2),
    "wide": weights(2, 6),
    "tall": weights(1, 4, 1),
}


def batch(model: ir.Model) -> Result:
    result = BatchSlices().rewrite(model, Context())
    Cleanup().rewrite(model, Context())
    return result


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def graph(*lines: str, opset: int = 18, x: str = "float[3,4,6]", y: str = "float y") -> str:
    head = f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
    return f"{head}main ({x} x) => ({y}) {{\n" + "\n".join(lines) + "\n}"


def each(*calls: str, count: int = 3) -> list[str]:
    """The calls for every slice, ``#`` standing for its number and ``+`` for the next one's."""
    return [
        call.replace("#", str(number)).replace("+", str(number + 1))
        for number in range(count)
        for call in calls
    ]


ROWS = ["c# = Slice (x, i#, i+, i0)", "e# = Squeeze (c#, i0)"]
JOIN = ["u# = Unsqueeze (f#, i0)"]
STACK = "y = Concat <axis = 0> (u0, u1, u2)"


def test_the_graph_that_is_left(build: Build) -> None:
    lines = each(*ROWS, "m# = MatMul (e#, w0)", "f# = Add (m#, b0)", *JOIN)
    model = build(graph(*lines, STACK), **CONSTANTS)

    result = batch(model)

    assert ir.to_onnx_text(model, exclude_initializers=True).splitlines()[4:] == [
        "main (float[3,4,6] x) => (float y) ",
        "   <float[6,5] w0, float[5] b0>",
        "{",
        '   [node_MatMul_0] "y.matmul" = MatMul (x, w0)',
        '   [node_Add_1] y = Add ("y.matmul", b0)',
        "}",
    ]
    assert result.rewritten == ["Concat -> y"]
    assert not batch(model).modified


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        # Slices stacked again along a new axis.
        (each(*ROWS, "f# = Relu (e#)", *JOIN), ["Relu"]),
        (each(*ROWS, "f# = MatMul (e#, w#)", *JOIN), ["MatMul"]),
        (each(*ROWS, "m# = MatMul (e#, w#)", "f# = Add (m#, b#)", *JOIN),
         ["MatMul", "Unsqueeze", "Add"]),
        (each(*ROWS, "f# = Gemm (e#, w0, b0)", *JOIN), ["MatMul", "Add"]),
        (each(*ROWS, "f# = Gemm <transB = 1> (e#, wide)", *JOIN), ["MatMul"]),
        (each(*ROWS, "f# = Gemm (e#, w#, b#)", *JOIN), ["MatMul", "Unsqueeze", "Add"]),
        (each(*ROWS, "f# = Add (e#, row4)", *JOIN), ["Add"]),
        (each(*ROWS, "f# = Add (e#, tall)", *JOIN), ["Unsqueeze", "Add"]),
        (each(*ROWS, "f# = Transpose (e#)", *JOIN), ["Transpose"]),
        (each(*ROWS, "f# = Reshape (e#, flat)", *JOIN), ["Reshape"]),
        (each(*ROWS, "f# = ReduceMax <keepdims = 0> (e#, i1)", *JOIN), ["ReduceMax"]),
        (each(*ROWS, "f# = ReduceSum (e#, i0)", *JOIN), ["ReduceSum"]),
        (each(*ROWS, "f# = Softmax <axis = 0> (e#)", *JOIN), ["Softmax"]),
        (each(*ROWS, "f# = LayerNormalization (e#, row6)", *JOIN), ["LayerNormalization"]),
        (each(*ROWS, "t# = Transpose (e#)", "p# = MatMul (e#, t#)", "f# = Exp (p#)", *JOIN), []),
        (each(*ROWS, "l# = Exp (e#)", "t# = Unsqueeze (l#, i2)", "f# = Squeeze (t#, i2)", *JOIN),
         ["Exp", "Unsqueeze", "Squeeze"]),
        (each("l# = Slice (x, i#, i+, i1)", "e# = Squeeze (l#, i1)", "f# = Relu (e#)", *JOIN),
         ["Slice", "Transpose", "Relu"]),
        (each("e# = Gather <axis = 0> (x, s#)", "f# = Relu (e#)", *JOIN), ["Relu"]),
        (each("e# = Gather <axis = 1> (x, s#)", "f# = Relu (e#)", *JOIN),
         ["Slice", "Transpose", "Relu"]),
        (["e0, e1, e2 = Split <axis = 2> (x, split)",
          *each("f# = MatMul (v0, e#)", "u# = Unsqueeze (f#, i1)")], []),
        # Parts joined along an axis that they have.
        (each("c# = Slice (x, i#, i+, i0)", "u# = Relu (c#)"), ["Relu"]),
        (each("c# = Slice (x, i#, i+, i0)", "m# = MatMul (c#, w0)", "u# = Add (m#, b0)"),
         ["MatMul", "Add"]),
        (each("c# = Slice (x, i#, i+, i0)", "u# = Softmax (c#)"), ["Softmax"]),
        (each("c# = Slice (x, i#, i+, i0)", "u# = Add (c#, tall)"), ["Add"]),
        (each("c# = Slice (x, i#, i+, i0)", "u# = ReduceMean (c#, i1)"), ["ReduceMean"]),
        (each("c# = Slice (x, i#, i+, i0)", "u# = Reshape (c#, flat)"), ["Reshape"]),
        (each("c# = Slice (x, i#, i+, i0)", "u# = Transpose <perm = [0, 2, 1]> (c#)"),
         ["Transpose"]),
        (each("c# = Gather <axis = 0> (x, i#)", "u# = Relu (c#)"), ["Relu"]),
        (["c0, c1, c2 = Split <num_outputs = 3> (x)", *each("u# = Relu (c#)")], ["Relu"]),
        (each("u# = Slice (x, i#, i+, i0)"), ["Identity"]),
    ],
)  # fmt: skip
def test_slices_are_computed_at_once(
    lines: list[str], left: list[str], build: Build, answers: Answers
) -> None:
    model = build(graph(*lines, STACK), **CONSTANTS, split=ints(2, 2, 2))
    before = answers(model, x=X)["y"]

    result = batch(model)

    if not left:  # read more than once, or along columns
        assert not result.modified
    else:
        assert kinds(model) == left
        assert result.rewritten == ["Concat -> y"]
    np.testing.assert_allclose(answers(model, x=X)["y"], before, rtol=1e-5, atol=1e-6)
    assert not batch(model).modified


def test_part_of_a_tensor_is_cut_out_once(build: Build, answers: Answers) -> None:
    lines = each("c# = Slice (x, i+, i#, i1)".replace("i#", "j#"), "u# = Relu (c#)", count=2)
    model = build(
        graph(*lines, "y = Concat <axis = 1> (u0, u1)"), **CONSTANTS, j0=ints(2), j1=ints(4)
    )
    before = answers(model, x=X)["y"]

    batch(model)

    assert kinds(model) == ["Slice", "Relu"]
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)


def test_groups_of_channels_are_one_convolution(build: Build, answers: Answers) -> None:
    lines = ["c0, c1 = Split <axis = 1> (x)", *each("u# = Conv (c#, k#, b#)", count=2)]
    text = graph(*lines, "y = Concat <axis = 1> (u0, u1)", opset=17)
    model = build(text, **{**CONSTANTS, "b0": weights(4), "b1": weights(4)})
    before = answers(model, x=X)["y"]

    batch(model)

    (conv,) = model.graph
    assert conv.op_type == "Conv"
    assert conv.attributes["group"].as_int() == 2
    np.testing.assert_allclose(answers(model, x=X)["y"], before, rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch_are_one_convolution(build: Build, answers: Answers) -> None:
    lines = each("c# = Slice (x, i#, i+, i0)", "u# = Conv (c#, kernel)")
    model = build(graph(*lines, STACK), **CONSTANTS, kernel=weights(2, 4, 3))
    before = answers(model, x=X)["y"]

    batch(model)

    assert kinds(model) == ["Conv"]
    np.testing.assert_allclose(answers(model, x=X)["y"], before, rtol=1e-5, atol=1e-6)


def test_rows_of_a_table(build: Build, answers: Answers) -> None:
    lines = each(*ROWS, "f# = Gather <axis = 0> (table, e#)", *JOIN)
    model = build(graph(*lines, STACK, x="int64[3,4]"), **CONSTANTS)
    feed = RNG.integers(0, 9, (3, 4))
    before = answers(model, x=feed)["y"]

    batch(model)

    assert kinds(model) == ["Gather"]
    np.testing.assert_array_equal(answers(model, x=feed)["y"], before)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 20])
@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
def test_every_version_and_type(opset: int, dtype: str, build: Build, answers: Answers) -> None:
    old = [
        "c# = Slice <starts = [#], ends = [+], axes = [0]> (x)",
        "e# = Squeeze <axes = [0]> (c#)",
        "m# = MatMul (e#, w)",
        "f# = Softmax <axis = -1> (m#)",
        "u# = Unsqueeze <axes = [0]> (f#)",
    ]
    new = [*ROWS, "m# = MatMul (e#, w)", "f# = Softmax <axis = -1> (m#)", *JOIN]
    mixed = [new[0], old[1], *new[2:4], old[4]]
    lines = each(*(old if opset < 10 else mixed if opset < 13 else new))
    native = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    text = graph(*lines, STACK, opset=opset, x=f"{dtype}[3,N,6]", y=f"{dtype} y")
    model = build(text, **CONSTANTS, w=weights(6, 5).astype(native))
    feed = X.astype(native)
    before = answers(model, x=feed)["y"]

    batch(model)

    assert kinds(model) == ["MatMul", "Softmax"]
    tolerance = 1e-2 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(answers(model, x=feed)["y"], before, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([*each(*ROWS, "f# = Relu (e#)", *JOIN)[:-1], "u2 = Unsqueeze (e2, i0)"],
         "something else reads what is computed of a slice"),
        ([*each(*ROWS, "m# = MatMul (e#, w0)", "f# = Relu (m#)", *JOIN), "z = Exp (m1)"],
         "something else reads what is computed of a slice"),
        (each("c# = Relu (x)", "u# = Exp (c#)"), "its inputs are not slices of one tensor"),
        (each("c# = Slice (x, i#, i+, i1)", "u# = Softmax <axis = 1> (c#)"),
         "its inputs are not slices of one tensor, in their order"),
        (each("c# = Slice (x, i#, i+, i0)", "u# = Softmax <axis = 0> (c#)"),
         "Softmax mixes what lies along the axis of the slices"),
        (each("c# = Slice (x, i#, i+, i0)", "u# = CumSum (c#, s1)"),
         "CumSum is not known to treat slices alike"),
        (each(*ROWS, "f# = Gemm <alpha = 2.0> (e#, w0, b0)", *JOIN), "Gemm scales the slices"),
        (["c0 = Slice (x, i0, i1, i0)", "c1 = Slice (x, i2, i3, i0)", "c2 = Slice (x, i1, i2, i0)",
          *each("u# = Relu (c#)")], "its inputs are not slices of one tensor, in their order"),
        (["c0 = Slice (x, i0, i1, i0)", "c1 = Slice (x, i1, i2, i0)", "c2 = Slice (x, i2, i3, i0)",
          "u0 = Relu (c0)", "u1 = LeakyRelu <alpha = 0.5> (c1)", "u2 = Relu (c2)"], None),
        (["c0 = Slice (x, i0, i1, i0)", "c1 = Slice (x, i1, i2, i0)", "c2 = Slice (x, i2, i3, i0)",
          "u0 = LeakyRelu (c0)", "u1 = LeakyRelu <alpha = 0.5> (c1)", "u2 = LeakyRelu (c2)"],
         "its inputs are not computed alike"),
        (["u0 = Relu (row6)", "u1 = Relu (row6)", "u2 = Relu (row6)"], None),
        (["u0 = Add (row6, row6)", "u1 = Add (row6, row6)", "u2 = Add (row6, row6)"],
         "it joins the same several times"),
    ],
)  # fmt: skip
def test_what_is_declined(
    lines: list[str], reason: str | None, build: Build, answers: Answers
) -> None:
    also = any(line.startswith("z =") for line in lines)
    model = build(graph(*lines, STACK, y="float y" + ", float z" * also), **CONSTANTS)
    before = answers(model, x=X)

    result = BatchSlices().rewrite(model, Context())

    if reason is not None:
        assert (result.modified, result.declined) == (False, {"Concat -> y": reason})
    for name, array in answers(model, x=X).items():
        np.testing.assert_array_equal(array, before[name])


def test_ranks_that_are_not_known_are_left(build: Build) -> None:
    lines = each(*ROWS, "f# = Relu (e#)", *JOIN)
    model = build(graph(*lines, STACK, x="float[]"), **CONSTANTS)
    assert not BatchSlices().rewrite(model, Context()).modified


def test_inside_of_branches(build: Build, answers: Answers) -> None:
    inner = each("c# = Slice (x, i#, i+, i0)", "u# = Relu (c#)")
    branch = "\n".join([*inner, "t = Concat <axis = 0> (u0, u1, u2)"])
    text = graph(
        "total = ReduceSum <keepdims = 0> (x)",
        "truth = Greater (total, zero)",
        f"y = If (truth) <then_branch = then () => (float t) {{ {branch} }},"
        " else_branch = other () => (float o) { o = Exp (x) }>",
    )
    model = build(text, **CONSTANTS, zero=np.float32(-1e9))
    before = answers(model, x=X)["y"]

    assert BatchSlices().rewrite(model, Context()).modified

    np.testing.assert_array_equal(answers(model, x=X)["y"], before)


def test_a_constant_index_is_no_slice_of_anything(build: Build) -> None:
    lines = ("one = Constant <value_ints = [1]> ()", "a = Gather (x, k)", "b = Gather (x, one)")
    text = graph(*lines, "p = Relu (a)", "q = Relu (b)", "y = Concat <axis = 0> (p, q)")
    model = build(text.replace("] x)", "] x, int64[1] k)"))
    assert not batch(model).modified
