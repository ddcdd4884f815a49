"""The arithmetic of 8 bits: what is promised of scales, zero points, pairs and biases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.passes.quantization.arithmetic import (
    QMAX,
    Range,
    affine,
    quantize_bias,
    quantize_weight,
)

FLOATS = st.floats(-1e6, 1e6, width=32)
SCALES = st.floats(2.0**-40, 2.0**20, width=32)
WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32),
)


@given(FLOATS, FLOATS)
def test_a_range_is_covered_and_zero_is_on_the_grid(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)

    grid = affine(Range(low, high))

    step = float(grid.scale)
    least, greatest = (step * (q - int(grid.zero_point)) for q in (0, QMAX))
    assert 0 <= int(grid.zero_point) <= QMAX
    assert least - step <= min(low, 0)
    assert greatest + step >= max(high, 0)
    assert step <= (max(high, 0) - min(low, 0)) / QMAX * (1 + 1e-6) or step < 1e-37


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(0, 6, 0), (2, 6, 0), (-6, 0, 255), (-6, -2, 255), (-1, 3, 64)]
)
def test_the_zero_point_of_known_ranges(low: float, high: float, zero_point: int) -> None:
    assert affine(Range(low, high)).zero_point == zero_point


def test_signed_grids_lie_128_below_unsigned_ones() -> None:
    unsigned, signed = affine(Range(-1, 3)), affine(Range(-1, 3), signed=True)

    assert (signed.scale, signed.zero_point) == (unsigned.scale, np.int8(64 - 128))
    assert signed.zero_point.dtype == np.int8


def test_ranges_join() -> None:
    assert Range().joined(-1, 2).joined(0, 3) == Range(-1, 3)
    assert Range().joined(np.inf, -np.inf).dead
    assert Range(0, 0).dead
    assert not Range(1, 1).dead


@given(WEIGHTS)
def test_a_weight_is_off_by_half_a_step_at_most(weight: np.ndarray) -> None:
    quantized = quantize_weight(weight, 0, input_scale=np.float32(1))

    steps = weight / quantized.scale.reshape(-1, 1).astype(np.float64)
    assert quantized.values.dtype == np.int8
    assert np.abs(steps - quantized.values).max() <= 0.5 + 1e-4
    assert quantized.values.min() >= -127


@given(WEIGHTS, SCALES, st.data())
def test_a_bias_fits_32_bits_on_exactly_the_scale_of_the_products(
    weight: np.ndarray, input_scale: float, data: st.DataObject
) -> None:
    bias = data.draw(hnp.arrays(np.float32, weight.shape[0], elements=FLOATS))
    scale = np.float32(input_scale)

    quantized = quantize_weight(weight, 0, bias=bias, input_scale=scale)
    values, bias_scale = quantize_bias(bias, scale, quantized.scale)

    assert values.dtype == np.int32
    np.testing.assert_array_equal(bias_scale, scale * quantized.scale)
    assert np.abs(values.astype(np.int64)).max() <= 2**30 + 2**8
    error = np.abs(values * bias_scale.astype(np.float64) - bias)
    assert (error <= bias_scale * 0.5000001 + 1e-30).all()


def test_the_scale_of_the_products_never_vanishes() -> None:
    weight, bias = np.array([[4e-41]], np.float32), np.zeros(1, np.float32)
    tiny = np.float32(1e-12)

    quantized = quantize_weight(weight, 0, bias=bias, input_scale=tiny)
    values, scale = quantize_bias(bias, tiny, quantized.scale)

    assert scale[0] >= np.finfo(np.float32).tiny
    assert values.tolist() == [0]


def test_a_channel_of_zeros_still_has_a_precise_bias() -> None:
    weight = np.array([[0, 0], [1, 1]], np.float32)
    bias = np.array([0.1, 0.1], np.float32)

    quantized = quantize_weight(weight, 0, bias=bias, input_scale=np.float32(0.5))
    values, scale = quantize_bias(bias, np.float32(0.5), quantized.scale)

    np.testing.assert_allclose(values[0] * np.float64(scale[0]), bias[0], rtol=1e-6)


def test_a_weight_without_channels_has_one_scale() -> None:
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    quantized = quantize_weight(weight, None, input_scale=np.float32(1))

    assert quantized.scale.shape == ()
    assert quantized.values.max() == 127


def test_nothing_but_zeros_has_the_scale_one() -> None:
    quantized = quantize_weight(np.zeros((2, 2), np.float32), 0, input_scale=np.float32(1))

    assert quantized.scale.tolist() == [1, 1]
    assert not quantized.values.any()
