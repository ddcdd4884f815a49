"""Samples and weights at the edge of what floats are: a right result or a clear word."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import DataError
from onnxpress.passes.base import Array, Context, Pass
from onnxpress.passes.quantization.correct_bias import CorrectBias
from onnxpress.passes.quantization.equalize import Equalize
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.observers import METHODS
from onnxpress.passes.quantization.refit import Refit

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,4,6,6] x) => (float[n,6,4,4] y) {
  h = Conv (x, w, b)
  k = Relu (h)
  y = Conv <pads = [1,1,1,1]> (k, v, c)
}
"""
SHAPES = {"w": (8, 4, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,)}


def build(**changed: float) -> ir.Model:
    """The model, some of its constants times a factor."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    for name, factor in changed.items():
        arrays[name] = arrays[name] * factor
    tensors = [ir.tensor(array.astype(np.float32), name=name) for name, array in arrays.items()]
    return ir.from_onnx_text(TEXT, tensors)


def images(count: int = 32) -> Array:
    return np.random.default_rng(1).normal(size=(count, 4, 6, 6)).astype(np.float32)


def passes(method: str = "minmax") -> list[Pass]:
    return [Equalize(), InsertQDQ(method=method, saturation="avoid"), Refit(), CorrectBias()]


def quantized(model: ir.Model, x: Array, samples: type, method: str = "minmax") -> ir.Model:
    context = Context(data=samples({"x": x}))
    for one in passes(method):
        one.rewrite(model, context)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_huge_and_tiny_activations(
    method: str, factor: float, samples: type, run_fused: Any, decibels: Any
) -> None:
    model, x = build(b=factor, c=factor), images() * np.float32(factor)
    (before,) = run_fused(model, {"x": x})

    after = run_fused(quantized(model, x, samples, method), {"x": x})[0]

    assert np.isfinite(after).all()
    scaled = before.astype(np.float64) / factor, after.astype(np.float64) / factor
    assert decibels(*scaled) > 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_activations(
    method: str, value: float, samples: type, run_fused: Any, decibels: Any
) -> None:
    model, x = build(), np.full((8, 4, 6, 6), value, np.float32)
    (before,) = run_fused(model, {"x": x})

    after = run_fused(quantized(model, x, samples, method), {"x": x})[0]

    assert decibels(before, after) > 25


@pytest.mark.parametrize("factor", [1e-38, 1e-20, 1e-8])
def test_tiny_weights_do_not_overflow_their_bias(
    factor: float, samples: type, run_fused: Any, decibels: Any
) -> None:
    model, x = build(w=factor), images()
    (before,) = run_fused(model, {"x": x})

    after = run_fused(quantized(model, x, samples), {"x": x})[0]

    assert decibels(before, after) > 25


def test_denormal_samples(samples: type, run_fused: Any, decibels: Any) -> None:
    model, x = build(), images() * np.float32(1e-42)
    (before,) = run_fused(model, {"x": x})

    after = run_fused(quantized(model, x, samples), {"x": x})[0]

    assert decibels(before, after) > 25


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_samples_that_are_no_numbers_are_named(bad: float, method: str, samples: type) -> None:
    x = images()
    x[3, 0, 0, 0] = bad

    with pytest.raises(DataError, match="infinite or NaN within samples 0 to 7"):
        quantized(build(), x, samples, method)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": images()}, "nothing for the model's input 'x'"),
        ({"x": images()[:0]}, "no calibration sample"),
    ],
)
def test_wrong_or_no_samples(arrays: dict[str, Array], message: str, samples: type) -> None:
    with pytest.raises(DataError, match=message):
        InsertQDQ().rewrite(build(), Context(data=samples(arrays)))


def test_other_samples_than_were_calibrated_on_only_clip(
    samples: type, run_fused: Any, decibels: Any
) -> None:
    model, x = build(), images(64)
    (before,) = run_fused(model, {"x": x})

    after = run_fused(quantized(model, x[:2], samples), {"x": x})[0]

    assert decibels(before, after) > 15
