"""Rendered lines: the same every time, no two the same size, calibration apart from test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import text_lines
from benchmarks.corpus import CorpusError


@pytest.fixture(scope="module")
def lines() -> tuple[text_lines.Line, ...]:
    try:
        return text_lines.lines()
    except CorpusError as error:
        pytest.skip(error.message)


def test_there_are_64_lines_to_calibrate_and_200_to_test(
    lines: tuple[text_lines.Line, ...],
) -> None:
    assert len(lines) == 264
    calibration = text_lines.calibration().lines
    assert len(calibration) == 64
    assert not {line.text for line in calibration} & {line.text for line in lines[64:]}
    chinese = [line for line in lines if any(sign > "\u3000" for sign in line.text)]
    assert len(chinese) == 132


def test_lines_are_images_as_the_recognizer_takes_them(
    lines: tuple[text_lines.Line, ...],
) -> None:
    assert all(line.image.shape[:3] == (1, 3, 48) for line in lines)
    assert all(line.image.dtype == np.float32 for line in lines)
    assert all(-1 <= line.image.min() < line.image.max() <= 1 for line in lines)
    assert len({line.image.shape[3] for line in lines}) > 100


def test_a_line_follows_from_its_seed(lines: tuple[text_lines.Line, ...]) -> None:
    del lines
    font = text_lines.chinese_fonts()[0]
    first, again, other = (text_lines.rendered("北京 12", font, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_blanks_do_not_count() -> None:
    chosen = [text_lines.Line(text, np.zeros((1, 3, 48, 16), np.float32)) for text in ("a b", "c")]
    assert text_lines.exact(["ab", "d"], chosen) == 50


def test_calibration_lines_are_written_one_by_one(
    lines: tuple[text_lines.Line, ...], tmp_path: Path
) -> None:
    text_lines.text_lines_suite(tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 64
    with np.load(tmp_path / "007.npz") as written:
        assert np.array_equal(written["x"], lines[7].image)
