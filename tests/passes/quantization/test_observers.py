"""Ranges of activations: the right numbers, streamed, and a clear word on bad samples."""

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Feeds
from onnxpress.backends.errors import DataError, UsageError
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.arithmetic import Range
from onnxpress.passes.quantization.observers import METHODS, Calibration, Observed, observe_ranges

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


class Endless:
    """Samples that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def batches(self, size: int) -> Iterator[Feeds]:
        rng = np.random.default_rng(0)
        for _ in range(0, self.count, size):
            yield {"x": rng.normal(size=(size, 4)).astype(np.float32)}


@pytest.mark.parametrize("method", METHODS)
def test_4096_samples_take_no_more_memory_than_64(method: str) -> None:
    peaks = []
    for count in (64, 64, 4096):  # the first pays for what is imported
        data, model = Endless(count), ir.from_onnx_text(MODEL)
        tracemalloc.start()
        seen = observe_ranges(model, ["x", "h"], Context(data=data), data, 0, Calibration(method))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seen.samples == count

    assert peaks[2] < 1.2 * peaks[1] + 50_000


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_within_what_was_seen(method: str) -> None:
    data, model = Endless(64), ir.from_onnx_text(MODEL)

    def ranges(how: str) -> dict[str, Range]:
        return observe_ranges(
            model, ["x", "h"], Context(data=data), data, 0, Calibration(how)
        ).ranges

    whole, cut = ranges("minmax"), ranges(method)

    assert cut == ranges(method)
    for name in ("x", "h"):
        assert min(whole[name].low, 0) <= cut[name].low <= cut[name].high <= whole[name].high
    assert method != "minmax" or cut == whole


def test_symmetric_ranges_reach_as_far_down_as_up(samples: type) -> None:
    data = samples({"x": np.array([[-1, 0, 2, 3]], np.float32)})
    model = ir.from_onnx_text(MODEL)

    found = observe_ranges(
        model, ["x", "h"], Context(data=data), data, 0, Calibration(symmetric=True)
    )

    assert found.ranges["x"] == Range(-3, 3)
    assert found.ranges["h"].low > 0


def test_ranges_are_read_from_a_file_that_fits(samples: type, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    model = ir.from_onnx_text(MODEL)

    def ranges(x: list[float], **options: Any) -> Range:
        data = samples({"x": np.array([x], np.float32)})
        how = Calibration(file=str(path), **options)
        return observe_ranges(model, ["x"], Context(data=data), data, 0, how).ranges["x"]

    assert ranges([1, 2, 3, 4]) == Range(1, 4)
    assert ranges([5, 5, 5, 5]) == Range(1, 4)
    assert ranges([5, 5, 5, 6], method="mse") != Range(1, 4)
    path.write_text("{}")
    with pytest.raises(DataError, match="holds no ranges"):
        ranges([1, 2, 3, 4])


@pytest.mark.parametrize("options", [{"method": "guess"}, {"percent": 10}, {"percent": 101}])
def test_bad_calibrations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Calibration(**options)
