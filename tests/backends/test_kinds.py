"""Kinds of values: text in both directions, and arrays that are what the text says."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.backends.errors import UsageError
from onnxpress.backends.kinds import Kind, Size, parse_kind


def draw(text: str, dtype: Any = np.float32, shape: tuple[int, ...] = (40, 50), **more: Any) -> Any:
    return parse_kind(text).draw("x", np.dtype(dtype), shape, **more)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("normal", Kind("normal")),
        (" uniform( -1 , 2.5 ) ", Kind("uniform", (-1, 2.5))),
        ("mask()", Kind("mask")),
        ("integers(0, p2o.Dim.0)", Kind("integers", (0, Size("p2o.Dim.0")))),
        ('choice("a, b", "say \\"x\\"", 7)', Kind("choice", ("a, b", 'say "x"', 7))),
    ],
)
def test_text_is_read_and_written_back(text: str, kind: Kind) -> None:
    assert parse_kind(text) == kind
    assert parse_kind(str(kind)) == kind


@given(
    st.lists(
        st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        min_size=1,
        max_size=5,
    )
)
def test_every_argument_survives_its_text(arguments: list[Any]) -> None:
    kind = Kind("choice", tuple(arguments))
    assert parse_kind(str(kind)) == kind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gauss", "no kind of values 'gauss'"),
        ("uniform(1)", "takes 0 or 2 arguments, not 1"),
        ("choice()", "at least one"),
        ("uniform(1,,2)", "cannot read ',2'"),
        ("uniform(1", "is no kind of values"),
        ("", "is no kind of values"),
    ],
)
def test_what_is_no_kind_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason.replace("(", r"\(")):
        parse_kind(text)


def test_floats_have_the_distribution_that_they_are_asked_for() -> None:
    assert abs(draw("normal(3,0.5)").mean() - 3) < 0.1
    assert abs(draw("normal(3,0.5)").std() - 0.5) < 0.05
    low_high = draw("uniform(-2,-1)")
    assert low_high.min() >= -2
    assert low_high.max() <= -1
    rare = draw("outliers")
    assert np.count_nonzero(rare == 0) in range(10, 60)
    assert np.abs(rare).max() > 0.8


def test_floats_change_their_kind_from_case_to_case() -> None:
    by_case = [draw("floats", case=case) for case in range(4)]
    assert by_case[0].min() < 0
    assert by_case[1].min() >= 0
    assert np.count_nonzero(by_case[2] == 0) > 10
    assert by_case[3].min() < 0
    assert not np.array_equal(by_case[0], by_case[3])


def test_integers_leave_the_upper_bound_out() -> None:
    values = draw("integers(-2,3)", np.int64)
    assert sorted(np.unique(values)) == [-2, -1, 0, 1, 2]


def test_sizes_stand_for_dimensions() -> None:
    assert draw("integers(0,T)", np.int64, sizes={"T": 2}).max() == 1
    lengths = draw("lengths(T)", np.int32, (64,), sizes={"T": 5})
    assert lengths[0] == 5
    assert set(lengths) <= {1, 2, 3, 4, 5}
    with pytest.raises(UsageError, match="no size is known for the dimension 'T'"):
        draw("lengths(T)")


def test_a_mask_is_ones_and_then_a_tail_of_zeros() -> None:
    mask = draw("mask", np.int64, (30, 8))
    assert mask[0].tolist() == [1] * 8
    assert np.all(np.diff(mask, axis=1) <= 0)
    assert mask.sum(axis=1).min() >= 4
    assert mask.min() == 0
    assert draw("mask", np.bool_, ()).tolist() is True


def test_a_single_choice_goes_by_turn_and_many_are_drawn() -> None:
    one = [int(draw("choice(16000,8000)", np.int64, (), turn=turn)) for turn in range(3)]
    assert one == [16000, 8000, 16000]
    assert set(draw('choice("a","b")', object, (50,))) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("constant(2)", np.float16, [[2, 2]]),
        ("constant(1.6)", np.int32, [[2, 2]]),
        ("zeros", np.bool_, [[False, False]]),
        ("ones", ml_dtypes.bfloat16, [[1, 1]]),
        ("positions", np.int64, [[0, 1]]),
        ("constant(9223372036854775807)", np.int64, [[2**63 - 1] * 2]),
        ("constant(3)", object, [["3", "3"]]),
        ("ones", np.complex64, [[1, 1]]),
    ],
)
def test_values_come_in_the_type_of_the_input(text: str, dtype: Any, expected: Any) -> None:
    values = draw(text, dtype, (1, 2))
    assert values.dtype == np.dtype(dtype)
    assert values.tolist() == expected


@pytest.mark.parametrize("text", ["normal", "mask", "positions", "integers(0,9)", "lengths(3)"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 4)])
def test_any_shape_can_be_asked_for(text: str, shape: tuple[int, ...]) -> None:
    for dtype in (np.int64, np.float16, np.bool_):
        values = draw(text, dtype, shape)
        assert isinstance(values, np.ndarray)
        assert (values.dtype, values.shape) == (dtype, shape)


def test_words_are_texts_and_truth_values_both_occur() -> None:
    assert all(isinstance(word, str) for word in draw("words", object, (9,)))
    assert set(draw("bools", np.bool_, (50,)).tolist()) == {True, False}


def test_the_same_seed_gives_the_same_values_and_each_name_its_own() -> None:
    kind, dtype = Kind("normal"), np.dtype(np.float32)
    one = kind.draw("a", dtype, (5,), seed=1)
    assert np.array_equal(one, kind.draw("a", dtype, (5,), seed=1))
    for other in (
        kind.draw("b", dtype, (5,), seed=1),
        kind.draw("a", dtype, (5,), seed=2),
        kind.draw("a", dtype, (5,), seed=1, case=1),
    ):
        assert not np.array_equal(one, other)


def test_what_cannot_be_drawn_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="gives no int64 values for 'x'"):
        draw("integers(5,5)", np.int64)
    with pytest.raises(UsageError, match="gives no float32 values"):
        draw('constant("a")', np.float32)
