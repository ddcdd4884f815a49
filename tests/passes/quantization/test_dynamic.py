"""QuantizeDynamic: integer products with ranges of each run, where they pay."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.errors import PassError
from onnxpress.passes.quantization.dynamic import QuantizeDynamic

SHAPES = {
    "w": (256, 256), "v": (256, 260), "t": (260, 256), "b": (260,), "c": (256,), "small": (256, 64),
    "stack": (2, 256, 256), "kernel": (8, 4, 3, 3), "table": (512, 256),
}  # fmt: skip
ROWS = "(float[n,256] x) => (float[n,m] y)"
STEPS = "(float[b,n,256] x) => (float[b,n,m] y)"


def build(signature: str, body: str, opset: int = 13) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    used = sorted(set(re.findall(r"\w+", body)) & arrays.keys())
    tensors = [ir.tensor(arrays[name], name=name) for name in used]
    model = ir.from_onnx_text(text, initializers=tensors)
    return ir.from_proto(ir.to_proto(model))  # so that branches find the outer weights


def feeds(signature: str, seed: int = 1) -> dict[str, Array]:
    shape = (9, 256) if signature == ROWS else (3, 5, 256)
    return {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize(
    ("signature", "body", "kernels"),
    [
        (ROWS, "y = MatMul (x, w)", {"DynamicQuantizeMatMul": 1}),
        (STEPS, "h = MatMul (x, v)\n y = Add (h, b)", {"DynamicQuantizeMatMul": 1}),
        (ROWS, "y = Gemm (x, v, b)", {"DynamicQuantizeMatMul": 1}),
        (
            ROWS,
            "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, t, b)",
            {"DynamicQuantizeMatMul": 1},
        ),
        (
            STEPS,
            "l = MatMul (x, w)\n r = MatMul (x, w)\n y = Add (l, r)",
            {"MatMulIntegerToFloat": 2, "DynamicQuantizeLinear": 1},
        ),
    ],
)
def test_layers_become_integer_kernels(
    signature: str,
    body: str,
    kernels: dict[str, int],
    target: str,
    opset: int,
    run: Any,
    run_fused: Any,
    decibels: Any,
    tmp_path: Path,
) -> None:
    model = build(signature, body, opset)
    fed = feeds(signature)
    (before,) = run(model, fed)

    result = QuantizeDynamic().rewrite(model, Context(target=Target(target)))  # type: ignore[arg-type]

    assert result.rewritten
    assert not result.declined
    assert not {"w", "v", "t"} & model.graph.initializers.keys()
    assert decibels(before, run(model, fed)[0]) > 30
    assert decibels(before, run_fused(model, fed)[0]) > 30
    session_of(model, optimized=tmp_path / "o.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node)
    assert {name: found[name] for name in kernels} == kernels
    assert not found["MatMul"]
    assert not found["Gemm"]
    again = QuantizeDynamic().rewrite(model, Context())
    assert not again.modified


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        (
            ROWS,
            "y = MatMul (x, small)",
            "it has 16384 weights, and below 65536 it gains too little",
        ),
        (STEPS, "y = MatMul (x, stack)", "its weights are a stack"),
        (ROWS, "y = MatMul (x, x)", ""),
        (ROWS, "y = Gemm <transA = 1> (x, w)", "it transposes what it is fed"),
        (ROWS, "h = MatMul (table, w)\n y = Add (h, x)", "its first input is constant"),
    ],
)
def test_what_is_declined(signature: str, body: str, reason: str) -> None:
    model = build(signature, body)
    text = ir.to_onnx_text(model)

    result = QuantizeDynamic().rewrite(model, Context())

    assert not result.modified
    assert ir.to_onnx_text(model) == text
    assert all(found.startswith(reason) for found in result.declined.values())
    assert len(result.declined) == (1 if reason else 0)


def test_convolutions_and_tables_are_left_without_a_word() -> None:
    model = build("(float[n,4,6,6] x) => (float[n,8,4,4] y)", "y = Conv (x, kernel)")
    result = QuantizeDynamic().rewrite(model, Context())
    assert not result.modified
    assert not result.declined


def test_branches_are_reached(run: Any, decibels: Any) -> None:
    body = (
        "one = Constant <value = bool {1}> ()\n"
        "y = If (one) <then_branch = yes () => (float[n,256] u) { u = MatMul (x, w) },"
        " else_branch = no () => (float[n,256] l) { l = Neg (x) }>"
    )
    model = build(ROWS, body)
    (before,) = run(model, feeds(ROWS))

    result = QuantizeDynamic().rewrite(model, Context())

    assert len(result.rewritten) == 1
    assert decibels(before, run(model, feeds(ROWS))[0]) > 30


def test_neighbours_do_not_overflow_where_they_could() -> None:
    worst = {}
    for features in ({"avx2"}, {"avx512f", "avx512_vnni"}):
        model = build(ROWS, "y = MatMul (x, w)")
        QuantizeDynamic().rewrite(model, Context(target=Target("cpu", frozenset(features))))
        tensor = model.graph.initializers["w.quantized"].const_value
        assert tensor is not None
        integers = tensor.numpy().astype(int)
        worst["avx512_vnni" in features] = np.abs(integers[0::2] + integers[1::2]).max()
    assert worst[False] <= 128 < worst[True]


def test_layers_that_share_weights_and_inputs_stay_in_order(run: Any, decibels: Any) -> None:
    body = "h = MatMul (x, w)\n l = MatMul (x, w)\n k = MatMul (h, w)\n m = MatMul (k, w)\n"
    model = build(ROWS, body + "y = Add (l, m)")
    (before,) = run(model, feeds(ROWS))

    QuantizeDynamic().rewrite(model, Context())

    assert operators(model)["DynamicQuantizeLinear"] == 3
    assert decibels(before, run(model, feeds(ROWS))[0]) > 25


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_inputs(value: float, run: Any) -> None:
    model = build(ROWS, "y = MatMul (x, w)")
    fed = {"x": np.full((4, 256), value, np.float32)}
    (before,) = run(model, fed)
    QuantizeDynamic().rewrite(model, Context())
    np.testing.assert_allclose(run(model, fed)[0], before, atol=0.05 * np.abs(before).max())


def test_what_to_quantize_can_be_chosen() -> None:
    body = "h = MatMul (x, w)\n y = MatMul (h, w)"
    for options, left in (({"exclude": ("h",)}, "h"), ({"include": ("y",)}, "h")):
        model = build(ROWS, body.replace("(h, w)", "(h, v)"))
        result = QuantizeDynamic(**options).rewrite(model, Context())
        assert list(result.declined) == [f"MatMul -> {left}"]
        assert operators(model)["MatMulInteger"] == 1


def test_cuda_is_refused() -> None:
    with pytest.raises(PassError, match="no kernels for 8-bit"):
        QuantizeDynamic().rewrite(build(ROWS, "y = MatMul (x, w)"), Context(target=Target("cuda")))
