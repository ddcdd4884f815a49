"""Bodies of If, Loop and Scan and functions: seen by calibration, quantized, or with a reason."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress.backends.ort import session_of
from onnxpress.backends.serde import from_proto
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.arithmetic import Range
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.observers import METHODS, Calibration, observe_ranges
from onnxpress.passes.quantization.quantized import float_twin
from onnxpress.passes.quantization.refit import Refit

BRANCHES = """
  sum = ReduceSum <keepdims = 0> (x)
  up = Greater (sum, zero)
  y = If (up) <
    then_branch = yes () => (float[r,q] k) { h = MatMul (x, m)  k = Relu (h) },
    else_branch = no () => (float[r,p] l) { h = MatMul (x, n)  g = Neg (h)  l = MatMul (g, m) }>
"""
TURNS = """
  y = Loop (three, go, x) <body = turn (int64 i, bool c, float[a,16] s) => (bool d, float[a,16] t) {
    d = Identity (c)
    h = MatMul (s, n)
    t = Tanh (h)
  }>
"""
SCANNED = """
  last, y = Scan (x, steps) <num_scan_inputs = 1, scan_output_axes = [1], body = step
    (float[b,16] s, float[16] e) => (float[b,16] t, float[b,16] out) {
      h = MatMul (s, n)
      t = Tanh (h)
      out = Add (t, e)
  }>
