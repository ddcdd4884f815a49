"""CorrectBias: results are right in the mean, and nothing but biases changes."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.passes.base import Context
from onnxpress.passes.quantization.correct_bias import CorrectBias
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.quantized import quantized_layers

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,4,8,8] x) => (float[n,6,4,4] y) {
  h = Conv (x, w, b)
  k = Relu (h)
  y = Conv (k, v, c)
}
"""
SHAPES = {"w": (8, 4, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,)}


@pytest.fixture
def model() -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return ir.from_onnx_text(TEXT, [ir.tensor(array, name=name) for name, array in arrays.items()])


@pytest.mark.parametrize("method", ["empirical", "analytic"])
def test_the_mean_error_goes(method: str, model: ir.Model, samples: type, run_fused: Any) -> None:
    rng = np.random.default_rng(1)
    x = {"x": (rng.normal(size=(128, 4, 8, 8)) + 3).astype(np.float32)}
    (before,) = run_fused(model, x)
    context = Context(data=samples(x))
    InsertQDQ(saturation="avoid").rewrite(model, context)
    off = np.abs((run_fused(model, x)[0] - before).mean(axis=(0, 2, 3))).sum()
    stored = [layer.integers for layer in quantized_layers(model.graph)[0]]

    result = CorrectBias(method=method).rewrite(model, context)

    assert len(result.rewritten) == 2
    now = np.abs((run_fused(model, x)[0] - before).mean(axis=(0, 2, 3))).sum()
    assert now < (0.2 if method == "empirical" else 0.7) * off
    for layer, integers in zip(quantized_layers(model.graph)[0], stored, strict=True):
        np.testing.assert_array_equal(layer.integers, integers)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no method 'guess'"):
        CorrectBias(method="guess")
    with pytest.raises(UsageError, match="-1 samples"):
        CorrectBias(samples=-1)
