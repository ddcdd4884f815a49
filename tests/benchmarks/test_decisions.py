"""Rendered lines, synthetic speech, and how answers to them become decisions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import decisions


def test_repeats_and_blanks_are_left_out() -> None:
    alphabet = ["", "a", "b", " "]
    best = [0, 1, 1, 0, 1, 2, 2, 3, 0, 2]
    scores = np.eye(4, dtype=np.float32)[best]
    assert decisions.decoded(scores, alphabet) == "aab b"
    assert decisions.decoded(scores[:1], alphabet) == ""


def test_lines_are_the_same_every_time_and_all_different() -> None:
    assert decisions.texts() == decisions.texts()
    assert len(set(decisions.texts())) == decisions.LINES == 100
    assert all(any(sign.isdigit() for sign in text) for text in decisions.texts())


def test_a_line_is_rendered_dark_on_light() -> None:
    pytest.importorskip("PIL")
    if not (fonts := decisions.fonts()):
        pytest.skip("there are no fonts")
    image = decisions.rendered("water 12", fonts[0], 0)
    again = decisions.rendered("water 12", fonts[0], 0)
    longer = decisions.rendered("water 12 and more", fonts[0], 0)
    assert image.shape[:3] == (1, 3, 48)
    assert image.dtype == np.float32
    assert np.array_equal(image, again)
    assert longer.shape[3] > image.shape[3]
    assert image.min() < -0.3 < 0.3 < image.mean() < image.max() <= 1.0


def test_windows_overlap_by_their_context() -> None:
    sound = np.arange(512 * 3 + 100, dtype=np.float32)
    rows = decisions.windows(sound)
    assert rows.shape == (3, 576)
    assert rows[0, :64].tolist() == [0.0] * 64
    assert np.array_equal(rows[1, :64], rows[0, -64:])
    assert np.array_equal(rows[:, 64:].ravel(), sound[: 512 * 3])
