"""Sizes are read where they are needed, and not where they need not be known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.simplify_shapes import SimplifyShapes

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HELD = "<int64 i = {1}, int64 back = {-2}, int64[1] zero = {0}, int64[1] one = {1}, "
HELD += "int64[1] four = {4}, int64[1] most = {9223372036854775807}, int64[1] end = {-1}, "
HELD += "int64[2] two = {1, 2}, int64[2] jump = {0, 2}, int64[2] across = {-1, 0}>"


def main(body: str, y: str = "int64[] y", opset: int = 17) -> str:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    return f"{head}main (float[N,4,M] x, float[N,M] z) => ({y}) {HELD} {{ s = Shape (x) {body} }}"


def simplify(model: ir.Model) -> Result:
    return SimplifyShapes().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def check(model: ir.Model, answers: Answers) -> None:
    cases = [
        {
            "x": np.arange(n * 4 * m, dtype=np.float32).reshape(n, 4, m),
            "z": np.ones((n, m), np.float32),
        }
        for n, m in ((2, 3), (1, 5), (0, 3))
    ]
    before = [answers(model, **one) for one in cases]
    assert simplify(model).modified
    for one, old in zip(cases, before, strict=True):
        for name, array in answers(model, **one).items():
            np.testing.assert_array_equal(array, old[name])
    assert not simplify(model).modified


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather (s, two)",
        "y = Gather (s, end)",
        "y = Slice (s, one, most)",
        "y = Slice (s, one, end, zero)",
        "y = Slice (s, end, most, zero, one)",
        "g = Gather (s, i) y = Unsqueeze (g, zero)",
        "g = Gather (s, back) y = Unsqueeze (g, zero)",
    ],
)
def test_sizes_that_are_read_directly(body: str, build: Build, answers: Answers) -> None:
    model = build(main(body))
    check(model, answers)
    assert kinds(model) == ["Shape"]
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("y = Gather (s, two)", 14),
        ("y = Gather (s, i)", 17),
        ("y = Gather (s, jump)", 17),
        ("y = Gather (s, across)", 17),
        ("y = Slice (s, zero, most, zero, four)", 17),
        ("g = Gather (s, i) y = Unsqueeze (g, zero) u = Neg (g)", 17),
        ("t = Shape <start = 1> (x) y = Gather (t, one)", 17),
        ("y = Gather (two, one)", 17),
    ],
)
def test_sizes_that_are_not(body: str, opset: int, build: Build) -> None:
    outputs = "int64[] y" + (", int64[] u" if "u =" in body else "")
    assert not simplify(build(main(body, outputs, opset))).modified


def test_sizes_that_expand_already_has(build: Build, answers: Answers) -> None:
    body = """g = Shape <end = 1> (x) k = Shape <start = 2> (x)
      t = Concat <axis = 0> (four, g, k) y = Expand (z, t)"""
    model = build(main(body, "float[] y").replace("s = Shape (x)", ""))
    check(model, answers)
    assert "Concat" in kinds(model)
    [join] = [node for node in model.graph if node.op_type == "Concat"]
    assert len(join.inputs) == 1


def test_a_batch_without_samples_keeps_its_shape(build: Build, answers: Answers) -> None:
    body = """g = Gather (s, zero) k = Shape <start = 2> (x)
      t = Concat <axis = 0> (g, one, one, four, k) y = Reshape (x, t)"""
    model = build(main(body, "float[] y"))
    check(model, answers)
    assert kinds(model) == ["Shape", "Concat", "Reshape"]
    join = model.graph[1]
    assert join.inputs[0] is not None
    assert join.inputs[0].const_value is not None
    assert join.inputs[0].const_value.numpy().tolist() == [0, 1, 1, 4]


@pytest.mark.parametrize(
    "body",
    [
        "t = Concat <axis = 0> (k, four, g) y = Reshape (x, t)",
        "t = Concat <axis = 0> (g, four, k) y = Reshape (x, t) u = Neg (t)",
        "t = Concat <axis = 0> (g, four, k) y = Reshape <allowzero = 1> (x, t)",
    ],
)
def test_targets_that_stay(body: str, build: Build) -> None:
    outputs = "float[] y" + (", int64[] u" if "u =" in body else "")
    text = main(f"g = Shape <end = 1> (x) k = Shape <start = 2> (x) {body}", outputs)
    assert not simplify(build(text)).modified
