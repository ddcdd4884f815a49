"""Sensitivity: the layer that hurts comes first, the number is that of quantizing it alone."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.sensitivity import sensitivities

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,16] x) => (float[n,9] y) {
  h = MatMul (x, m)
  a = Add (h, b)
  k = Relu (a)
  y = MatMul (k, q)
}
"""


@pytest.fixture
def model() -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {
        "m": rng.normal(size=(16, 12)),
        "b": rng.normal(size=12),
        "q": rng.normal(size=(12, 9)),
    }
    arrays["m"][0] *= 40  # the others become a few steps each
    tensors = [ir.tensor(array.astype(np.float32), name=name) for name, array in arrays.items()]
    return ir.from_onnx_text(TEXT, tensors)


def sample(count: int) -> Array:
    return np.random.default_rng(1).normal(size=(count, 16)).astype(np.float32)


def test_each_layer_is_measured_as_if_it_alone_were_quantized(
    model: ir.Model, samples: type, run: Any, decibels: Any
) -> None:
    x, original = {"x": sample(40)}, model.clone()
    context = Context(data=samples(x))
    InsertQDQ(saturation="ignore").rewrite(model, context)
    text = ir.to_onnx_text(model)

    found = sensitivities(model, context, samples(x), 0)

    assert ir.to_onnx_text(model) == text
    assert [one.layer for one in found] == ["h", "y"]
    assert found[0].sqnr_db < found[1].sqnr_db
    alone = original.clone()
    InsertQDQ(saturation="ignore", exclude=("y",)).rewrite(alone, context)
    expected = decibels(run(original, x)[0], run(alone, x)[0])
    assert found[0].sqnr_db == pytest.approx(expected, abs=1.0)


def test_a_float_model_has_nothing_to_weigh(model: ir.Model, samples: type) -> None:
    data = samples({"x": sample(4)})

    assert sensitivities(model, Context(data=data), data) == []
