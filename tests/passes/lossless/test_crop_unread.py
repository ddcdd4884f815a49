"""CropUnread: nothing computed that nothing reads, the same answers, or a stated reason."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.compiler.structure import check_structure
from onnxpress.passes.base import Result
from onnxpress.passes.lossless.crop_unread import CropUnread

RNG = np.random.default_rng(0)
SHAPES: dict[str, tuple[int, ...]] = {
    "w": (32, 1, 3, 3),
    "v": (16, 32, 3, 3),
    "c": (16, 1, 1),
    "rows": (13, 1),
    "deep": (16, 1, 3, 3, 3),
    "long": (16, 1, 3),
}
POOL = "<kernel_shape: ints = [2, 2], strides: ints = [2, 2]>"


def model(body: str, source: str = "n,1,28,28", opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}]> m (float[{source}] x) => (float y) '
        f"{{ {body} }}",
        initializers=[
            ir.tensor(RNG.standard_normal(shape).astype(np.float32), name=name)
            for name, shape in SHAPES.items()
            if re.search(rf"\b{name}\b", body)
        ],
    )


def answer(one: ir.Model, x: Array) -> Array:
    (found,) = session_of(one, SessionConfig(level="disabled", threads=1)).run({"x": x}).values()
    return found


def cropped(one: ir.Model, source: str = "n,1,28,28") -> Result:
    x = RNG.standard_normal([int(size) for size in source.replace("n", "2").split(",")])
    before = answer(one, x.astype(np.float32))

    result = CropUnread()(one)

    assert isinstance(result, Result)
    check_structure(one, ["x"], ["y"])
    np.testing.assert_allclose(answer(one, x.astype(np.float32)), before, rtol=1e-5, atol=1e-4)
    assert not CropUnread()(one).modified
    return result


def operators(one: ir.Model) -> list[str]:
    return [node.op_type for node in one.graph]


VALID = f"a = Conv (x, w) r = Relu (a) p = MaxPool {POOL} (r) d = Conv (p, v)"


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_what_two_poolings_leave_out_is_not_computed(opset: int) -> None:
    one = model(f"{VALID} s = Mul (d, c) y = AveragePool {POOL} (s)", opset=opset)

    assert cropped(one).modified

    assert operators(one) == ["Slice", "Conv", "Relu", "MaxPool", "Conv", "Mul", "AveragePool"]
    ends = one.graph[0].inputs[2]
    assert ends is not None
    assert ends.const_value is not None
    assert ends.const_value.numpy().tolist() == [26, 26]


def test_padding_at_the_end_goes_first() -> None:
    body = f'a = Conv <auto_pad: string = "SAME_UPPER"> (x, w) y = MaxPool {POOL} (a)'
    one = model(body, "n,1,13,13")

    assert cropped(one, "n,1,13,13").modified

    assert operators(one) == ["Conv", "MaxPool"]
    assert list(one.graph[0].attributes.get_ints("pads", ())) == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("body", "source"),
    [
        ("a = Conv (x, deep) y = MaxPool <kernel_shape: ints = [2, 2, 2], strides: ints = "
         "[2, 2, 2]> (a)", "n,1,9,9,9"),
        ("a = Conv (x, long) y = MaxPool <kernel_shape: ints = [2], strides: ints = [2]> (a)",
         "n,1,13"),
        (f"a = Conv <strides: ints = [2, 2]> (x, w) y = MaxPool {POOL} (a)", "n,1,28,28"),
        (f"a = Conv (x, w) y = MaxPool {POOL[:-1]}, pads: ints = [1, 1, 0, 0]> (a)", "n,1,14,14"),
    ],
)  # fmt: skip
def test_answers_stay(body: str, source: str) -> None:
    cropped(model(body, source), source)


@pytest.mark.parametrize(
    ("body", "source"),
    [
        (f"a = Conv (x, w) p = MaxPool {POOL} (a) s = ReduceSum (a) y = Add (p, s)", "n,1,13,13"),
        (f"a = Conv (x, w) y = MaxPool {POOL[:-1]}, ceil_mode: int = 1> (a)", "n,1,13,13"),
        (f"a = Conv (x, w) b = Mul (a, rows) y = MaxPool {POOL} (b)", "n,1,15,15"),
        (f"a = Conv (x, w) y = MaxPool {POOL} (a)", "n,1,h,w"),
        (f"a = Conv (x, w) y = MaxPool {POOL} (a)", "n,1,12,12"),
    ],
)
def test_what_is_read_stays(body: str, source: str) -> None:
    known = re.sub(r"[hw]", "13", source)
    one = model(body, source)

    assert not cropped(one, known).modified


def test_little_is_not_worth_a_slice() -> None:
    one = model(f"y = MaxPool {POOL} (x)", "n,1,13,13")

    result = cropped(one, "n,1,13,13")

    assert not result.modified
    assert list(result.declined.values()) == ["cropping what it reads saves too little"]
