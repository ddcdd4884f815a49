"""Calls of functions make way for what the functions compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.graph import graphs_of, values_in
from onnxpress.passes.lossless.inline_functions import InlineFunctions

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

X = np.array([[1, -2], [3, 4]], np.float32)


def text(body: str, *functions: str, outputs: str = "float[N,2] y") -> str:
    head = '<ir_version: 10, opset_import: ["" : 17, "local" : 1]>\n'
    made = "".join(f'<domain: "local", opset_import: ["" : 17]> {one}\n' for one in functions)
    return f"{head}main (float[N,2] x) => ({outputs}) {{ {body} }}\n{made}"


def inline(model: ir.Model) -> Result:
    return InlineFunctions().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


TWICE = "f <alpha>(a) => (b) { c = LeakyRelu <alpha: float = @alpha> (a) b = Add (c, a) }"


def test_each_call_has_its_attributes(build: Build, answers: Answers) -> None:
    calls = "u = local.f <alpha = 0.5> (x) y = local.f <alpha = 0.25> (u)"
    model = build(text(calls, TWICE))
    before = answers(model, x=X)["y"]

    result = inline(model)

    assert kinds(model) == ["LeakyRelu", "Add", "LeakyRelu", "Add"]
    assert (len(result.rewritten), result.details) == (2, {"functions": 1})
    assert not model.functions
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)
    assert not inline(model).modified


@pytest.mark.parametrize("body", ["y, z = local.f (x)", "z, u = local.f (x) y = Neg (u)"])
def test_outputs_keep_their_names(body: str, build: Build, answers: Answers) -> None:
    function = "f (a) => (b, c) { b = Neg (a) c = Abs (b) }"
    model = build(text(body, function, outputs="float[N,2] y, float[N,2] z"))
    before = answers(model, x=X)

    inline(model)

    after = answers(model, x=X)
    assert list(after) == list(before) == ["y", "z"]
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_inside_branches_and_other_functions(build: Build, answers: Answers) -> None:
    body = """zero = Constant <value = float {0.0}> ()
      m = ReduceMax <keepdims = 0> (x)
      go = Greater (m, zero)
      y = If (go) <
        then_branch = t () => (float[N,2] p) { p = local.g (x) },
        else_branch = e () => (float[N,2] p) { p = Neg (x) }
      >"""
    model = build(text(body, "g (a) => (b) { b = local.h (a) }", "h (a) => (b) { b = Exp (a) }"))
    for function in model.functions.values():
        function.opset_imports["local"] = 1
    before = answers(model, x=X)["y"]
    inline(model)
    assert kinds(model).count("Exp") == 1
    assert not model.functions
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)


def test_values_inside_branches_keep_names_of_their_own(build: Build, answers: Answers) -> None:
    """The names inside a body are free in the main graph, until they come there by inlining."""
    body = """zero = Constant <value = float {0.0}> ()
      z = local.g (x)
      m = ReduceMax <keepdims = 0> (z)
      go = Greater (m, zero)
      y = If (go) <
        then_branch = t () => (float[N,2] p) <float h = {2.0}> { p = Mul (z, h) },
        else_branch = e () => (float[N,2] q) { h_1 = Exp (z) h = Neg (h_1) q = Abs (h) }
      >"""
    model = build(text(body, "g (a) => (b) { h = Exp (a) b = Neg (h) }"))
    before = answers(model, x=X)["y"]

    assert inline(model).modified

    names = [value.name for graph in graphs_of(model) for value in values_in(graph)]
    assert len(set(names)) == len(names)
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)


def test_what_is_declined(build: Build) -> None:
    model = build(text("y = local.f <alpha = 0.5> (x)", TWICE))
    next(iter(model.functions.values())).opset_imports[""] = 16
    result = inline(model)
    assert not result.modified
    assert result.declined == {"local::f": "its operators are of version 16 of ai.onnx"}

    model = build(text("y = local.f (x)", "f (a) => (b) { b = local.f (a) }"))
    result = inline(model)
    assert (result.modified, len(result.declined)) == (False, 1)

    for function in ("f (a) => (a) { b = Neg (a) }", "f (a) => (b, b) { b = Neg (a) }"):
        [reason] = inline(build(text("y = local.f (x)", function))).declined.values()
        assert reason == "its outputs are not each computed by a node"


def test_models_without_functions_stay(build: Build) -> None:
    assert not inline(build(text("y = Neg (x)"))).modified
