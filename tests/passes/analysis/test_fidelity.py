"""Fidelity: each metric against its definition, merged over runs, and safe for any values."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.passes.analysis.fidelity import METRICS, Fidelity, scale_of

NAN, INF = math.nan, math.inf


def measure(a: Any, b: Any, dtype: Any = np.float32, floor: float = 0.0) -> Fidelity:
    fidelity = Fidelity()
    fidelity.update(np.array(a, dtype), np.array(b, dtype), floor=floor)
    return fidelity


def test_every_metric_is_what_its_name_says() -> None:
    a = np.random.default_rng(0).normal(size=(4, 10))
    b = a + np.random.default_rng(1).normal(0, 0.1, size=(4, 10))
    found = measure(a, b, np.float64)
    rms = np.sqrt(np.mean(a**2))
    assert found.max_abs == pytest.approx(np.abs(a - b).max())
    assert found.max_rel == pytest.approx((np.abs(a - b) / np.maximum(np.abs(a), rms)).max())
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.sum(a**2) / np.sum((a - b) ** 2)))
    assert found.cosine == pytest.approx(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.top1_agreement == np.mean(a.argmax(1) == b.argmax(1))
    assert set(METRICS) <= set(found.to_json())


TYPES = [np.float16, np.float64, np.complex64, np.int8, np.uint64, np.int64, np.bool_]
SMALL_TYPES = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]


@pytest.mark.parametrize("dtype", [*TYPES, *SMALL_TYPES])
def test_equal_answers_of_any_type_are_equal(dtype: Any) -> None:
    found = measure([[1, 0, 1]], [[1, 0, 1]], dtype)
    assert found.equal
    assert found.max_abs == found.max_rel == 0
    assert found.sqnr_db == INF
    assert found.cosine == pytest.approx(1)
    assert measure([[1, 0, 1]], [[1, 1, 1]], dtype).differing == 1


def test_values_that_are_not_finite_agree_where_they_are_the_same() -> None:
    same = measure([1, NAN, INF, -INF], [1, NAN, INF, -INF])
    assert same.equal
    assert same.misplaced == 0
    moved = measure([1, NAN, INF, -INF, 2], [NAN, 3, -INF, -INF, 2.5])
    assert (moved.misplaced, moved.differing) == (3, 4)
    assert moved.max_abs == 0.5
    json.dumps(moved.to_json(), allow_nan=False)


def test_a_reference_of_zero_has_no_ratio() -> None:
    found = measure([0, 0], [0, 1e-3])
    assert found.sqnr_db == -INF
    assert found.max_rel == INF
    assert found.cosine is None
    assert found.to_json()["sqnr_db"] is None
    assert found.to_json()["max_rel"] is None


def test_differences_of_integers_do_not_overflow() -> None:
    assert measure([-(2**63)], [2**63 - 1], np.int64).max_abs == 2.0**64
    assert measure([0], [2**64 - 1], np.uint64).max_abs == 2.0**64
    assert measure([2**62], [2**62 + 1], np.int64).max_abs == 1
    assert measure([0], [255], np.uint8).max_abs == 255


def test_texts_are_equal_or_not() -> None:
    found = measure(["a", "b"], ["a", "c"], object)
    assert (found.elements, found.differing, found.equal) == (2, 1, False)
    assert found.top1_agreement is None
    assert measure(["a"], ["a"], "U").equal


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), ()])
def test_empty_arrays_and_scalars_are_counted(shape: tuple[int, ...]) -> None:
    found = measure(np.zeros(shape), np.zeros(shape))
    assert found.equal
    assert found.elements == math.prod(shape)
    assert found.top1_agreement is None


def test_huge_values_do_not_overflow_into_warnings() -> None:
    found = measure([1e200, -1e300], [1e200, -2e300], np.float64)
    assert found.max_abs == 1e300
    assert found.max_rel == pytest.approx(1)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_floor_counts_for_nothing_but_the_largest_difference() -> None:
    found = measure([1e-9, 2e-9], [1e-7, 2e-9], np.float32, floor=1e-6)
    assert found.max_abs == pytest.approx(1e-7, rel=0.02)
    assert found.max_rel == 0
    assert found.sqnr_db == INF
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [(np.zeros(2), np.zeros(3), "shapes"), (np.zeros(1), np.array(["a"]), "cannot be compared")],
)
def test_what_cannot_be_compared_is_an_error(a: Any, b: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Fidelity().update(a, b)


FLOATS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([NAN, INF, -INF, 0.0])


@given(
    hnp.arrays(np.float32, (6, 3), elements=FLOATS),
    hnp.arrays(np.float32, (6, 3), elements=FLOATS),
    st.integers(0, 6),
)
def test_parts_that_are_merged_are_as_the_whole(a: Any, b: Any, cut: int) -> None:
    whole, left, right = Fidelity(), Fidelity(), Fidelity()
    for row in range(6):
        whole.update(a[row], b[row])
        (left if row < cut else right).update(a[row], b[row])
    left.merge(right)
    for name, value in vars(whole).items():
        assert getattr(left, name) == pytest.approx(value, nan_ok=True), name
    json.dumps(left.to_json(), allow_nan=False)


def test_large_arrays_are_taken_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    b = a + np.float32(0.01) * a[::-1]
    whole = measure(a, b).to_json()
    monkeypatch.setattr("onnxpress.passes.analysis.fidelity._CHUNK", 10)
    assert measure(a, b).to_json() == pytest.approx(whole)


def test_the_scale_of_an_element_is_that_of_its_surroundings() -> None:
    boxes, scores = np.full((1, 4, 80), 600.0), np.full((1, 4, 80), 1e-3)
    scale = scale_of(np.concatenate([boxes, scores], axis=1))
    assert scale[0, 0, 0] == pytest.approx(math.sqrt(600**2 / 2), rel=1e-3)
    assert scale[0, 5, 0] == pytest.approx(1e-3)
    few = scale_of(np.array([[600.0, 1e-3]]))
    assert few[0, 1] == pytest.approx(math.sqrt(600**2 / 2))
    assert scale_of(np.array([NAN, INF])).tolist() == [0, 0]
    assert scale_of(np.zeros(0)).shape == (0,)
