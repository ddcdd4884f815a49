"""The classifier behind a global pool becomes a convolution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.layout import operators, optimized
from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.conv_heads import ConvHeads

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
CHANNELS, CLASSES = 128, 520
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)


def normal(*shape: int) -> Array:
    array: Array = (RNG.normal(size=shape) / 8).astype(np.float32)
    return array


ARRAYS: dict[str, Array] = {
    "w": normal(CHANNELS, 3, 1, 1), "m": normal(CLASSES, CHANNELS), "t": normal(CHANNELS, CLASSES),
    "b": normal(CLASSES), "row": normal(1, CLASSES), "one": normal(1), "few": normal(9, CHANNELS),
    "r": np.array([0, -1]), "n": np.array([-1, CHANNELS]), "axes": np.array([2, 3]),
    "odd": normal(132, 3, 1, 1), "om": normal(CLASSES, 132),
}  # fmt: skip
HEAD = """
  a = Conv (x, w)  h = Relu (a)  p = GlobalAveragePool (h)  f = Flatten (p)
  y = Gemm <transB = 1> (f, m, b)"""


def main(body: str, x: str = "float[N,3,H,W] x", y: str = "float[n,k] y", opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]>\nmain ({x}) => ({y}) {{\n{body}\n}}'


def made(build: Build, body: str, x: str = "float[N,3,H,W] x", opset: int = 17) -> ir.Model:
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    arrays = {name: array for name, array in ARRAYS.items() if name in words - set(x.split())}
    return build(main(body, x, opset=opset), **arrays)


def run(model: ir.Model, target: str = "cpu", **dims: int) -> Result:
    context = Context(target=Target(target), dims=dims)  # type: ignore[arg-type]
    return ConvHeads().rewrite(model, context)


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("transB = 1> (f, m, b)", "alpha = 1.0> (f, t, b)"),
        ("m, b)", "m, row)"),
        ("Flatten (p)", "Reshape (p, r)"),
        ("Flatten (p)", "Reshape (p, n)"),
        ("GlobalAveragePool (h)", "GlobalMaxPool (h)"),
    ],
)
def test_forms(old: str, new: str, opset: int, build: Build, answers: Answers) -> None:
    model = made(build, HEAD.replace(old, new), opset=opset)
    before = answers(model, x=X)
    assert run(model).modified
    after = answers(model, x=X)
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in model.graph][-2:] == ["Conv", "Flatten"]
    assert not run(model).modified


def test_without_a_summand_and_squeezed(build: Build, answers: Answers) -> None:
    body = HEAD.replace("Flatten (p)", "Squeeze (p, axes)").replace("m, b)", "m)")
    model = made(build, body)
    before = answers(model, x=X)
    assert run(model).modified
    np.testing.assert_allclose(answers(model, x=X)["y"], before["y"], rtol=1e-5, atol=1e-5)


def test_it_stays_in_the_blocked_layout(build: Build) -> None:
    model = made(build, HEAD)
    run(model)
    found = operators(optimized(ir.to_proto(model)))
    assert (found["Conv"], found["ReorderOutput"], found["ReorderInput"]) == (2, 1, 0)
    assert set(model.graph.initializers) == {"w", "y.weight", "y.bias"}


@pytest.mark.parametrize(
    ("old", "new", "because"),
    [
        ("transB = 1", "transB = 1, alpha = 0.5", "it scales or transposes"),
        ("y = Gemm", "z = Neg (f)  y = Gemm", "read elsewhere as well"),
        ("y = Gemm", "z = Neg (p)  y = Gemm", "read elsewhere as well"),
        ("m, b)", "m, one)", "what it adds is not one constant for each class"),
        ("(x, w)", "(x, odd)", "its channels do not fill blocks"),
    ],
)
def test_what_is_declined(old: str, new: str, because: str, build: Build) -> None:
    body = HEAD.replace(old, new)
    result = run(made(build, body.replace("f, m", "f, om") if "odd" in new else body))
    assert [because in reason for reason in result.declined.values()] == [True], result.declined


def test_batches(build: Build) -> None:
    assert run(made(build, HEAD, "float[2,3,H,W] x")).modified
    assert run(made(build, HEAD), N=2).modified
    for result in (run(made(build, HEAD), N=4), run(made(build, HEAD, "float[8,3,H,W] x"))):
        assert list(result.declined.values()) == ["for so many images a matrix product is faster"]


@pytest.mark.parametrize(
    "body",
    [
        HEAD.replace("(f, m, b)", "(f, few)"),
        HEAD.replace("p = GlobalAveragePool (h)", "p = Identity (h)"),
        "p = GlobalAveragePool (x)  f = Flatten (p)  y = Relu (f)",
    ],
)
def test_what_is_no_match(body: str, build: Build) -> None:
    result = run(made(build, body))
    assert (result.modified, result.declined) == (False, {})


def test_a_weight_that_can_be_replaced_stays(build: Build) -> None:
    model = made(build, HEAD, f"float[N,3,H,W] x, float[{CLASSES},{CHANNELS}] m")
    assert not run(model).modified


@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_only_cpus_have_blocks(target: str, build: Build) -> None:
    assert not run(made(build, HEAD), target).modified
