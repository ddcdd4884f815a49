"""What is the same in every branch or iteration is computed before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.hoist_invariants import HoistInvariants

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 10, opset_import: ["" : 17]>\n'
X = np.array([[1, -2], [3, 4]], np.float32)


def hoist(model: ir.Model) -> Result:
    return HoistInvariants().rewrite(model, Context())


def kinds(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph if node.op_type != "Constant"]


def inside(model: ir.Model) -> list[list[str]]:
    return [kinds(graph) for graph in model.graph.subgraphs()]


def check(model: ir.Model, answers: Answers, feeds: list[dict[str, Array]]) -> None:
    before = [answers(model, x=X, **one) for one in feeds]
    hoist(model)
    for one, old in zip(feeds, before, strict=True):
        new = answers(model, x=X, **one)
        assert list(new) == list(old)
        for name, array in old.items():
            np.testing.assert_array_equal(new[name], array)
    assert not hoist(model).modified


BOTH = [{"c": np.array(flag)} for flag in (True, False)]


def branches(first: str, second: str, outputs: str = "y", names: str = "p") -> str:
    declared = ", ".join(f"float[] {name}" for name in names.split())
    other = ", ".join(f"float[] {name}" for name in names.replace("p", "q").split())
    shown = ", ".join(f"float[] {name}" for name in outputs.split())
    return (
        HEAD
        + f"""main (float[N,2] x, bool c) => ({shown}) {{
      {", ".join(outputs.split())} = If (c) <
        then_branch = t () => ({declared}) <float[2] w = {{1, 2}}> {{ {first} }},
        else_branch = e () => ({other}) <float[2] w = {{1, 2}}> {{ {second} }}
      >
    }}"""
    )


def test_what_both_branches_compute(build: Build, answers: Answers) -> None:
    model = build(
        branches("a = Neg (x) b = Mul (a, w) p = Exp (b)", "a = Neg (x) d = Mul (a, w) q = Abs (d)")
    )
    check(model, answers, BOTH)
    assert kinds(model.graph) == ["Neg", "Mul", "If"]
    assert inside(model) == [["Exp"], ["Abs"]]


def test_equal_branches_need_no_if(build: Build, answers: Answers) -> None:
    model = build(branches("a = Neg (x) p = Mul (a, w)", "b = Neg (x) q = Mul (b, w)"))
    check(model, answers, BOTH)
    assert kinds(model.graph) == ["Neg", "Mul"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_an_output_that_is_the_same_goes(build: Build, answers: Answers) -> None:
    model = build(
        branches(
            "p = Neg (x) p2 = Exp (p) p3 = Abs (x)",
            "q = Neg (x) q2 = Sin (q) q3 = Abs (x)",
            "y z u",
            "p p2 p3",
        )
    )
    check(model, answers, BOTH)
    assert kinds(model.graph) == ["Neg", "Abs", "If"]
    assert len(model.graph[-1].outputs) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("p = Neg (x) p2 = Abs (x)", "q2 = Neg (x) q = Exp (x)"),
        ("p = RandomNormalLike (x) p2 = Abs (x)", "q = RandomNormalLike (x) q2 = Exp (x)"),
        ("p = Elu <alpha = 0.5> (x) p2 = Abs (x)", "q = Elu (x) q2 = Exp (x)"),
    ],
)
def test_what_stays_in_branches(first: str, second: str, build: Build) -> None:
    model = build(branches(first, second, "y z", "p p2"))
    assert not hoist(model).modified


def loop(body: str, trips: str = "3", more: str = "") -> str:
    return (
        HEAD
        + f"""main (float[N,2] x, int64 n, bool go) => (float[N,2] y, float[] z) {{
      m = Constant <value_int = {trips}> ()
      yes = Constant <value = bool {{1}}> ()
      {more}
      y, z = Loop (m, yes, x) <
        body = b (int64 i, bool on, float[N,2] s) => (bool on_, float[N,2] s_, float[] each)
          <float[2] w = {{1, 2}}> {{
          on_ = Identity (on)
          {body}
        }}
      >
    }}"""
    )


STEP = "a = Sin (x) b = Mul (a, w) d = Exp (s) s_ = Add (d, b) each = ReduceMax (s_)"
FEEDS = [{"n": np.array(n), "go": np.array(go)} for n, go in ((2, True), (1, False), (0, True))]


def test_what_each_iteration_computes_anew(build: Build, answers: Answers) -> None:
    model = build(loop(STEP))
    check(model, answers, FEEDS)
    assert kinds(model.graph) == ["Sin", "Mul", "Loop"]
    assert inside(model) == [["Identity", "Exp", "Add", "ReduceMax"]]


@pytest.mark.parametrize("change", [("Loop (m,", "Loop (n,"), (", yes, x)", ", go, x)")])
def test_a_loop_that_may_not_run(change: tuple[str, str], build: Build, answers: Answers) -> None:
    model = build(loop(STEP).replace(*change))
    result = hoist(model)
    assert kinds(model.graph) == ["Sin", "Loop"]
    assert list(result.declined.values()) == [
        "the Loop around it may not run, and then it must not fail"
    ]
    check(build(loop(STEP).replace(*change)), answers, FEEDS)


@pytest.mark.parametrize(
    ("call", "is_moved"),
    [
        ("Cast <to = 7> (x)", True),
        ("Shape (x)", True),
        ("Transpose (x)", True),
        ("Mul (x, two)", True),
        ("Sub (two, x)", True),
        ("Mul (x, x)", False),
        ("Div (k, k)", False),
        ("Cast <to = 8> (x)", False),
        ("Gather (x, k)", False),
        ("MatMul (x, x)", False),
    ],
)
def test_what_cannot_fail(call: str, is_moved: bool, build: Build) -> None:
    more = "two = Constant <value_float = 2.0> () k = Constant <value_int = 0> ()"
    body = f"a = {call} s_ = Neg (s) each = Cast <to = 1> (a)"
    model = build(loop(body, more=more).replace("Loop (m,", "Loop (n,"))
    hoist(model)
    assert (call.partition(" ")[0] in kinds(model.graph)) == is_moved


def test_scans_and_loops_in_loops(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[N,2] x, float[4,2] t) => (float[2] y, float[4,2] z) {
      r = Constant <value_ints = [0]> ()
      h = ReduceMax <axes = [0], keepdims = 0> (x)
      y, z = Scan <num_scan_inputs = 1,
        body = b (float[2] s, float[2] v) => (float[2] s_, float[2] o) {
        a = Cos (h)
        d = Mul (a, v)
        s_ = Add (s, d)
        o = Neg (s_)
      }> (h, t)
    }"""
    )
    model = build(text)
    check(model, answers, [{"t": np.ones((4, 2), np.float32)}])
    assert kinds(model.graph) == ["ReduceMax", "Cos", "Scan"]

    unknown = build(
        text.replace("t, float[4,2]", "t, float[T,2]")
        .replace("float[4,2] t", "float[T,2] t")
        .replace("Cos (h)", "Add (h, h)")
    )
    assert not hoist(unknown).modified


