"""What an output is computed from: randomness, saturation, shapes that depend on values."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxpress.compiler.verify.ancestry import (
    before_saturation,
    counts_data,
    randomness,
    upstream,
)


def model(body: str, functions: str = "", opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : {opset}, "local" : 1]> '
        f"main (float[2,3] x, bool c, float[2,3] v) => (y) <bool yes = {{1}}, bool no = {{0}}, "
        f"float half = {{0.5}}> {{ {body} }} {functions}"
    )


FUNCTION = '<domain: "local", opset_import: ["" : 17]> noisy (a) => (b) { b = Bernoulli (a) }'
OUTER = (
    '<domain: "local", opset_import: ["" : 17, "local" : 1]> outer (a) => (b) '
    "{ b = local.noisy (a) }"
)


@pytest.mark.parametrize(
    ("body", "functions", "reason"),
    [
        ("r = RandomNormal <shape=[2,3]> ()\ny = Add(x, r)", "", "RandomNormal (r)"),
        ("y = local.noisy (x)", FUNCTION, "Bernoulli"),
        ("y = local.outer (x)", f"{FUNCTION} {OUTER}", "Bernoulli"),
        ("y = If (c) <then_branch = a () => (p) { p = RandomNormalLike (x) }, "
         "else_branch = b () => (q) { q = Neg (x) }>", "", "RandomNormalLike"),
        ("y = If (c) <then_branch = a () => (p) { p = Neg (n) }, "
         "else_branch = b () => (q) { q = Neg (x) }>\n", "", ""),
        ("y = Dropout(x, half, yes)", "", "in training"),
        ("y = Dropout(x, half, c)", "", "in training"),
        ("y = Dropout(x, half, no)", "", ""),
        ("maybe = Identity(no)\ny = Dropout(x, half, maybe)", "", ""),
        ("y = Dropout(x)", "", ""),
        ("r = RandomNormalLike(x)\ny = Neg(x)", "", ""),
    ],
)  # fmt: skip
def test_what_is_drawn_anew_is_named(body: str, functions: str, reason: str) -> None:
    if "(n)" in body:
        body = f"n = Relu(x)\n{body}"
    built = model(body, functions)
    found = randomness(built, built.graph.outputs[0])
    assert reason in found
    assert bool(found) is bool(reason)


def test_a_branch_that_reads_something_random_from_outside_is_random() -> None:
    built = model(
        "n = RandomNormalLike(x)\n"
        "y = If (c) <then_branch = a () => (p) { p = Neg (n) }, "
        "else_branch = b () => (q) { q = Neg (x) }>"
    )
    assert "RandomNormalLike" in randomness(built, built.graph.outputs[0])


def test_upstream_leaves_out_what_an_output_does_not_need() -> None:
    built = model("a = Relu(x)\nb = Neg(a)\nz = Exp(a)\ny = Abs(b)")
    found = [node.op_type for node in upstream(built, built.graph.outputs[0])]
    assert found == ["Abs", "Neg", "Relu"]


def test_shapes_that_depend_on_values() -> None:
    one = model("y = NonZero(x)")
    other = model("y = Relu(x)")
    assert counts_data(one, one.graph.outputs[0])
    assert not counts_data(other, other.graph.outputs[0])


@pytest.mark.parametrize(
    ("body", "ways"),
    [
        ("a = Neg(x)\ny = Sigmoid(a)", {"before Sigmoid": "a"}),
        ("a = Neg(x)\ns = Tanh(a)\ny = Identity(s)", {"before Tanh": "a"}),
        ("a = Neg(x)\nb = Exp(x)\ns = Sigmoid(a)\nt = Softmax(b)\ny = Concat <axis=0> (b, s, t)",
         {"before Sigmoid in part 2 of 3": "a", "before Softmax in part 3 of 3": "b"}),
        ("y = Sigmoid(x)", {}),
        ("a = Sigmoid(x)\ny = Neg(a)", {}),
        ("a = Neg(x)\nb = Sigmoid(a)\ny = Transpose(b)", {}),
    ],
)  # fmt: skip
def test_what_an_activation_squashes_is_found(body: str, ways: dict[str, str]) -> None:
    found = before_saturation(model(body))
    assert {way: value.name for (_, way), (_, value) in found.items()} == ways
