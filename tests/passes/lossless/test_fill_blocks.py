"""Channels of zeros are appended where tensors would leave the blocked layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.layout import operators, optimized
from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.analysis.channels import Member
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.channel_padding import insertions
from onnxpress.passes.lossless.fill_blocks import FillBlocks
from onnxpress.passes.lossless.widen_convs import WidenConvs

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 32, 6, 5)).astype(np.float32)


def weight(*shape: int) -> Array:
    array: Array = (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return array


WEIGHTS = {
    "w": weight(24, 32, 1, 1), "b": weight(24), "d": weight(24, 1, 3, 3), "v": weight(32, 24, 1, 1),
    "q": weight(12, 24, 1, 1), "u": weight(24, 12, 1, 1), "s": weight(24, 1, 1),
    "g": weight(24, 7), "f": weight(720, 7), "r": np.array([0, -1]), "n": np.array([0, 24]),
    "p": np.abs(weight(24)), "t": weight(32, 48, 1, 1),
    "o": weight(30, 32, 1, 1), "k": weight(32, 30, 3, 3),
    "j": weight(20, 32, 1, 1), "i": weight(32, 20, 1, 1),
}  # fmt: skip
GATED = """
  a = Conv (x, w, b)  h = HardSwish (a)  e = Conv <group = 24, pads = [1, 1, 1, 1]> (h, d)
  l = Relu (e)  p0 = GlobalAveragePool (l)  p1 = Conv (p0, q)  p2 = Relu (p1)
  p3 = Conv (p2, u)  p4 = HardSigmoid (p3)  m = Mul (l, p4)  y = Conv (m, v)"""


def main(
    body: str, x: str = "float[N,32,H,W] x", y: str = "float[n,c,h,e0] y", opset: int = 17
) -> str:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return f"{head}\nmain ({x}) => ({y}) {{\n{body}\n}}"


def fill(model: ir.Model, *features: str, target: str = "cpu") -> Result:
    where = Target(target, frozenset(features))  # type: ignore[arg-type]
    return FillBlocks().rewrite(model, Context(target=where))


def made(build: Build, body: str, **more: Any) -> ir.Model:
    arrays = {name: array for name, array in WEIGHTS.items() if name in _words(body)}
    return build(main(body, **more), **arrays)


def _words(body: str) -> set[str]:
    return set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())


def sizes(model: ir.Model) -> dict[str, list[int]]:
    found = {}
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        assert value.shape == value.const_value.shape
        found[name] = list(value.const_value.shape.numpy())
    return found


def check(model: ir.Model, answers: Answers, x: Array = X) -> None:
    before = answers(model, x=x)
    assert fill(model, "avx2", "avx512f").modified
    after = answers(model, x=x)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-5)
    assert not fill(model, "avx2", "avx512f").modified


def test_a_gate_and_what_it_multiplies(build: Build, answers: Answers) -> None:
    model = made(build, GATED)
    check(model, answers)
    assert sizes(model) == {
        "w": [32, 32, 1, 1], "b": [32], "d": [32, 1, 3, 3], "v": [32, 32, 1, 1],
        "q": [16, 32, 1, 1], "u": [32, 16, 1, 1],
    }  # fmt: skip
    depthwise = [node.attributes.get_int("group", 1) for node in model.graph]
    assert max(depthwise) == 32
    last = model.graph.initializers["v"].const_value
    assert last is not None
    assert not last.numpy()[:, 24:].any()


def test_blocks_of_avx2(build: Build) -> None:
    assert not fill(made(build, GATED), "avx2").modified
    model = made(build, "a = Conv (x, j)  l = GlobalAveragePool (a)  y = Conv (l, i)")
    assert fill(model, "avx2").modified
    assert sizes(model) == {"j": [24, 32, 1, 1], "i": [32, 24, 1, 1]}


def test_fewer_reorders_are_left(build: Build) -> None:
    model = made(build, GATED)
    before = operators(optimized(ir.to_proto(model)))
    fill(model, "avx2", "avx512f")
    after = operators(optimized(ir.to_proto(model)))
    assert after["ReorderInput"] <= before["ReorderInput"]
    assert after["FusedConv"] == 0


@pytest.mark.parametrize(
    ("between", "filled"),
    [
        ("l = GlobalAveragePool (a)  y = Conv (l, v)", {"w": 32, "b": 32}),
        ("l = MaxPool <kernel_shape = [2, 2]> (a)  y = Conv (l, v)", {"w": 32}),
        ("l = AveragePool <kernel_shape = [2, 2]> (a)  y = Conv (l, v)", {"w": 32}),
        ("c = Clip (a)  l = GlobalMaxPool (c)  y = Conv (l, v)", {"w": 32}),
        ("c = Mul (a, s)  l = GlobalAveragePool (c)  y = Conv (l, v)", {"s": 32, "w": 32}),
        ("c = BatchNormalization (a, b, b, b, p)  l = GlobalAveragePool (c)  y = Conv (l, v)",
         {"b": 32, "p": 32}),
        ("c = Conv (x, w)  z = Add (c, a)  l = GlobalAveragePool (z)  y = Conv (l, v)", {"w": 32}),
    ],
)  # fmt: skip
def test_what_goes_along(
    between: str, filled: dict[str, int], build: Build, answers: Answers
) -> None:
    model = made(build, f"a = Conv (x, w, b)  {between}")
    check(model, answers)
    assert filled.items() <= {name: shape[0] for name, shape in sizes(model).items()}.items()


@pytest.mark.parametrize(
    ("positions", "channels", "places"),
    [
        ([0, 1, 2], [0, 1, 2], [3, 3]),
        ([4, 5, 6, 9, 10, 11], [0, 1, 2] * 2, [7, 7, 12, 12]),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2] * 2, [3, 3, 6, 6]),
        ([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [6] * 4),
        ([0, 2, 4], [0, 1, 2], None),
        ([0, 1, 2], [2, 1, 0], None),
        ([0, 1, 2, 3], [0, 1, 2, 0], None),
    ],
)
def test_where_channels_come_in(
    positions: list[int], channels: list[int], places: list[int] | None
) -> None:
    value = ir.Value(name="v")
    found = insertions(Member(value, 1, 20, np.array(positions), np.array(channels)), 3, 2)
    assert (None if found is None else found.tolist()) == places


def test_the_same_single_channel_twice() -> None:
    member = Member(ir.Value(name="v"), 1, 2, np.array([0, 1]), np.array([0, 0]))
    assert insertions(member, 1, 3) is None


def test_a_number_that_is_not_a_multiple_of_four(build: Build, answers: Answers) -> None:
    model = made(build, "a = Conv (x, o)  h = Relu (a)  y = Conv (h, k)")
    check(model, answers)
    assert sizes(model) == {"o": [32, 32, 1, 1], "k": [32, 32, 3, 3]}


POOLED = "a = Conv (x, w, b)  p0 = GlobalAveragePool (a)"


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize(
    "tail",
    ["l = Flatten (p0)", "l = Reshape (p0, r)", "l = Reshape (p0, n)"],
)
def test_a_classifier(tail: str, opset: int, build: Build, answers: Answers) -> None:
    body = f"{POOLED}  {tail}  y = Gemm (l, g)" if opset > 9 else f"{POOLED}  y = Conv (p0, v)"
    y = "float[n,c] y" if opset > 9 else "float[n,c,h,e0] y"
    model = made(build, body, y=y, opset=opset)
    check(model, answers)


@pytest.mark.parametrize(
    ("body", "because"),
    [
        (f"{POOLED}  y = Relu (p0)", "they reach the graph output 'y'"),
        (f"{POOLED}  l = Log (p0)  y = Conv (l, v)", "they reach Log, which may make something"),
        (f"{POOLED}  l = Resize (p0, , s4)  y = Conv (l, v)", "they reach Resize"),
        ("a = Conv (x, w)  m = MaxPool <kernel_shape = [1, 1]> (a)  l = Flatten (m)  "
         "z = Gemm (l, f)  y = Reshape (z, r4)", "a matrix that reads every position would grow"),
        ("a = Conv (x, q0)  y = Conv (a, k6)", "with so many more channels it would be no faster"),
        ("a = Conv (x, w)  e = Conv (x, w)  m = GlobalAveragePool (a)  n1 = Conv (m, v)  "
         "c = Concat <axis = 1> (a, e)  k1 = Conv (c, t)  y = Add (k1, n1)",
         "with so many more channels"),
    ],
)  # fmt: skip
def test_what_is_declined(body: str, because: str, build: Build) -> None:
    extra = {
        "s4": np.ones(4, np.float32), "r4": np.array([0, 7, 1, 1]),
        "q0": weight(6, 32, 1, 1), "k6": weight(32, 6, 3, 3),
    }  # fmt: skip
    words = _words(body)
    arrays = {name: array for name, array in {**WEIGHTS, **extra}.items() if name in words}
    x = "float[N,32,6,5] x" if "Flatten" in body else "float[N,32,H,W] x"
    model = build(main(body, x=x), **arrays)
    result = fill(model)
    assert any(because in reason for reason in result.declined.values()), result.declined


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv (x, w)  h = Relu (a)  y = Conv (h, v)",  # blocked as it is
        "y = Conv (x, w)",
        "p0 = GlobalAveragePool (x)  y = Relu (p0)",
    ],
)
def test_what_is_no_match(body: str, build: Build) -> None:
    result = fill(made(build, body))
    assert (result.modified, result.declined) == (False, {})


def test_half_precision_has_no_blocks(build: Build) -> None:
    text = main(POOLED + "  y = Conv (p0, v)", x="float16[N,32,H,W] x", y="float16[n,c,h,e0] y")
    arrays = {name: WEIGHTS[name].astype(np.float16) for name in ("w", "b", "v")}
    assert not fill(build(text, **arrays)).modified


@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_only_cpus_have_blocks(target: str, build: Build) -> None:
    assert not fill(made(build, GATED), target=target).modified


def test_a_weight_that_can_be_replaced_stays(build: Build) -> None:
    body = f"{POOLED}  y = Conv (p0, v)"
    model = build(
        main(body, x="float[N,32,H,W] x, float[32,24,1,1] v"),
        **{name: WEIGHTS[name] for name in ("w", "b", "v")},
    )
    assert not fill(model).modified


SPECTRUM = """
  a = Conv <kernel_shape = [4], strides = [2]> (x, s8)
  r, i = Split <axis = 1> (a, halves)
  rr = Pow (r, two)  ii = Pow (i, two)  p = Add (rr, ii)  m = Sqrt (p)
  y = Conv <kernel_shape = [3], pads = [1, 1]> (m, e)"""
BASIS = {
    "s8": weight(2 * 29, 1, 4), "e": weight(32, 29, 3), "halves": np.array([29, 29]),
    "two": np.float32(2), "one": np.float32(1), "bias": weight(2 * 29),
}  # fmt: skip


def spectrum(build: Build, body: str = SPECTRUM, opset: int = 17) -> ir.Model:
    arrays = {name: array for name, array in BASIS.items() if name in _words(body)}
    return build(main(body, x="float[N,1,L] x", y="float[n,c,t] y", opset=opset), **arrays)


SOUND = RNG.normal(size=(2, 1, 40)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_convolutions_of_one_axis_are_filled_for_widening(
    opset: int, build: Build, answers: Answers
) -> None:
    body = SPECTRUM
    if opset < 13:
        body = body.replace("<axis = 1> (a, halves)", "<axis = 1, split = [29, 29]> (a)")
    model = spectrum(build, body, opset)
    check(model, answers, SOUND)
    shapes = sizes(model)
    assert (shapes["s8"], shapes["e"]) == ([64, 1, 4], [32, 32, 3])
    assert WidenConvs().rewrite(model, Context()).rewritten == ["Conv -> y"]


def test_parts_that_are_not_named(build: Build, answers: Answers) -> None:
    check(spectrum(build, SPECTRUM.replace("(a, halves)", "(a)")), answers, SOUND)


def test_a_part_of_the_time(build: Build, answers: Answers) -> None:
    body = SPECTRUM.replace("m = Sqrt (p)", "q = Slice (p, one8, nine8, two8)  m = Sqrt (q)")
    arrays = BASIS | {
        "one8": np.array([1]), "nine8": np.array([9]), "two8": np.array([2]),
    }  # fmt: skip
    given = {name: array for name, array in arrays.items() if name in _words(body)}
    model = build(main(body, x="float[N,1,L] x", y="float[n,c,t] y"), **given)
    check(model, answers, SOUND)


@pytest.mark.parametrize(
    ("old", "new", "reached"),
    [
        ("Sqrt (p)", "Sqrt (q)  ", "Sqrt"),
        ("Pow (r, two)", "Pow (two, r)", "Pow"),
        ("Pow (r, two)", "Pow (r, r)", "Pow"),
        ("Pow (r, two)", "Div (one, r)", "Div"),
    ],
)
def test_what_may_be_no_number(old: str, new: str, reached: str, build: Build) -> None:
    body = SPECTRUM.replace(old, new).replace("m = Sqrt (q)", "q = Add (p, one)  m = Sqrt (q)")
    result = fill(spectrum(build, body))
    assert [f"they reach {reached}" in reason for reason in result.declined.values()] == [True]
    assert not result.modified


def test_inside_of_a_branch(build: Build, answers: Answers) -> None:
    inner = SPECTRUM.replace("y = ", "t = ").replace("x,", "z,")
    body = f"""
      z = Relu (x)
      y = If (b) <
        then_branch = then () => (float[n,c,l] t) {{ {inner} }},
        else_branch = else () => (float[n,c,l] u) {{ u = Neg (z) }}>"""
    arrays = {name: array for name, array in BASIS.items() if name in _words(body)}
    model = build(main(body, x="float[N,1,L] x, bool b", y="float[n,c,l] y"), **arrays)
    before = answers(model, x=SOUND, b=np.array(True))
    assert fill(model).modified
    after = answers(model, x=SOUND, b=np.array(True))
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-5, atol=1e-5)
