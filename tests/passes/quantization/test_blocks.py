"""Blocks of few bits: zeros stay zero, extremes fit, errors stay within half a step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxpress.passes.base import Array
from onnxpress.passes.quantization.blocks import fit, packed
from onnxpress.passes.quantization.gptq import compensated

MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 70)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


@settings(max_examples=60)
@given(MATRICES, st.sampled_from([4, 8]), st.booleans(), st.booleans())
def test_every_weight_is_within_a_step(
    rows: Array, bits: int, symmetric: bool, search: bool
) -> None:
    grid = fit(rows, bits, 16, symmetric=symmetric, search=search)
    codes = grid.encode(rows)
    assert codes.max(initial=0) <= 2**bits - 1
    near = grid.decode(codes, rows.shape[1])
    assert np.isfinite(near).all()
    assert np.isfinite(grid.scales).all()
    assert (grid.scales != 0).all()
    if not search:
        blocks = -(-rows.shape[1] // 16)
        step = np.repeat(np.abs(grid.scales), 16, axis=1)[:, : rows.shape[1]]
        assert grid.scales.shape == (len(rows), blocks)
        # A symmetric grid has no counterpart to its lowest code.
        most = 1.01 if symmetric else 0.51
        assert (np.abs(rows - near) <= most * step + np.abs(rows) * 1e-5).all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("search", [False, True])
def test_zeros_and_constants_are_exact(symmetric: bool, search: bool) -> None:
    rows = np.array([[0.0] * 16, [3.0] * 16, [-2.0] * 16, [0.0, 8.0] * 8], np.float32)
    grid = fit(rows, 4, 16, symmetric=symmetric, search=search)
    assert np.allclose(grid.decode(grid.encode(rows), 16), rows, rtol=1e-6)


def test_the_search_is_never_worse_than_rounding() -> None:
    rows = np.random.default_rng(0).standard_t(3, size=(40, 256)).astype(np.float32)
    for symmetric in (False, True):
        errors = []
        for search in (False, True):
            grid = fit(rows, 4, 32, symmetric=symmetric, search=search)
            errors.append(((rows - grid.decode(grid.encode(rows), 256)) ** 2).sum())
        assert errors[1] < 0.95 * errors[0]


def test_importance_moves_the_error_to_where_it_weighs_less() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    importance = np.ones(64, np.float32)
    importance[5] = 1000

    def error(importance: Array | None) -> float:
        grid = fit(rows, 4, 32, symmetric=False, search=True, importance=importance)
        return float(np.square(rows - grid.decode(grid.encode(rows), 64))[:, 5].sum())

    assert error(importance) < 0.5 * error(None)


def test_two_codes_lie_in_a_byte_the_first_one_low() -> None:
    codes = np.array([[1, 2, 3]], np.uint8)
    assert packed(codes, 4).tolist() == [[0x21, 0x03]]
    assert packed(codes, 8).tolist() == [[1, 2, 3]]


def test_later_columns_make_up_for_earlier_ones() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 200)).astype(np.float32)
    inputs = rng.normal(size=(300, 30)) @ rng.normal(size=(30, 200))
    gram = inputs.T @ inputs
    grid = fit(rows, 4, 32, symmetric=False, search=True)

    def error(codes: Array) -> float:
        difference = rows - grid.decode(codes, 200)
        return float(((difference @ inputs.T) ** 2).sum())

    assert error(compensated(rows, gram, grid)) < 0.2 * error(grid.encode(rows))


def test_useless_statistics_change_nothing() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    grid = fit(rows, 4, 32, symmetric=False, search=False)
    for gram in (np.zeros((32, 32)), np.full((32, 32), np.nan)):
        assert np.array_equal(compensated(rows, gram, grid), grid.encode(rows))
    # One column that is never fed: it may be rounded to anything near.
    gram = np.eye(32)
    gram[3, 3] = 0
    assert np.array_equal(compensated(rows, gram, grid), grid.encode(rows))
