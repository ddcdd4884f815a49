"""Nodes that are held are left alone by any pass, and are themselves again afterwards."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxpress.passes.analysis.values import Facts
from onnxpress.passes.base import Context
from onnxpress.passes.held import HELD, held
from onnxpress.passes.lossless.cleanup import Cleanup

MODEL = """
<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
main (float[n,3] x, bool c) => (float[n,3] y, float[n,3] z) {
  [one] a = Identity (x)
  [two] b = Identity (a)
  y = com.microsoft.Gelu (b)
  z = If (c) <
    then_branch = t () => (float[n,3] p) { [three] k = Identity (x) [deep] p = Relu (k) },
    else_branch = e () => (float[n,3] q) { q = Relu (x) }
  >
}
"""


def operators(model: ir.Model) -> list[str]:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in nodes]


def test_a_pass_does_not_touch_what_is_held() -> None:
    model = ir.from_onnx_text(MODEL)
    with held(model, {"two", "three"}):
        Cleanup().rewrite(model, Context())
    assert operators(model).count("Identity") == 2
    assert not any(HELD in name for name in operators(model))
    Cleanup().rewrite(model, Context())
    assert "Identity" not in operators(model)


def test_a_label_of_a_node_without_a_name_holds_it() -> None:
    model = ir.from_onnx_text(MODEL)
    with held(model, {"Gelu -> y"}):
        assert f"{HELD}com.microsoft.Gelu" in operators(model)
    assert "com.microsoft.Gelu" in operators(model)


def test_sizes_are_followed_through_what_is_held() -> None:
    model = ir.from_onnx_text(MODEL)
    with held(model, {"one", "two"}):
        facts = Facts(model)
        facts.follow_all()
        value = model.graph.node("two").outputs[0]
        assert facts.dims(value) == ("n", 3)
        assert facts.dtype(value) == ir.DataType.FLOAT


def test_all_is_as_before_when_the_pass_fails() -> None:
    model = ir.from_onnx_text(MODEL)
    before = operators(model)
    with pytest.raises(ZeroDivisionError), held(model, {"one", "deep"}):
        raise ZeroDivisionError
    assert operators(model) == before


def test_copies_of_what_is_held_are_themselves_again() -> None:
    model = ir.from_onnx_text(MODEL)
    with held(model, {"one"}):
        node = model.graph.node("one")
        copy = ir.Node(node.domain, node.op_type, node.inputs, num_outputs=1)
        model.graph.append(copy)
    assert copy.domain == ""
