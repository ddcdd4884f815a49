"""QuantizeWeights: layers and tables in few bits, near the float answers; the rest has a reason."""

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import PassError, UsageError
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.weight_only import QuantizeWeights

WEIGHTS: dict[str, Any] = {
    "w": (160, 112), "t": (112, 160), "odd": (150, 117), "b": (112,), "row": (1, 112),
    "table": (130, 150), "stack": (4, 160, 112), "small": (16, 12), "square": (160, 160),
    "conv": (64, 40, 3, 3), "column": (7, 1),
}  # fmt: skip
ROWS = "(float[n,160] x) => (float[n,m] y)"
STEPS = "(float[b,n,160] x) => (float[b,n,m] y)"
ODD = "(float[n,150] x) => (float[n,m] y)"
TOKENS = "(int64[b,n] i) => (float[b,n,m] y)"


def build(signature: str, body: str, opset: int = 17, dtype: Any = np.float32) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in WEIGHTS.items()}
    arrays["half"] = arrays["w"].astype(np.float16)
    arrays["nan"] = np.full((160, 112), np.nan, np.float32)
    used = {name for name in re.findall(r"\w+", body) if name in arrays}
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    tensors = [ir.tensor(arrays[name], name=name) for name in sorted(used)]
    model = ir.from_onnx_text(text, initializers=tensors)
    return ir.from_proto(ir.to_proto(model))  # so that every branch finds the outer weights


