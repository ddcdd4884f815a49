"""int8 of real models: what is kept in the results, and how files are judged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import real_int8, store

TIMED = {"status": "measured", "speedup": 1.5, "ci95": [1.4, 1.6]}


def row(name: str, *_: Any) -> dict[str, Any]:
    if name == "broken":
        return {"error": "it broke"}
    record = {"status": "quarantined", "reason": "too noisy", "kernels": {}}
    return {
        "model": name, "size": 0.3, "sqnr_db": None, "cosine": 1.0, "top1": 100.0,
        "float": TIMED, "lossless": TIMED, "passes": {"insert-qdq": record},
    }  # fmt: skip


def test_rows_are_kept_as_they_come_and_so_are_those_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_int8, "row_apart", lambda _, name, *__, limit: row(name))

    real_int8.real_int8_suite("one,broken", results=tmp_path)
    real_int8.real_int8_suite("two", results=tmp_path)

    found = store.load("real-int8", tmp_path)["rows"]
    assert [one["model"] for one in found] == ["one", "broken", "two"]
    told = capsys.readouterr().err
    assert "broken: it broke" in told
    assert "one: insert-qdq quarantined too noisy" in told


def test_a_file_is_right_if_it_gets_the_class_of_its_extension() -> None:
    paths = [Path(name) for name in ("a.py", "b.py", "c.py", "a.gz", "d.py", "e.gz", "f.md")]
    python, gzip = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    calibrated = [python, python, gzip, gzip]

    right = real_int8._right(paths, 4, calibrated, [[python, gzip, python], [gzip, gzip, python]])

    assert right == pytest.approx([200 / 3, 100 / 3])
