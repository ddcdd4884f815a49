"""Slices, gathers, splits, concats and scatters by constants are written shorter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.cleanup import Cleanup
from onnxpress.passes.lossless.simplify_indexing import SimplifyIndexing

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


X = floats(2, 6, 5)
FURTHEST = 2**63 - 1
CONSTANTS = {
    **{f"i{n}": ints(n) for n in range(8)},
    **{f"s{n}": np.array(n) for n in range(3)},
    "n1": ints(-1), "n2": ints(-2), "end": ints(FURTHEST), "last": np.array(-1),
    "i01": ints(0, 1), "i02": ints(0, 2), "two3": ints(2, 3, 1), "halves": ints(3, 3),
    "w": floats(2, 2, 5), "v": floats(2, 6, 5), "zeros": np.zeros((2, 6, 5), np.float32),
}  # fmt: skip


def simplify(model: ir.Model) -> Result:
    result = SimplifyIndexing().rewrite(model, Context())
    Cleanup().rewrite(model, Context())
    return result


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def graph(*lines: str, opset: int = 18, x: str = "float[2,6,5]", y: str = "float y") -> str:
    head = f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
    return f"{head}main ({x} x) => ({y}) {{\n" + "\n".join(lines) + "\n}"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["a = Slice (x, i1, i6, i1)", "y = Slice (a, i2, i4, i1)"], ["Slice"]),
        (["a = Slice (x, i1, end, i1)", "y = Slice (a, i1, end, i1)"], ["Slice"]),
        (["a = Slice (x, i1, i6, i1)", "y = Slice (a, n2, end, i1)"], ["Slice"]),
        (["a = Slice (x, i1, i2, i0)", "y = Slice (a, i1, i4, i2)"], ["Slice"]),
        (["a = Slice (x, i1, i5, i1, i2)", "y = Slice (a, i1, i4, i2)"], ["Slice"]),
        (["a = Slice (x, i1, i5, i1, i2)", "y = Slice (a, i0, i1, i1)"], ["Slice"]),
        (["a = Slice (x, i3, i4, i1)", "y = Squeeze (a, i1)"], ["Gather"]),
        (["a = Slice (x, n1, end, i1)", "y = Squeeze (a, i1)"], ["Gather"]),
        (["a = Slice (x, i1, i2, i0)", "b = Slice (a, i3, i4, i1)", "y = Squeeze (b, i01)"],
         ["Slice", "Squeeze"]),
        (["a = Gather <axis = 1> (x, s2)", "y = Unsqueeze (a, i1)"], ["Gather"]),
        (["a = Gather <axis = 1> (x, last)", "y = Unsqueeze (a, i02)"], ["Gather", "Unsqueeze"]),
        (["a = Gather <axis = 1> (x, s2)", "y = Unsqueeze (a, i2)"], ["Gather", "Unsqueeze"]),
        (["a = Concat <axis = 1> (x, w)", "y = Concat <axis = 1> (v, a)"], ["Concat"]),
        (["a = Concat <axis = 1> (x, w)", "y = Concat <axis = -2> (v, a)"], ["Concat"]),
        (["a = Concat <axis = 1> (x, w)", "y = Concat <axis = 0> (a, a)"], ["Concat", "Concat"]),
        (["a = Concat <axis = 1> (x, w)", "y = Slice (a, i6, end, i1)"], ["Identity"]),
        (["a = Concat <axis = 1> (x, w)", "y = Slice (a, i2, i4, i1)"], ["Slice"]),
        (["a = Concat <axis = 1> (x, w)", "y = Slice (a, i5, i7, i1)"], ["Concat", "Slice"]),
        (["a = Concat <axis = 1> (x, w)", "y = Slice (a, i1, i2, i2)"], ["Concat", "Slice"]),
        (["a = Slice (x, i0, i3, i1)", "b = Slice (x, i3, i5, i1)", "c = Exp (w)",
          "y = Concat <axis = 1> (a, b, c)"], ["Exp", "Slice", "Concat"]),
        (["a = Slice (x, i0, i3, i1)", "b = Slice (x, i3, end, i1)", "c = Exp (w)",
          "y = Concat <axis = 1> (a, b, c)"], ["Exp", "Concat"]),
        (["a, b, c = Split <axis = 1> (x, two3)", "y = Concat <axis = 1> (a, b, c)"],
         ["Identity"]),
        (["a, b, c = Split <axis = 1> (x, two3)", "y = Concat <axis = 1> (a, c, b)"],
         ["Split", "Concat"]),
        (["e = Exp (v)", "a = Concat <axis = 0> (x, e)", "b, c = Split <num_outputs = 2> (a)",
          "y = Sub (b, c)"], ["Exp", "Sub"]),
        (["a = Slice (x, i0, i3, i1)", "b = Slice (x, i3, end, i1)", "y = Sub (b, a)"],
         ["Split", "Sub"]),
        (["a = Slice (x, i0, i3, i1)", "b = Slice (x, i3, end, i1)", "c = Slice (a, i1, end, i2)",
          "d = Slice (b, i1, end, i2)", "y = Sub (c, d)"], ["Slice", "Slice", "Sub"]),
        (["a = Slice (x, i0, i2, i1)", "b = Slice (x, i2, i4, i1)", "c = Slice (x, i4, end, i1)",
          "d = Slice (b, i1, end, i2)", "e = Sub (a, c)", "f = Slice (e, i1, end, i2)",
          "y = Sub (d, f)"], ["Split", "Slice", "Sub", "Slice", "Sub"]),
        (["a = Slice (x, i0, i3, i1)", "b = Slice (x, i4, end, i1)", "y = MatMul (b, q)"],
         None),
    ],
)  # fmt: skip
def test_what_is_left(
    lines: list[str], left: list[str] | None, build: Build, answers: Answers
) -> None:
    model = build(graph(*lines), **CONSTANTS, q=floats(5, 2))
    before = answers(model, x=X)["y"]

    result = simplify(model)

    if left is not None:
        assert kinds(model) == left
    assert result.modified or len(lines) == len(left or lines)
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)
    assert not simplify(model).modified


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    "lines",
    [
        ["a = Slice (x, i1, i3, i0)", "y = Slice (a, i0, i1, i0)"],
        ["a = Slice (x, i1, end, i0)", "y = Slice (a, i2, i7, i0)"],
        ["a = Slice (x, i0, i3, i0)", "y = Slice (a, n2, end, i0)"],
        ["a = Slice (x, i0, n1, i0)", "y = Slice (a, i0, n1, i0)"],
        ["a = Slice (x, i1, n1, i0)", "y = Slice (a, i1, n1, i0)"],
        ["a = Slice (x, n2, end, i0)", "y = Slice (a, i1, end, i0)"],
        ["a = Slice (x, i0, i2, i0)", "b = Slice (x, i2, i4, i0)", "y = Concat <axis = 0> (a, b)"],
        ["a = Slice (x, i0, i2, i0)", "b = Slice (x, i2, end, i0)", "y = Concat <axis = 0> (a, b)"],
        ["a = Slice (x, n1, end, i0)", "y = Squeeze (a, i0)"],
    ],
)
def test_axes_that_are_shorter_than_slices(
    lines: list[str], size: int, build: Build, answers: Answers
) -> None:
    model = build(graph(*lines, x="float[N,5]"), **CONSTANTS)
    array = floats(size, 5)
    before = answers(model, x=array)["y"]

    simplify(model)

    np.testing.assert_array_equal(answers(model, x=array)["y"], before)


def rows(*parts: range) -> Array:
    """The indices of all that lies in ``parts``, as exporters write them."""
    grid = np.meshgrid(*(np.array(part) for part in parts), indexing="ij")
    return np.stack(grid, -1).astype(np.int64)


@pytest.mark.parametrize(
    ("writes", "data", "left"),
    [
        # All of it, along one axis or two.
        ([rows(range(2))], "v", ["Relu"]),
        ([rows(range(2), range(6))], "v", ["Relu"]),
        # Part of a constant.
        ([rows(range(1))], "zeros", ["Relu", "Concat"]),
        ([rows(range(2), range(2, 4))], "zeros", ["Relu", "Concat"]),
        ([rows(range(2), range(-4, -2))], "zeros", ["Relu", "Concat"]),
        # Row by row.
        ([rows(range(2), range(3)), rows(range(2), range(3, 6))], "x", ["Relu", "Relu", "Concat"]),
        ([rows(range(2), range(4)), rows(range(2), range(2, 6))], "x",
         ["Relu", "Relu", "Slice", "Concat"]),
        # Not worth it, or no range.
        ([rows(range(2), range(2, 4))], "x", None),
        ([rows(range(1), range(2, 4))], "zeros", None),
        ([rows(range(2))[::-1].copy()], "v", None),
    ],
)  # fmt: skip
def test_scatters(
    writes: list[Array], data: str, left: list[str] | None, build: Build, answers: Answers
) -> None:
    lines, constants = [], {}
    for number, indices in enumerate(writes):
        depth = indices.shape[-1]
        constants[f"at{number}"] = indices
        constants[f"u{number}"] = floats(*indices.shape[:-1], *X.shape[depth:])
        into = f"t{number}"
        lines += [
            f"r{number} = Relu (u{number})",
            f"{into} = ScatterND ({data}, at{number}, r{number})",
        ]
        data = into
    lines[-1] = lines[-1].replace(f"{data} =", "y =")
    model = build(graph(*lines), **CONSTANTS, **constants)
    before = answers(model, x=X)["y"]

    result = simplify(model)

    if left is None:
        assert not result.modified
        assert len(result.declined) == 1
    else:
        assert sorted(set(kinds(model)) - {"Slice", "Identity"}) == sorted(set(left) - {"Slice"})
        assert "ScatterND" not in kinds(model)
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)
    assert not simplify(model).modified


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('ScatterND <reduction = "add"> (v, at, x)', "it computes with what is there"),
        ("ScatterND (v, where, x)", "where it writes is not constant"),
        ("ScatterND (v, back, x)", "it does not write a range in its order"),
        ("ScatterND (v, flat, x)", "it does not write a range"),
    ],
)
def test_scatters_that_are_declined(call: str, reason: str, build: Build) -> None:
    lines = ["where = Abs (at)", f"y = {call}"]
    arrays = {
        "at": rows(range(2)),
        "back": ints(1, 0).reshape(2, 1),
        "flat": rows(range(2), range(6)).reshape(12, 2),
    }
    model = build(graph(*lines), **CONSTANTS, **arrays)
    result = SimplifyIndexing().rewrite(model, Context())
    assert (result.modified, result.declined) == (False, {"ScatterND -> y": reason})


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 18, 21])
@pytest.mark.parametrize("dtype", ["float", "double", "float16", "int64", "bool"])
def test_every_version_and_type(opset: int, dtype: str, build: Build, answers: Answers) -> None:
    native = {"float": "f4", "double": "f8", "float16": "f2", "int64": "i8", "bool": "?"}[dtype]
    cut = (
        "Slice <starts = [{0}], ends = [{1}], axes = [{2}]> ({3})"
        if opset < 10
        else "Slice ({3}, i{0}, i{1}, i{2})"
    )
    squeeze = "Squeeze <axes = [0]> (c)" if opset < 13 else "Squeeze (c, i0)"
    lines = [
        f"a = {cut.format(1, 5, 1, 'x')}",
        f"b = {cut.format(1, 3, 1, 'a')}",
        f"c = {cut.format(1, 2, 0, 'b')}",
        f"d = {squeeze}",
        "y = Identity (d)",
    ]
    model = build(graph(*lines, opset=opset, x=f"{dtype}[2,6,5]", y=f"{dtype} y"), **CONSTANTS)
    array = (X > 0) if dtype == "bool" else X.astype(native)
    before = answers(model, x=array)["y"]

    simplify(model)

    assert len(model.graph) <= 2
    np.testing.assert_array_equal(answers(model, x=array)["y"], before)


def test_outputs_and_other_readers(build: Build, answers: Answers) -> None:
    lines = [
        "a = Slice (x, i0, i3, i1)",
        "b = Slice (x, i3, i6, i1)",
        "y = Slice (a, i1, i2, i1)",
        "z = Concat <axis = 1> (a, b)",
    ]
    model = build(graph(*lines, y="float a, float y, float z"), **CONSTANTS)
    before = answers(model, x=X)

    simplify(model)

    after = answers(model, x=X)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_what_may_be_quantized_stays(build: Build) -> None:
    lines = [
        "d = DequantizeLinear (x, scale, zero)",
        "a = Slice (d, i0, i3, i1)",
        "b = Slice (d, i3, i6, i1)",
        "y = Sub (a, b)",
    ]
    model = build(
        graph(*lines, x="uint8[2,6,5]"), **CONSTANTS, scale=np.float32(0.1), zero=np.uint8(3)
    )
    assert not SimplifyIndexing().rewrite(model, Context()).modified


def test_inside_of_branches(build: Build, answers: Answers) -> None:
    text = graph(
        "total = ReduceSum <keepdims = 0> (x)",
        "truth = Greater (total, low)",
        "y = If (truth) <then_branch = then () => (float t) {"
        " a = Slice (x, i1, i6, i1) t = Slice (a, i2, i4, i1) },"
        " else_branch = other () => (float o) { o = Slice (x, i0, i2, i1) }>",
    )
    model = build(text, **CONSTANTS, low=np.float32(-1e9))
    before = answers(model, x=X)["y"]

    assert SimplifyIndexing().rewrite(model, Context()).modified

    np.testing.assert_array_equal(answers(model, x=X)["y"], before)
