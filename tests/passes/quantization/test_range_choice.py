"""Cut ranges: where each method cuts distributions whose answer is known."""

import numpy as np
import pytest

from onnxpress.passes.base import Array
from onnxpress.passes.quantization.arithmetic import Range, affine
from onnxpress.passes.quantization.range_choice import (
    BINS,
    Histogram,
    least_divergence,
    least_error,
    percentile,
)


def histogram(x: Array) -> Histogram:
    counts, _ = np.histogram(x, BINS, (x.min(), x.max()))
    return Histogram(Range(float(x.min()), float(x.max())), counts, int((x == 0).sum()))


def noise(x: Array, seen: Range) -> float:
    grid = affine(seen)
    steps = np.clip(np.rint(x / grid.scale) + int(grid.zero_point), 0, 255)
    return float(((steps - int(grid.zero_point)) * grid.scale - x).var())


@pytest.fixture
def tailed() -> Array:
    x = np.random.default_rng(0).normal(size=50_000)
    x[:5] = [40, -30, 50, 60, -40]
    return x


def test_a_uniform_distribution_is_kept_whole() -> None:
    x = np.random.default_rng(0).uniform(-1, 3, 50_000)

    for cut in (least_error(histogram(x)), least_divergence(histogram(x))):
        assert cut.low == pytest.approx(-1, abs=0.05)
        assert cut.high == pytest.approx(3, abs=0.12)


def test_outliers_are_cut_off_where_that_makes_less_noise(tailed: Array) -> None:
    whole = Range(float(tailed.min()), float(tailed.max()))

    cut = least_error(histogram(tailed))

    assert noise(tailed, cut) <= noise(tailed, whole)
    assert least_divergence(histogram(tailed)).high < 20


def test_percentiles_leave_out_so_many_at_either_end(tailed: Array) -> None:
    cut = percentile(histogram(tailed), 99.0)

    assert cut.low == pytest.approx(np.percentile(tailed, 0.5), abs=0.1)
    assert cut.high == pytest.approx(np.percentile(tailed, 99.5), abs=0.1)
    assert percentile(histogram(tailed), 100) == Range(tailed.min(), tailed.max())


def test_what_is_mostly_zero_keeps_its_largest_values() -> None:
    x = np.zeros(10_000)
    x[:100] = np.linspace(1, 10, 100)

    assert least_error(histogram(x)).high > 9
    assert percentile(histogram(x), 60) != Range(0, 0)


def test_one_sided_ranges_reach_to_zero() -> None:
    x = np.random.default_rng(0).uniform(5, 6, 1000)

    assert least_error(histogram(x)).low == 0
    assert least_divergence(histogram(x)).low == 0
