"""Robust grids: a smaller error in the measure that they are for, and nothing breaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxpress.passes.base import Array
from onnxpress.passes.quantization.blocks import fit
from onnxpress.passes.quantization.half_quadratic import POWER, fit_robust

MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 70)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


@settings(max_examples=60)
@given(MATRICES, st.sampled_from([4, 8]), st.booleans())
def test_codes_and_scales_are_sound(rows: Array, bits: int, symmetric: bool) -> None:
    grid = fit_robust(rows, bits, 16, symmetric=symmetric)
    codes = grid.encode(rows)
    assert codes.max(initial=0) <= 2**bits - 1
    assert np.isfinite(grid.decode(codes, rows.shape[1])).all()
    assert np.isfinite(grid.scales).all()
    assert (grid.scales != 0).all()
    assert grid.scales.shape == (len(rows), -(-rows.shape[1] // 16))
    if symmetric:
        assert (grid.zeros == 2 ** (bits - 1)).all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_most_weights_are_nearer_than_by_rounding(bits: int, symmetric: bool) -> None:
    rows = np.random.default_rng(0).standard_t(3, size=(40, 256)).astype(np.float32)
    errors = []
    for grid in (
        fit(rows, bits, 32, symmetric=symmetric, search=False),
        fit_robust(rows, bits, 32, symmetric=symmetric),
    ):
        off = np.abs(rows - grid.decode(grid.encode(rows), 256))
        errors.append((off**POWER).sum())
    assert errors[1] < (0.98 if bits == 4 else 1) * errors[0]


@pytest.mark.parametrize("symmetric", [False, True])
def test_zeros_and_constants_are_exact(symmetric: bool) -> None:
    rows = np.array([[0.0] * 16, [3.0] * 16, [-2.0] * 16, [0.0, 8.0] * 8], np.float32)
    grid = fit_robust(rows, 4, 16, symmetric=symmetric)
    assert np.allclose(grid.decode(grid.encode(rows), 16), rows, rtol=1e-6)
