"""Branches whose condition is known: their contents stay, the If goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.branches import take_known_branches
from onnxpress.passes.lossless.fold_constants import FoldConstants

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 10, opset_import: ["" : 17]>\n'
TEXT = (
    HEAD
    + """main (float[N,2] x) => (float[N,2] y) <bool yes = {1}> {
  a = Neg (x)
  b = If (yes) <
    then_branch = t () => (float[N,2] p) <float[2] w = {1, 2}> { u = Add (a, w)  p = Exp (u) },
    else_branch = e () => (float[N,2] p) <float[2] w = {3, 4}> { p = Mul (a, w) }
  >
  y = Abs (b)
}"""
)
X = np.array([[1, 2], [3, 4]], np.float32)


def take(model: ir.Model) -> list[str]:
    result = Result(model)
    assert take_known_branches(model, result) == result.modified
    return result.rewritten


def lines(model: ir.Model) -> list[str]:
    """The body of the main graph, with its initializers."""
    return [line.strip() for line in ir.to_onnx_text(model).splitlines()[4:]]


def test_the_graph_that_is_left(build: Build) -> None:
    model = build(TEXT)

    assert take(model) == ["If -> b"]
    assert lines(model) == [
        "main (float[N,2] x) => (float[N,2] y)",
        "<float[2] w =  {1,2}, float[2] w, float[N,2] p>",
        "{",
        "a = Neg (x)",
        "u = Add (a, w)",
        "p = Exp (u)",
        "y = Abs (p)",
        "}",
    ]
    assert not take(model)


@pytest.mark.parametrize("condition", ["yes = {1}", "yes = {0}"])
@pytest.mark.parametrize("output", ["b", "y"])
def test_the_answers_stay(condition: str, output: str, build: Build, answers: Answers) -> None:
    text = TEXT.replace("yes = {1}", condition)
    if output == "b":
        text = text.replace("float[N,2] y)", "float[N,2] b)").replace("y = Abs (b)", "")
    model = build(text)
    before = answers(model, x=X)

    take(model)

    assert list(before) == list(answers(model, x=X)) == [output]
    np.testing.assert_array_equal(answers(model, x=X)[output], before[output])


def test_a_condition_that_may_be_fed_is_not_known(build: Build) -> None:
    model = build(TEXT.replace("float[N,2] x)", "float[N,2] x, bool yes)"))
    before = ir.to_onnx_text(model)
    assert take(model) == []
    assert ir.to_onnx_text(model) == before


def test_branches_in_branches(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[N,2] x, bool c) => (float[N,2] y) <bool yes = {1}> {
      y = If (c) <
        then_branch = t () => (float[N,2] p) {
          p = If (yes) <
            then_branch = tt () => (float[N,2] q) { r = Neg (x)  q = Exp (r) },
            else_branch = te () => (float[N,2] q) { q = Abs (x) }
          >
        },
        else_branch = e () => (float[N,2] p) <bool no = {0}> {
          s = If (yes) <
            then_branch = et () => (float[N,2] q) {
              q = If (no) <
                then_branch = ett () => (float[N,2] r) { r = Sin (x) },
                else_branch = ete () => (float[N,2] r) { r = Cos (x) }
              >
            },
            else_branch = ee () => (float[N,2] q) { q = Tan (x) }
          >
          p = Neg (s)
        }
      >
    }"""
    )
    model = build(text)
    before = [answers(model, x=X, c=np.array(flag))["y"] for flag in (True, False)]

    assert len(take(model)) == 3

    kinds = [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]
    assert kinds == ["If", "Neg", "Exp", "Cos", "Neg"]
    for flag, old in zip((True, False), before, strict=True):
        np.testing.assert_array_equal(answers(model, x=X, c=np.array(flag))["y"], old)


@pytest.mark.parametrize(
    "taken",
    [
        "t () => (float[2] p, float[2] q) <float[2] p = {1, 2}> { q = Identity (p) }",
        "t () => (float[2] p, float[2] q) { p = Identity (x)  q = Neg (x) }",
    ],
)
def test_every_output_keeps_its_name(taken: str, build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + f"""main (float[2] x) => (float[2] y, float[2] z) <bool yes = {{1}}> {{
      y, z = If (yes) <
        then_branch = {taken},
        else_branch = e () => (float[2] r, float[2] s) {{ r = Abs (x)  s = Exp (x) }}
      >
    }}"""
    )
    model = build(text)
    before = answers(model, x=X[0])

    take(model)

    after = answers(model, x=X[0])
    assert list(after) == ["y", "z"]
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_names_that_are_taken_are_numbered(build: Build, answers: Answers) -> None:
    model = build(
        TEXT.replace("y = Abs (b)", "w = Abs (b)  u = Abs (w)  p = Sin (u)  y = Add (p, b)")
    )
    before = answers(model, x=X)["y"]

    take(model)

    assert [value.name for node in model.graph for value in node.outputs] == [
        "a", "u.1", "p.1", "w", "u", "p", "y",
    ]  # fmt: skip
    assert list(model.graph.initializers) == ["w.1"]
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)


def test_nodes_keep_names_of_their_own(build: Build, answers: Answers) -> None:
    model = build(TEXT)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.name = node.op_type if node.op_type != "Exp" else "Neg"

    take(model)

    names = [node.name for node in model.graph]
    assert (names[:2], names[3]) == (["Neg", "Add"], "Abs")
    assert names[2] not in {"Neg", "Add", "Abs"}
    assert answers(model, x=X)["y"].shape == (2, 2)


def test_in_functions_constants_become_nodes(build: Build, answers: Answers) -> None:
    text = (
        HEAD.replace("17]", '17, "local" : 1]')
        + """main (float[N,2] x) => (float[N,2] y) { y = local.f (x) }
    <domain: "local", opset_import: ["" : 17]>
    f (a) => (b) {
      yes = Constant <value = bool {1}> ()
      b = If (yes) <
        then_branch = t () => (float[N,2] p) <float[2] w = {1, 2}> { p = Mul (a, w) },
        else_branch = e () => (float[N,2] q) { q = Neg (a) }
      >
    }"""
    )
    model = build(text)

    take(model)

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Mul"]
    assert [value.name for value in function.outputs] == ["b"]
    np.testing.assert_array_equal(answers(model, x=X)["y"], X * [1, 2])


def test_what_the_other_branch_would_do_need_not_be_valid(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[N,3] x) => (float[N,3] y) <int64[1] one = {1}> {
      s = Shape <start = 1> (x)
      z = Constant <value_int = 0> ()
      size = Gather (s, z)
      k = Constant <value_int = 1> ()
      c = Equal (size, k)
      y = If (c) <
        then_branch = t () => (float[N] p) { p = Squeeze (x, one) },
        else_branch = e () => (float[N,3] q) { q = Identity (x) }
      >
    }"""
    )
    model = build(text)

    result = FoldConstants().rewrite(model, Context())

    assert result.rewritten[-1] == "If -> y"
    assert [node.op_type for node in model.graph] == ["Identity"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(answers(model, x=x)["y"], x)
