"""The cost model tells which of two graphs is dearer, and says so where it cannot know."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxpress.passes.analysis.blocked_layout import BlockedLayout
from onnxpress.passes.analysis.latency_model import START, predicted_latency
from onnxpress.passes.analysis.macs import with_fixed_shapes


def graph(lines: str, *, channels: int = 32, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(
        f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        main (float[1,{channels},16,16] x, float[{channels},{channels},1,1] w, float slope)
          => (float[n,c,h,v] y) {{
          {lines}
        }}
        """
    )


def latency(lines: str, **options: int) -> float:
    found = predicted_latency(graph(lines, **options))
    assert found is not None
    return found


DEARER = {
    "more products": ("y = Conv (x, w)", "a = Conv (x, w)  y = Conv (a, w)"),
    "an operator more": ("y = Neg (x)", "a = Neg (x)  y = Neg (a)"),
    "an operator that leaves the blocked layout": (
        "a = Conv (x, w)  b = Relu (a)  y = Conv (b, w)",
        "a = Conv (x, w)  b = Elu (a)  y = Conv (b, w)",
    ),
    "an activation that is not fused": (
        "a = Conv (x, w)  y = Relu (a)",
        "a = Conv (x, w)  b = Sigmoid (a)  y = Mul (a, b)",
    ),
    "a costly function": ("y = Exp (x)", "y = Pow (x, slope)"),
}


@pytest.mark.parametrize("name", list(DEARER))
def test_a_graph_that_does_more_is_dearer(name: str) -> None:
    cheap, dear = DEARER[name]
    assert latency(cheap) < latency(dear)


def test_what_is_folded_or_only_renamed_is_free() -> None:
    plain = latency("y = Conv (x, w)")
    assert latency("a = Conv (x, w)  b = Dropout (a)  y = Identity (b)") == pytest.approx(plain)


def test_channels_that_do_not_fill_a_block_have_no_blocked_kernel() -> None:
    model = with_fixed_shapes(graph("y = Conv (x, w)", channels=10))
    assert not BlockedLayout(model.graph, frozenset()).convolutions
    model = with_fixed_shapes(graph("y = Conv (x, w)", channels=8))
    assert not BlockedLayout(model.graph, frozenset(("avx2", "avx512f"))).convolutions
    assert BlockedLayout(model.graph, frozenset(("avx2",))).convolutions


def test_half_precision_has_no_blocked_kernel() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        main (float16[1,32,16,16] x, float16[32,32,1,1] w) => (float16[n,c,h,v] y) {
          y = Conv (x, w)
        }
        """
    model = with_fixed_shapes(ir.from_onnx_text(text))
    assert not BlockedLayout(model.graph, frozenset()).convolutions


NOT_KNOWN = {
    "a loop": """
        main (int64 n, bool c, float[4] x) => (float[4] y) {
          y = Loop (n, c, x) <body = once (int64 i, bool go, float[4] a) => (bool on, float[4] b) {
            on = Identity (go)
            b = Neg (a)
          }>
        }""",
    "quantized": """
        main (float[4] x, float s, uint8 z) => (float[4] y) {
          q = QuantizeLinear (x, s, z)
          y = DequantizeLinear (q, s, z)
        }""",
    "sizes that depend on values": """
        main (float[4] x) => (float[n] y) {
          i = NonZero (x)
          t = Transpose (i)
          f = Cast <to = 1> (t)
          y = Neg (f)
        }""",
    "unknown in a branch": """
        main (bool c, float[4] x) => (float[n] y) {
          y = If (c) <
            then_branch = t () => (float[n] a) {
              i = NonZero (x)
              a = Cast <to = 1> (i)
            },
            else_branch = e () => (float[n] b) { b = Neg (x) }
          >
        }""",
}


@pytest.mark.parametrize("name", list(NOT_KNOWN))
def test_it_says_nothing_of_what_it_cannot_know(name: str) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    assert predicted_latency(ir.from_onnx_text(head + NOT_KNOWN[name])) is None


def test_the_dearer_branch_counts() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        main (bool c, float[4] x) => (float[4] y) {
          y = If (c) <
            then_branch = t () => (float[4] a) { h = Neg (x)  a = Neg (h) },
            else_branch = e () => (float[4] b) { b = Neg (x) }
          >
        }"""
    )
    found = predicted_latency(model)
    assert found is not None
    assert 3 * START < found < 4 * START


def test_dynamic_dimensions_take_the_sizes_given() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 1000] x) => (float[N, 1000] y) { y = Exp (x) }
        """
    )
    one, many = predicted_latency(model), predicted_latency(model, {"N": 100})
    assert one is not None
    assert many is not None
    assert many > 30 * one
