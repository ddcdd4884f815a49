"""Scaling by activations: answers stay, factors go into what is there, errors get smaller."""

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import PassError
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.activation_scales import scale_by_activations
from onnxpress.passes.quantization.blocks import fit
from onnxpress.passes.quantization.weight_layers import find_layers
from onnxpress.passes.quantization.weight_only import QuantizeWeights

SHAPES = {
    "w": (128, 128), "v": (128, 128), "u": (128, 128), "t": (128, 128), "b": (128,), "g": (128,),
    "s": (128,), "deep": (2, 128, 128),
}  # fmt: skip
STEPS = "(float[n,k,128] x) => (float[n,k,m] y)"
NORMAL = "z = LayerNormalization <axis = -1> (x, g, s)"
TWO = f"{NORMAL}\n l = MatMul (z, w)\n r = MatMul (z, v)\n y = Add (l, r)"
SHARED = f"{NORMAL}\n l = MatMul (z, w)\n y = Add (l, z)"
BIAS = "h = MatMul (x, t)\n z = Add (h, g)\n y = MatMul (z, w)"
GATED = "h = MatMul (x, t)\n k = Sigmoid (x)\n z = Mul (k, h)\n y = Gemm (z, w, b)"
ATTENTION = """
  q = MatMul (x, u)
  h = MatMul (x, t)
  k = Add (h, g)
  z = Attention <q_num_heads = 4, kv_num_heads = 4> (q, q, k)
  y = MatMul (z, w)
"""
INPUT = "y = MatMul (x, w)"


def uneven(size: int = 128) -> Array:
    return np.exp(1.5 * np.random.default_rng(7).normal(size=size)).astype(np.float32)


def build(body: str, signature: str = STEPS) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()
    }
    arrays["t"] = arrays["t"] * uneven() / 11
    arrays["g"], arrays["s"] = arrays["g"] * uneven(), arrays["s"] * uneven()
    if "Gemm" in body:
        signature = "(float[n,128] x) => (float[n,m] y)"
    opset = 23 if "Attention" in body else 17
    text = f'<ir_version: 10, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    used = set(re.findall(r"\w+", body)) & arrays.keys()
    tensors = [ir.tensor(arrays[name], name=name) for name in sorted(used)]
    return ir.from_onnx_text(text, initializers=tensors)


def sample(body: str, seed: int = 1) -> dict[str, Array]:
    shape = (48, 128) if "Gemm" in body else (8, 6, 128)
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return {"x": x * uneven() if body is INPUT else x}


def scale(model: ir.Model, data: Any) -> Any:
    def rounded(rows: Array) -> Array:
        grid = fit(rows, 4, 32, symmetric=False, search=False)
        return grid.decode(grid.encode(rows), rows.shape[1])

    layers = [one for one in find_layers(model, lambda node: "", contrib=True).found
              if (one.node.inputs[0] or one.weight).name in {"x", "z"}
              and one.weight.name in {"w", "v"}]  # fmt: skip
    return scale_by_activations(model, layers, rounded, Context(data=data), 0)


@pytest.mark.parametrize("body", [TWO, BIAS, GATED, ATTENTION])
def test_factors_go_into_what_computes_the_tensor(body: str, samples: type, run: Any) -> None:
    model = build(body)
    before = run(model, sample(body, 2))
    operators = [node.op_type for node in model.graph]

    scaled = scale(model, samples(sample(body)))

    assert (scaled.migrated, scaled.multiplied) == (1, 0)
    assert [node.op_type for node in model.graph] == operators
    np.testing.assert_allclose(run(model, sample(body, 2))[0], before[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("body", [SHARED, INPUT])
def test_else_a_product_divides_for_the_layers_alone(body: str, samples: type, run: Any) -> None:
    model = build(body)
    before = run(model, sample(body, 2))

    scaled = scale(model, samples(sample(body)))

    assert (scaled.migrated, scaled.multiplied) == (0, 1)
    assert [node.op_type for node in model.graph].count("Mul") == 1
    np.testing.assert_allclose(run(model, sample(body, 2))[0], before[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("body", [TWO, SHARED, BIAS, GATED, ATTENTION, INPUT])
def test_answers_are_nearer_than_by_rounding(
    body: str, target: str, samples: type, run_fused: Any, decibels: Any
) -> None:
    found = []
    for method in ("rtn", "mse", "awq"):
        model = build(body)
        (before,) = run_fused(model, sample(body, 2))
        context = Context(target=Target(target), data=samples(sample(body)))  # type: ignore[arg-type]
        others = tuple(name for name in ("q", "h") if f"{name} =" in body)
        result = QuantizeWeights(method=method, exclude=others).rewrite(model, context)
        found.append(decibels(before, run_fused(model, sample(body, 2))[0]))
        assert result.details["method"] == method
    assert found[2] > found[0] + 0.5
    assert found[2] > found[1]


def test_even_inputs_stay_as_they_are(samples: type) -> None:
    model = build(INPUT)
    text = ir.to_onnx_text(model)
    x = np.random.default_rng(1).choice(np.array([-1, 1], np.float32), size=(8, 6, 128))

    scaled = scale(model, samples({"x": x}))

    assert (scaled.migrated, scaled.multiplied) == (0, 0)
    assert ir.to_onnx_text(model) == text


@pytest.mark.parametrize(
    "body",
    [
        "l = MatMul (x, w)\n r = MatMul (l, w)\n y = Add (l, r)",
        f"{NORMAL}\n y = MatMul (z, deep)",
    ],
    ids=["weights read twice", "a stack"],
)
def test_what_cannot_be_scaled_is_left(body: str, samples: type) -> None:
    model = build(body)
    x = sample(body)["x"] * uneven()

    scaled = scale(model, samples({"x": x}))

    assert (scaled.migrated, scaled.multiplied) == (0, 0)


def test_inputs_that_are_zero_do_no_harm(samples: type, run: Any) -> None:
    model = build(INPUT)
    x = sample(INPUT)["x"]
    x[..., ::2] = 0
    before = run(model, sample(INPUT, 2))

    scale(model, samples({"x": x}))
    np.testing.assert_allclose(run(model, sample(INPUT, 2))[0], before[0], rtol=1e-4, atol=1e-3)
    nothing = scale(build(INPUT), samples({"x": np.zeros_like(x)}))
    assert (nothing.migrated, nothing.multiplied) == (0, 0)


def test_awq_needs_samples() -> None:
    assert QuantizeWeights(method="awq").requires_data()
    with pytest.raises(PassError, match="awq needs calibration samples"):
        QuantizeWeights(method="awq").rewrite(build(INPUT), Context())
