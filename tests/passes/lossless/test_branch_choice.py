"""Branches of an ``If`` that would make the run fail, and are never taken therefore."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.analysis.values import Facts
from onnxpress.passes.base import Context
from onnxpress.passes.lossless.branch_choice import choose_branches
from onnxpress.passes.lossless.fold_constants import FoldConstants

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

HEAD = '<ir_version: 10, opset_import: ["" : 17]>\n'

SQUEEZE = """
  s = Shape <start = 2> (x)
  k = Constant <value_ints = [1]> ()
  c = Equal (s, k)
  a = If (c) <
    then_branch = t () => (float[N,4] p) {
      last = Constant <value_ints = [2]> ()
      p = Squeeze (x, last)
    },
    else_branch = e () => (float[N,4,L] q) { q = Identity (x) }
  >"""

STEP = """
  r = Shape (a)
  rank = Size (r)
  two = Constant <value_int = 2> ()
  flat = Equal (rank, two)
  batched = Not (flat)
  zero = Constant <value_ints = [0]> ()
  b = If (batched) <
    then_branch = bt () => (float[] u) { u = Unsqueeze (a, zero) },
    else_branch = be () => (float[] v) { v = Identity (a) }
  >
  d = Unsqueeze (b, zero)"""
"""A recurrent cell as an exporter writes it: axes for time, and for a batch that is missing."""

LSTM = "every, h, cell = LSTM <hidden_size = 3> (d, w, r0)"
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4, 1)


def text(body: str, output: str = "h") -> str:
    return (
        HEAD
        + f"main (float[N,4,L] x) => (float[] {output}) "
        + f"<float[1,12,4] w = {{{', '.join(['0.1'] * 48)}}}, "
        + f"float[1,12,3] r0 = {{{', '.join(['0.2'] * 36)}}}, "
        + f"float[2,4,1] w1 = {{{', '.join(['0.3'] * 8)}}}> {{{body}\n}}"
    )


def chosen(model: ir.Model) -> dict[str | None, bool]:
    facts = Facts(model)
    facts.follow_all()
    return {node.outputs[0].name: taken for node, taken in choose_branches(model, facts).items()}


def test_a_recurrent_cell_says_how_many_axes_there_are(build: Build, answers: Answers) -> None:
    model = build(text(SQUEEZE + STEP + LSTM))
    before = answers(model, x=X)["h"]

    assert chosen(model) == {"a": True}
    result = FoldConstants().rewrite(model, Context())

    assert "If -> a" in result.rewritten
    assert "If -> b" in result.rewritten
    kinds = [node.op_type for node in model.graph if node.op_type != "Constant"]
    assert kinds == ["Squeeze", "Identity", "Unsqueeze", "LSTM"]
    np.testing.assert_array_equal(answers(model, x=X)["h"], before)
    assert not FoldConstants().rewrite(model, Context()).modified


def test_a_convolution_says_how_many_axes_there_are(build: Build, answers: Answers) -> None:
    fourth = SQUEEZE.replace("start = 2", "start = 3").replace("[2]", "[3]")
    model = build(text(fourth + "h = Conv (a, w1)").replace("N,4,L", "N,4,L,M"))
    assert chosen(model) == {"a": True}

    model = build(text(SQUEEZE + "h = Conv (a, w1)"))
    before = answers(model, x=np.repeat(X, 2, axis=2))["h"]
    assert chosen(model) == {"a": False}
    FoldConstants().rewrite(model, Context())
    np.testing.assert_array_equal(answers(model, x=np.repeat(X, 2, axis=2))["h"], before)


def test_in_a_branch_of_another(build: Build) -> None:
    inner = SQUEEZE + "o = Conv (a, w1)"
    outer = f"""
      go = Greater (y, zero)
      h = If (go) <
        then_branch = ot () => (float[] o) {{{inner} }},
        else_branch = oe () => (float[] n) {{ n = Neg (x) }}
      >"""
    body = "zero = Constant <value_float = 0.0> ()" + outer
    model = build(text(body).replace(") =>", ", float y) =>", 1))
    assert chosen(model) == {"a": False}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        pytest.param(SQUEEZE + "h = Neg (a)", "h", id="nothing fails"),
        pytest.param(SQUEEZE + STEP + LSTM + "\nz = Neg (x)", "z", id="nothing needs it"),
        pytest.param(
            SQUEEZE
            + """
            one = Constant <value_int = 1> ()
            n = Size (x)
            m = Equal (n, one)
            h = If (m) <
              then_branch = ct () => (float[] u) { u = Conv (a, w1) },
              else_branch = ce () => (float[] v) { v = Neg (x) }
            >""",
            "h",
            id="what fails need not run",
        ),
        pytest.param(
            SQUEEZE.replace("Identity (x)", "Unsqueeze (x, k)") + "h = Conv (a, w1)",
            "h",
            id="both fail",
        ),
        pytest.param(
            SQUEEZE.replace("Squeeze (x, last)", "Neg (x)") + "h = Conv (a, w1)",
            "h",
            id="both have the same axes",
        ),
    ],
)
def test_what_stays_open(body: str, output: str, build: Build) -> None:
    assert chosen(build(text(body, output))) == {}


@pytest.mark.parametrize(("length", "found"), [(90, {"a": False}), (120, {})])
def test_a_chain_too_long_is_left(length: int, found: dict[str, bool], build: Build) -> None:
    names = ["a", *(f"n{index}" for index in range(length))]
    chain = "\n".join(f"{b} = Neg ({a})" for a, b in pairwise(names))
    assert chosen(build(text(f"{SQUEEZE}\n{chain}\nh = Conv ({names[-1]}, w1)"))) == found
