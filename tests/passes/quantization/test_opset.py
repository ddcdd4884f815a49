"""Raising the opset: the same answers, nothing lost, and a reason where it cannot be done."""

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.errors import PassError
from onnxpress.passes.quantization.opset import raise_opset

IMAGE = "(float[b,4,6,6] x) => (float[b,p,q,r] y)"


def build(body: str, opset: int, signature: str = IMAGE, *weights: ir.TensorProtocol) -> ir.Model:
    text = f'<ir_version: 7, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    return ir.from_onnx_text(text, initializers=weights)


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (9, "y = Softmax <axis = 2> (x)"),
        (12, "y = Softmax <axis = 1> (x)"),
        (11, "h = Unsqueeze <axes = [0]> (x)\n y = Squeeze <axes = [0]> (h)"),
        (11, "l, r = Split <axis = 1, split = [1,3]> (x)\n y = Concat <axis = 1> (r, l)"),
        (7, "h = Pad <pads = [0,0,1,1,0,0,1,1]> (x)\n y = Clip <min = 0.0, max = 1.0> (h)"),
        (9, "y = Slice <axes = [2], starts = [1], ends = [5]> (x)"),
        (12, "y = ReduceSum <axes = [2]> (x)"),
        (7, 'y = Upsample <mode = "nearest", scales = [1.0,1.0,2.0,2.0]> (x)'),
    ],
)
def test_the_answers_stay(opset: int, body: str, run: Any) -> None:
    model = build(body, opset)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)
    (before,) = run(model, {"x": x})

    assert raise_opset(model, 13) == opset

    assert model.opset_imports[""] == 13
    np.testing.assert_allclose(run(model, {"x": x})[0], before, rtol=1e-6)


def test_weights_names_and_metadata_stay() -> None:
    big = ir.tensor(np.ones((4, 600), np.float32), name="w")
    small = ir.tensor(np.ones(600, np.float32), name="b")
    model = build(
        "h = MatMul (x, w)\n y = Add (h, b)", 9, "(float[n,4] x) => (float[n,600] y)", big, small
    )
    model.graph.doc_string = "a graph"
    model.metadata_props["author"] = "somebody"

    raise_opset(model, 13)

    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert model.graph.initializers["w"].const_value is big
    assert set(model.graph.initializers) == {"w", "b"}
    assert model.graph.doc_string == "a graph"
    assert model.metadata_props == {"author": "somebody"}


def test_an_initializer_that_can_be_fed_stays_an_input() -> None:
    weight = ir.tensor(np.ones((4, 600), np.float32), name="w")
    signature = "(float[n,4] x, float[4,600] w) => (float[n,600] y)"
    model = build("y = MatMul (x, w)", 9, signature, weight)

    raise_opset(model, 13)

    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert "w" in model.graph.initializers


def test_a_new_model_is_left_alone() -> None:
    model = build("y = Relu (x)", 17)
    before = ir.to_onnx_text(model)

    assert raise_opset(model, 13) is None
    assert ir.to_onnx_text(model) == before


BRANCHES = """
  one = Constant <value = bool {1}> ()
  y = If (one) <then_branch = t () => (float[p,q,r,s] u) { u = Neg (x) },
                else_branch = o () => (float[p,q,r,s] l) { l = Exp (x) }>
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BRANCHES, "has opset 11 and needs 13; a model with functions or subgraphs"),
        ("y = Nothing (x)", "has opset 11 and needs 13; raising it failed: .*Nothing"),
    ],
)
def test_what_cannot_be_raised_is_an_error(body: str, message: str) -> None:
    model = build(body, 11)
    before = ir.to_onnx_text(model)

    with pytest.raises(PassError, match=message) as caught:
        raise_opset(model, 13)

    assert re.search("opset 13 or newer", caught.value.hint)
    assert ir.to_onnx_text(model) == before
