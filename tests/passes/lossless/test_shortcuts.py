"""Nodes that read past a Cast, an Expand or a Pad answer as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context
from onnxpress.passes.lossless.cleanup import Cleanup

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
IMAGE = "float[N,4,6,6]"
CONSTANTS = {
    "w": RNG.normal(size=(4, 4, 3, 3)).astype(np.float32),
    "around": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "few": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    "crops": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
    "one": np.float32(1),
    "least": np.float32(-np.inf),
    "wide": np.array([1, 4, 6, 6]),
    "ranks": np.array([1, 1, 4, 6, 6]),
    "row": RNG.normal(size=(6,)).astype(np.float32),
}
POOL = "kernel_shape = [3, 3], strides = [2, 2]"
CONV = "Conv <pads = [0, 1, 1, 0]>"


def tidy(model: ir.Model) -> list[str]:
    Cleanup().rewrite(model, Context())
    left = [node.op_type for node in model.graph]
    assert not Cleanup().rewrite(model, Context()).modified
    return left


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["p = Pad (x, around)", f"y = {CONV} (p, w)"], ["Conv"]),
        (["p = Pad (x, around)", 'y = Conv <auto_pad = "VALID"> (p, w)'], ["Conv"]),
        (["p = Pad (x, few)", "q = Pad (p, around)", "y = Conv (q, w)"], ["Conv"]),
        (["p = Pad (x, few, one)", "y = Pad (p, around, one)"], ["Pad"]),
        (["p = Pad (x, few)", f"y = AveragePool <{POOL}> (p)"], ["AveragePool"]),
        (["p = Pad (x, few, least)", f"y = MaxPool <{POOL}> (p)"], ["MaxPool"]),
        (["r = Relu (x)", "p = Pad (r, few)", f"y = MaxPool <{POOL}> (p)"], ["Relu", "MaxPool"]),
        (["e = Expand (row, wide)", "y = Add (e, x)"], ["Add"]),
        (["c = Cast <to = 11> (x)", "y = Cast <to = 10> (c)"], ["Cast"]),
        (["c = Cast <to = 11> (x)", "y = Cast <to = 1> (c)"], ["Cast"]),
        # Left as they are.
        (["p = Pad (x, around, one)", "y = Conv (p, w)"], ["Pad", "Conv"]),
        (["p = Pad (x, crops)", "y = Conv (p, w)"], ["Pad", "Conv"]),
        (['p = Pad <mode = "edge"> (x, few)', "y = Conv (p, w)"], ["Pad", "Conv"]),
        (["p = Pad (x, few)", 'y = Conv <auto_pad = "SAME_UPPER"> (p, w)'], ["Pad", "Conv"]),
        (["p = Pad (x, few, one)", "y = Pad (p, around)"], ["Pad", "Pad"]),
        (["p = Pad (x, few)", f"y = MaxPool <{POOL}> (p)"], ["Pad", "MaxPool"]),
        (["p = Pad (x, channels)", f"y = AveragePool <{POOL}> (p)"], ["Pad", "AveragePool"]),
        (["p = Pad (x, few)", f"y = AveragePool <{POOL}, ceil_mode = 1> (p)"],
         ["Pad", "AveragePool"]),
        (["p = Pad (x, few)", f"y = AveragePool <{POOL}, pads = [1, 0, 0, 0]> (p)"],
         ["Pad", "AveragePool"]),
        (["p = Pad (x, around)", "y = MaxPool <kernel_shape = [2, 2]> (p)"], ["Pad", "MaxPool"]),
        (["e = Expand (row, wide)", "y = Add (e, one)"], ["Expand", "Add"]),
        (["e = Expand (x, ranks)", "y = Add (e, row)"], ["Expand", "Add"]),
        (["c = Cast <to = 6> (x)", "y = Cast <to = 1> (c)"], ["Cast", "Cast"]),
        (["c = Cast <to = 10> (x)", "y = Cast <to = 1> (c)"], ["Cast", "Cast"]),
    ],
)  # fmt: skip
def test_what_is_left(lines: list[str], left: list[str], build: Build, answers: Answers) -> None:
    kind = "float16" if "to = 10> (c)" in lines[-1] else "float"
    body = "\n".join(lines)
    head = '<ir_version: 9, opset_import: ["" : 17]>'
    model = build(f"{head}\nmain ({IMAGE} x) => ({kind} y) {{\n{body}\n}}", **CONSTANTS)
    x = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert tidy(model) == left

    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("types", "casts"),
    [
        ("uint8 int16 float", 1),
        ("uint8 int16 int8", 1),
        ("bool float int64", 1),
        ("int16 int32 bool", 1),
        ("int8 uint16 int32", 2),
        ("int32 float int8", 2),
        ("int32 int16 int64", 2),
    ],
)
def test_integers(types: str, casts: int, build: Build, answers: Answers) -> None:
    first, second, third = types.split()
    to = [ir.DataType[name.upper()].value for name in (second, third)]
    body = f"a = Cast <to = {to[0]}> (x)\ny = Cast <to = {to[1]}> (a)"
    head = '<ir_version: 9, opset_import: ["" : 13]>'
    model = build(f"{head}\nmain ({first}[4] x) => ({third}[4] y) {{\n{body}\n}}")
    x = np.array([0, 1, 100, 5]).astype(first)
    before = answers(model, x=x)["y"]

    assert tidy(model) == ["Cast"] * casts

    np.testing.assert_array_equal(answers(model, x=x)["y"], before)


def test_attributes_of_old_versions(build: Build, answers: Answers) -> None:
    text = f"""
    <ir_version: 7, opset_import: ["" : 9]>
    main ({IMAGE} x) => (float y) {{
      p = Pad <pads = [0, 0, 1, 0, 0, 0, 1, 0]> (x)
      q = Pad <pads = [0, 0, 0, 1, 0, 0, 0, 1]> (p)
      y = Neg (q)
    }}
    """
    model = build(text)
    x = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert tidy(model) == ["Pad", "Neg"]

    np.testing.assert_array_equal(answers(model, x=x)["y"], before)