"""
CONTENTS = {"if": BRANCHES, "loop": TURNS, "scan": SCANNED}


def build(body: str, opset: int = 13, functions: str = "", extra: str = "") -> ir.Model:
    rng = np.random.default_rng(0)
    constants = {"m": (16, 16), "n": (16, 16)}
    text = ", ".join(
        f"float[{a},{b}] {name} = "
        f"{{{', '.join(f'{one:.3f}' for one in rng.normal(size=a * b) / 3)}}}"
        for name, (a, b) in constants.items()
    )
    text += ", int64 three = {3}, bool go = {1}, float zero = {0}"
    steps = "float[5,16] steps" if "steps" in body else ""
    answer = "float[o,p,q] y" if "Scan" in body else "float[o,p] y"
    inputs = ", ".join(filter(None, ("float[b,16] x", steps)))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}{extra}]>\n'
        f"main ({inputs}) => ({answer}) <{text}> {{ {body} }} {functions}"
    )
    return from_proto(model)


def feeds(model: ir.Model, sign: float = 1.0) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    shapes = {"x": (24, 16), "steps": (5, 16)}
    return {
        value.name or "": (rng.normal(size=shapes[value.name or ""]) + sign).astype(np.float32)
        for value in model.graph.inputs
        if value.name in shapes
    }


class Both:
    """Samples that take either branch; nothing is split, as a Scan has no batch."""

    def __init__(self, model: ir.Model) -> None:
        self.feeds = [feeds(model, sign) for sign in (1.0, -1.0)]

    def batches(self, size: int) -> Any:
        del size
        yield from self.feeds


def operators(graph: ir.Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph)


def inner(model: ir.Model) -> list[ir.Graph]:
    return list(model.graph.subgraphs())


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("kind", CONTENTS)
def test_bodies_are_quantized_and_answers_stay(kind: str, opset: int, run: Any) -> None:
    model = build(CONTENTS[kind], opset)
    before = [run(model, one) for one in Both(model).feeds]

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert result.rewritten
    for graph in inner(model):
        counts = operators(graph)
        assert counts["QuantizeLinear"]
        assert counts["DequantizeLinear"]
        assert not any(
            "float" in str(value.dtype).lower()
            and value.const_value is not None
            and value.const_value.size > 16
            for value in graph.initializers.values()
        )
    for one, wanted in zip(Both(model).feeds, before, strict=True):
        (answer,) = run(model, one)
        np.testing.assert_allclose(answer, wanted[0], atol=0.08 * np.abs(wanted[0]).max())


@pytest.mark.parametrize("kind", CONTENTS)
def test_bodies_run_on_integer_kernels(kind: str, run_fused: Any, run: Any, tmp_path: Path) -> None:
    model = build(CONTENTS[kind])
    before = run(model, feeds(model))

    InsertQDQ().rewrite(model, Context(data=Both(model)))

    np.testing.assert_allclose(
        run_fused(model, feeds(model))[0], before[0], atol=0.08 * np.abs(before[0]).max()
    )
    session_of(model, optimized=tmp_path / "optimized.onnx")
    (*_, body) = inner(ir.load(tmp_path / "optimized.onnx"))
    assert operators(body)["MatMulIntegerToFloat"] or operators(body)["QGemm"]
    assert not operators(body)["MatMul"]


@pytest.mark.parametrize("method", METHODS)
def test_ranges_inside_are_those_of_all_turns_and_both_branches(method: str) -> None:
    model = build(TURNS)
    data = Both(model)
    how = Calibration(method)

    seen = observe_ranges(model, ["h", "s", "x"], Context(data=data), data, 0, how).ranges

    lows, highs = [], []
    weight = model.graph.initializers["n"].const_value
    assert weight is not None
    for one in data.feeds:
        state = one["x"]
        for _ in range(3):
            product = state @ weight.numpy()
            lows.append(product.min())
            highs.append(product.max())
            state = np.tanh(product)
    if method != "moving-average":
        np.testing.assert_allclose([seen["h"].low, seen["h"].high], [min(lows), max(highs)], 1e-5)
    assert seen["s"].low <= -0.9


def test_what_no_sample_brings_to_a_branch_stays_in_float() -> None:
    model = build(BRANCHES)

    class Ups(Both):
        def batches(self, size: int) -> Any:
            del size
            yield self.feeds[0]

    result = InsertQDQ().rewrite(model, Context(data=Ups(model)))

    yes, no = inner(model)
    assert operators(yes)["QuantizeLinear"]
    assert operators(no)["QuantizeLinear"] == 1  # of x, which was seen outside
    assert any("empty in every sample" in reason for reason in result.declined.values())


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_histograms_see_into_branches(method: str) -> None:
    model = build(
        BRANCHES.replace("h = MatMul (x, n)", "o = MatMul (x, n)")
        .replace("(h)  l", "(o)  l")
        .replace("g = Neg (h)", "g = Neg (o)")
    )
    data = Both(model)
    whole = observe_ranges(model, ["h", "g"], Context(data=data), data, 0).ranges

    cut = observe_ranges(
        model, ["h", "g"], Context(data=data), data, 0, Calibration(method, percent=95)
    ).ranges

    for name in ("h", "g"):
        assert whole[name].low <= cut[name].low < 0 < cut[name].high <= whole[name].high
    if method == "percentile":
        assert cut["g"] != whole["g"]


def test_a_loop_without_turns_has_seen_nothing() -> None:
    model = build(
        TURNS.replace("three", "none").replace(
            "y = Loop", "none = Constant <value_int = 0> ()\n y = Loop"
        )
    )
    data = Both(model)

    seen = observe_ranges(model, ["h"], Context(data=data), data, 0).ranges["h"]

    assert seen == Range()


def test_loops_inside_branches_are_seen(run: Any) -> None:
    body = TURNS.replace("y = Loop", "k = Loop").replace("\n", " ")
    model = build(
        "one = Identity (go)  y = If (one) <then_branch = yes () => (float[r,16] k) {"
        + body
        + "}, else_branch = no () => (float[r,16] l) { l = Identity (x) }>"
    )
    (before,) = run(model, feeds(model))

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert len(result.rewritten) == 1
    np.testing.assert_allclose(run(model, feeds(model))[0], before, atol=0.08)


def test_what_an_outer_kernel_gives_out_is_read_inside(run: Any) -> None:
    body = BRANCHES.replace("MatMul (x,", "MatMul (o,")
    model = build(f"o = MatMul (x, n)\n{body}")
    before = [run(model, one)[0] for one in Both(model).feeds]

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert len(result.rewritten) == 4
    assert "m" not in model.graph.initializers
    for one, wanted in zip(Both(model).feeds, before, strict=True):
        np.testing.assert_allclose(run(model, one)[0], wanted, atol=0.05 * np.abs(wanted).max())


def test_functions_are_inlined_and_quantized(run: Any) -> None:
    functions = (
        '<domain: "local", opset_import: ["" : 13]> layer (a, w) => (c) '
        "{ b = MatMul (a, w) c = Relu (b) }"
    )
    model = build(
        "h = local.layer (x, m)\n y = local.layer (h, n)",
        functions=functions,
        extra=', "local" : 1',
    )
    (before,) = run(model, feeds(model))

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert not model.functions
    assert len(result.rewritten) >= 2
    np.testing.assert_allclose(
        run(model, feeds(model))[0], before, atol=0.05 * np.abs(before).max()
    )


def test_what_cannot_be_seen_has_a_reason() -> None:
    body = """
      seq = SequenceConstruct (x, x)
      out = SequenceMap (seq) <body = each (float[b,16] e) => (float[b,16] f) { f = MatMul (e, m) }>
      y = ConcatFromSequence <axis = 0> (out)
    """
    model = build(body, opset=17)

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert not result.modified
    assert list(result.declined.values()) == [
        "it stands in a body of SequenceMap, which calibration cannot see into"
    ]


def test_a_function_that_stays_has_a_reason() -> None:
    functions = (
        '<domain: "local", opset_import: ["" : 12]> layer (a, w) => (c) { c = MatMul (a, w) }'
    )
    model = build("y = local.layer (x, m)", functions=functions, extra=', "local" : 1')

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert list(result.declined.values()) == ["it stands in a function that cannot be inlined"]


def test_a_second_run_finds_nothing_left() -> None:
    model = build(BRANCHES)
    InsertQDQ().rewrite(model, Context(data=Both(model)))
    text = ir.to_onnx_text(model)

    result = InsertQDQ().rewrite(model, Context(data=Both(model)))

    assert not result.modified
    assert set(result.declined.values()) == {"it is quantized already"}
    assert ir.to_onnx_text(model) == text


def test_the_float_twin_is_float_inside_and_refit_says_why_not(run: Any) -> None:
    model = build(BRANCHES)
    (before,) = run(model, feeds(model))
    InsertQDQ().rewrite(model, Context(data=Both(model)))

    np.testing.assert_allclose(
        run(float_twin(model), feeds(model))[0], before, rtol=1e-5, atol=1e-5
    )
    result = Refit().rewrite(model, Context(data=Both(model)))
    assert not result.modified
    assert set(result.declined.values()) == {"it stands in a subgraph, whose values are not kept"}
