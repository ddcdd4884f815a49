"""Two cuts along an axis are one, whatever the length of the axis."""

from __future__ import annotations

import itertools

from onnxpress.passes.lossless.cuts import Cut, after
from onnxpress.passes.lossless.movement import FURTHEST

NUMBERS = (-3, -1, 0, 1, 2, 4, FURTHEST)
CUTS = [
    Cut(0, start, stop, step)
    for start, stop, step in itertools.product((-FURTHEST, *NUMBERS), NUMBERS, (1, 2, -1))
]


def take(items: list[int], cut: Cut) -> list[int]:
    return items[cut.start : cut.stop : cut.step]


def test_one_cut_takes_what_two_take() -> None:
    axes = [list(range(size)) for size in range(9)]
    for first, second in itertools.product(CUTS, CUTS):
        both = after(first, second)
        if both is not None:
            for items in axes:
                assert take(items, both) == take(take(items, first), second), (first, second)


def test_what_is_one_whatever_the_length() -> None:
    def cut(start: int, stop: int = FURTHEST, step: int = 1) -> Cut:
        return Cut(0, start, stop, step)

    assert after(cut(2, 9), cut(1, 4)) == cut(3, 6)
    assert after(cut(1, -1), cut(2, -3)) == cut(3, -4)
    assert after(cut(-5), cut(-2)) == cut(-2)
    assert after(cut(0, -1), cut(-2)) == cut(-3, -1)
    assert after(cut(1, 8, 2), cut(1, 3, 2)) == cut(3, 7, 4)
    assert after(cut(2), cut(0, 3)) == cut(2, 5)


def test_what_depends_on_the_length() -> None:
    for first, second in [
        (Cut(0, -3, FURTHEST, 1), Cut(0, 1, FURTHEST, 1)),
        (Cut(0, 0, 5, 1), Cut(0, 0, -1, 1)),
        (Cut(0, 1, FURTHEST, 1), Cut(0, -2, FURTHEST, 1)),
        (Cut(0, 0, -1, 1), Cut(0, 0, 2, 1)),
        (Cut(0, 0, 5, -1), Cut(0, 0, 2, 1)),
    ]:
        assert after(first, second) is None