def feeds(model: ir.Model, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    (value,) = model.graph.inputs
    assert value.shape is not None
    shape = [size if isinstance(size, int) else 5 for size in value.shape]
    if value.dtype == ir.DataType.INT64:
        return {value.name or "": rng.integers(-130, 130, shape)}
    return {value.name or "": rng.normal(size=shape).astype(np.float32)}


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def context(target: str = "cpu", data: Any = None) -> Context:
    return Context(target=Target(target), data=data)  # type: ignore[arg-type]


LAYERS = {
    "MatMul": (ROWS, "y = MatMul (x, w)", ["MatMulNBits"], ["DequantizeLinear", "MatMul"]),
    "a batch": (STEPS, "y = MatMul (x, w)", ["MatMulNBits"], ["DequantizeLinear", "MatMul"]),
    "no whole blocks": (
        ODD, "y = MatMul (x, odd)", ["MatMulNBits"], ["DequantizeLinear", "MatMul"],
    ),
    "Gemm": (ROWS, "y = Gemm (x, w, b)", ["MatMulNBits"], ["DequantizeLinear", "Gemm"]),
    "factors": (
        ROWS,
        "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, t, row)",
        ["MatMulNBits"],
        ["DequantizeLinear", "Gemm"],
    ),
    "no bias": (ROWS, "y = Gemm (x, w)", ["MatMulNBits"], ["DequantizeLinear", "Gemm"]),
    "a table": (
        TOKENS,
        "y = Gather (table, i)",
        ["GatherBlockQuantized"],
        ["Gather", "Gather", "Gather", "DequantizeLinear"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("name", LAYERS)
def test_answers_are_near_those_in_float(
    name: str, target: str, symmetric: bool, bits: int, run: Any, run_fused: Any, decibels: Any
) -> None:
    signature, body, contrib, standard = LAYERS[name]
    model = build(signature, body)
    fed = feeds(model)
    (before,) = run(model, fed)
    pass_ = QuantizeWeights(bits=bits, symmetric=symmetric)
    result = pass_.rewrite(model, context(target))
    assert len(result.rewritten) == 1
    expected = contrib if target == "cpu" else standard
    if name == "a table" and target == "portable" and symmetric:
        expected = ["Gather", "Gather", "DequantizeLinear"]
    assert operators(model) == expected
    least = 16 if bits == 4 and name != "a table" else 36
    assert decibels(before, run(model, fed)[0]) > least
    assert decibels(before, run_fused(model, fed)[0]) > least
    sizes = result.details["bytes"]
    assert sizes[1] < (0.2 if bits == 4 and name != "a table" else 0.32) * sizes[0]
    assert not any(value.dtype == ir.DataType.FLOAT and value.const_value is not None
                   and value.const_value.size >= 150 * 117 for value in
                   model.graph.initializers.values())  # fmt: skip
    again = pass_.rewrite(model, context(target))
    assert not again.modified


def test_smaller_blocks_are_nearer(run: Any, decibels: Any) -> None:
    found = []
    for options in (
        {"method": "mse", "block": 128},
        {"method": "mse", "block": 32},
        {"method": "mse", "block": 16},
    ):
        model = build(ROWS, "y = MatMul (x, w)")
        fed = feeds(model)
        (before,) = run(model, fed)
        QuantizeWeights(**options).rewrite(model, context())  # type: ignore[arg-type]
        found.append(decibels(before, run(model, fed)[0]))
    assert found == sorted(found)


def test_gptq_fits_what_the_layer_is_fed(samples: Any, run: Any, decibels: Any) -> None:
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(24, 160)).astype(np.float32)  # inputs lie near 24 dimensions
    data, held_out = (
        (rng.normal(size=(count, 24)) @ mixing + 0.1 * rng.normal(size=(count, 160))).astype(
            np.float32
        )
        for count in (128, 64)
    )
    found = {}
    for method in ("mse", "gptq"):
        model = build(ROWS, "r = Relu (x)\n n = Neg (x)\n a = Add (r, n)\n s = Sub (r, a)\n"
                      "y = MatMul (s, w)")  # fmt: skip
        (before,) = run(model, {"x": held_out})
        given = samples({"x": data})
        result = QuantizeWeights(method=method).rewrite(model, context(data=given))
        found[method] = decibels(before, run(model, {"x": held_out})[0])
        assert result.details["method"] == method
    assert found["gptq"] > found["mse"] + 4


def test_gptq_reads_graph_inputs_and_so_many_samples(samples: Any) -> None:
    model = build(ROWS, "y = MatMul (x, w)")
    data = samples({"x": np.ones((40, 160), np.float32)})
    result = QuantizeWeights(method="gptq", samples=16).rewrite(model, context(data=data))
    assert result.rewritten
    assert data.given == 2


def test_auto_takes_gptq_with_data_alone(samples: Any) -> None:
    for data, method in ((None, "mse"), (samples({"x": np.ones((9, 160), np.float32)}), "gptq")):
        model = build(ROWS, "y = MatMul (x, w)")
        result = QuantizeWeights().rewrite(model, context(data=data))
        assert result.details["method"] == method


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_layers_that_share_a_matrix_share_its_codes(target: str, run: Any, decibels: Any) -> None:
    model = build(ROWS, "a = MatMul (x, square)\n r = Relu (a)\n y = MatMul (r, square)")
    fed = feeds(model)
    (before,) = run(model, fed)
    result = QuantizeWeights(bits=8).rewrite(model, context(target))
    assert len(result.rewritten) == 2
    assert len(model.graph.initializers) == 3
    assert decibels(before, run(model, fed)[0]) > 36


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_subgraphs_are_reached(target: str, run: Any, decibels: Any) -> None:
    model = build(
        ROWS,
        "s = ReduceSum <keepdims = 0> (x)\n zero = Sub (s, s)\n c = Greater (s, zero)\n"
        "y = If (c) <then_branch = one () => (float[n,m] p) { p = MatMul (x, w) },\n"
        "else_branch = two () => (float[n,m] q) { k = Neg (x)\n q = MatMul (k, w) }>",
        opset=21,
    )
    fed = feeds(model)
    (before,) = run(model, fed)
    result = QuantizeWeights(bits=8).rewrite(model, context(target))
    assert len(result.rewritten) == 2
    assert decibels(before, run(model, fed)[0]) > 36


@pytest.mark.parametrize("opset", [9, 13, 21])
def test_the_opset_is_raised_only_where_blocks_need_it(opset: int) -> None:
    model = build(ROWS, "y = MatMul (x, w)", opset)
    QuantizeWeights().rewrite(model, context())
    assert model.opset_imports == {"": opset, "com.microsoft": 1}
    assert model.ir_version == 8
    model = build(ROWS, "y = MatMul (x, w)", opset)
    result = QuantizeWeights().rewrite(model, context("portable"))
    assert model.opset_imports == {"": 21}
    assert model.ir_version == 10
    assert result.details.get("opset") == (None if opset == 21 else [opset, 21])


REFUSALS = {
    "few": ("(float[n,16] x) => (float[n,m] y)", "y = MatMul (x, small)", "only 192 weights"),
    "a Conv": (
        "(float[n,40,9,9] x) => (float[n,64,p,q] y)", "y = Conv (x, conv)", "reads no weights",
    ),
    "NaN": (ROWS, "y = MatMul (x, nan)", "infinities or NaN"),
    "a stack": ("(float[4,n,160] x) => (float[4,n,m] y)", "y = MatMul (x, stack)", "a stack"),
    "half": ("(float16[n,160] x) => (float16[n,m] y)", "y = MatMul (x, half)", "float16"),
    "columns": ("(int64[n] i) => (float[p,q] y)", "y = Gather <axis = 1> (table, i)", "columns"),
    "a bias that is none": (
        "(float[7,160] x) => (float[7,m] y)", "y = Gemm (x, w, column)", "one number per output",
    ),
    "a bias that is computed": (
        "(float[7,160] x) => (float[7,m] y)",
        "s = ReduceSum <keepdims = 0> (x)\n y = Gemm (x, w, s)",
        "not constant",
    ),
    "transposed": (
        "(float[160,n] x) => (float[n,m] y)", "y = Gemm <transA = 1> (x, w)", "transposes",
    ),
    "read in float": (ROWS, "a = MatMul (x, w)\n y = Add (a, b)\n z = Relu (w)", "by Relu"),
    "read both ways": (
        ROWS,
        "a = MatMul (x, square)\n y = Gemm <transB = 1> (a, square)",
        "in another way",
    ),
    "an output": ("(float[n,160] x) => (float[n,m] y, float[160,112] w)", "y = MatMul (x, w)",
                  "output of the model"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_stays_in_float_has_a_reason(name: str) -> None:
    signature, body, reason = REFUSALS[name]
    model = build(signature, body, opset=13)
    before = str(model.graph)
    result = QuantizeWeights().rewrite(model, context())
    assert not result.modified
    assert str(model.graph) == before
    assert any(reason in said for said in result.declined.values()), result.declined


def test_what_is_not_wanted_stays() -> None:
    body = "a = MatMul (x, square)\n y = MatMul (a, w)"
    model = build(ROWS, body)
    result = QuantizeWeights(exclude=("a",)).rewrite(model, context())
    assert operators(model) == ["MatMul", "MatMulNBits"]
    assert list(result.declined.values()) == ["it is excluded"]
    model = build(ROWS, body)
    result = QuantizeWeights(include=("a",)).rewrite(model, context())
    assert operators(model) == ["MatMulNBits", "MatMul"]
    with pytest.raises(PassError, match="fits 'nothing'"):
        QuantizeWeights(exclude=("nothing",)).rewrite(model, context())


def test_tables_are_left_in_float_where_they_are_to_be() -> None:
    for options, target, reason in (
        ({"table_bits": 0}, "cpu", "stay in float"),
        ({"table_bits": 4}, "portable", "no Gather of 4-bit"),
    ):
        model = build(TOKENS, "y = Gather (table, i)")
        result = QuantizeWeights(**options).rewrite(model, context(target))  # type: ignore[arg-type]
        assert not result.modified or result.details["opset"]
        assert reason in next(iter(result.declined.values()))


def test_tables_of_4_bits(run: Any, decibels: Any) -> None:
    model = build(TOKENS, "y = Gather (table, i)")
    fed = feeds(model)
    (before,) = run(model, fed)
    QuantizeWeights(table_bits=4).rewrite(model, context())
    assert decibels(before, run(model, fed)[0]) > 16
    model = build(TOKENS, "y = Gather (odd, i)")
    result = QuantizeWeights(table_bits=4).rewrite(model, context())
    assert list(result.declined.values()) == ["its rows do not end with a whole byte"]


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 5}, {"table_bits": 2}, {"block": 24}, {"block": 8}, {"method": "nf4"},
        {"samples": -1},
    ],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        QuantizeWeights(**options)


def test_gptq_without_data_is_an_error() -> None:
    assert QuantizeWeights(method="gptq").requires_data()
    assert not QuantizeWeights().requires_data()
    with pytest.raises(PassError, match="needs calibration samples"):
        QuantizeWeights(method="gptq").rewrite(build(ROWS, "y = MatMul (x, w)"), context())


def test_a_constant_node_is_replaced_and_a_function_is_left(run: Any, decibels: Any) -> None:
    model = build(ROWS, "y = MatMul (x, w)")
    weight = model.graph.initializers.pop("w")
    node = ir.node("Constant", [], {"value": weight.const_value})
    node.outputs[0].name = "k"
    weight.replace_all_uses_with(node.outputs[0])
    model.graph.insert_before(model.graph[0], node)
    fed = feeds(model)
    (before,) = run(model, fed)
    QuantizeWeights(bits=8).rewrite(model, context())
    assert operators(model) == ["MatMulNBits"]
    assert decibels(before, run(model, fed)[0]) > 36
