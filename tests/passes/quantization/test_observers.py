"""Ranges of activations: the right numbers, streamed, and a clear word on bad samples."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import DataError
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.arithmetic import Range
from onnxpress.passes.quantization.observers import Observed, observe_ranges

MODEL = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,4] x) => (float[n,4] y) {
  h = Exp (x)
  y = Relu (h)
}
"""


def observe(samples: type, text: str = MODEL, **arrays: Array) -> Observed:
    data = samples(arrays)
    model = ir.from_onnx_text(text)
    return observe_ranges(model, ["x", "h"], Context(data=data), data, 0)


def test_the_ranges_are_those_of_all_samples(samples: type) -> None:
    x = np.random.default_rng(0).normal(size=(29, 4)).astype(np.float32)

    seen = observe(samples, x=x)

    assert seen.samples == 29
    assert seen.ranges["x"] == Range(float(x.min()), float(x.max()))
    h = np.exp(x)
    np.testing.assert_allclose(
        [seen.ranges["h"].low, seen.ranges["h"].high], [h.min(), h.max()], rtol=1e-6
    )


def test_samples_are_read_a_few_at_a_time_and_no_more_than_asked(samples: type) -> None:
    x = np.zeros((1000, 4), np.float32)
    x[40:] = 9
    data = samples({"x": x})

    seen = observe_ranges(ir.from_onnx_text(MODEL), ["x"], Context(data=data), data, 40)

    assert data.asked == [8]
    assert data.given == 5
    assert seen.ranges["x"] == Range(0, 0)


def test_the_model_is_left_as_it_is(samples: type) -> None:
    model = ir.from_onnx_text(MODEL)
    before = ir.to_onnx_text(model)
    data = samples({"x": np.zeros((1, 4), np.float32)})

    observe_ranges(model, ["x", "h"], Context(data=data), data, 0)

    assert ir.to_onnx_text(model) == before


def test_a_fixed_batch_gets_whole_batches(samples: type) -> None:
    seen = observe(samples, MODEL.replace("[n,4]", "[3,4]"), x=np.ones((8, 4), np.float32))

    assert seen.samples == 6


def test_a_negative_dimension_means_unknown(samples: type) -> None:
    model = ir.from_onnx_text(MODEL)
    model.graph.inputs[0].shape = ir.Shape([-1, 4])
    data = samples({"x": np.ones((2, 4), np.float32)})

    assert observe_ranges(model, ["x"], Context(data=data), data, 0).samples == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named(samples: type, bad: float) -> None:
    x = np.zeros((20, 4), np.float32)
    x[13, 2] = bad

    with pytest.raises(DataError, match=re.escape("'x' becomes infinite or NaN within samples 8 ")):
        observe(samples, x=x)


def test_an_activation_that_overflows_is_named(samples: type) -> None:
    with pytest.raises(DataError, match="'h' becomes infinite or NaN within samples 0 to 1"):
        observe(samples, x=np.full((2, 4), 100, np.float32))


def test_a_tensor_that_is_always_empty_has_an_empty_range(samples: type) -> None:
    text = MODEL.replace("[n,4]", "[n,c]")

    assert observe(samples, text, x=np.zeros((2, 0), np.float32)).ranges["h"].dead


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((1, 4), np.float32)}, "nothing for the model's input 'x'"),
        ({"x": np.zeros((0, 4), np.float32)}, "no calibration sample"),
    ],
)
def test_samples_that_do_not_fit(samples: type, arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        observe(samples, MODEL, **arrays)


def test_samples_may_hold_more_than_the_model_reads(samples: type) -> None:
    x = np.ones((2, 4), np.float32)

    assert observe(samples, x=x, labels=np.zeros(2, np.int64)).ranges["x"] == Range(1, 1)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []

    class Ones:
        def batches(self, size: int):  # type: ignore[no-untyped-def]
            yield from ({"x": np.ones((size, 4), np.float32)} for _ in range(3))

    data = Ones()
    context = Context(data=data, progress=lambda *step: told.append(step))

    observe_ranges(ir.from_onnx_text(MODEL), ["x"], context, data, 16)

    assert told == [("calibrate", 8, 16), ("calibrate", 16, 16)]