def test_from_inner_to_outer(build: Build, answers: Answers) -> None:
    body = """a = If (on) <
        then_branch = t () => (float[] p) { u = Sin (x) p = Add (u, s) },
        else_branch = e () => (float[] q) { v = Sin (x) q = Sub (v, s) }
      >
      s_ = Tanh (a)
      each = ReduceMax (s_)"""
    model = build(loop(body))
    check(model, answers, FEEDS)
    assert kinds(model.graph) == ["Sin", "Loop"]


def test_in_functions_constants_become_nodes(build: Build, answers: Answers) -> None:
    inner = branches("p = Mul (x, w)", "a = Mul (x, w) q = Exp (a)").replace("N,2", "2")
    inner = (
        inner.replace("a = Mul", "b = Mul")
        .replace("(a)", "(b)")
        .replace("p = Mul (x, w)", "a = Mul (x, w) p = Neg (a)")
    )
    graph = inner[inner.index("{\n") :]
    text = (
        HEAD.replace("17]", '17, "local" : 1]')
        + "main (float[N,2] x, bool c) => (float[] y) { y = local.f (x, c) }\n"
        + '<domain: "local", opset_import: ["" : 17]> f (x, c) => (y) '
        + graph
    )
    model = build(text)
    check(model, answers, BOTH)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Mul", "If"]
