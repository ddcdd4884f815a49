"""Two result files are compared row by row, with their intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import differences, store
from benchmarks.__main__ import main


def row(model: str, speedup: float, **more: Any) -> dict[str, Any]:
    interval = [speedup * 0.98, speedup * 1.02]
    latency = {"status": "measured", "speedup": speedup, "ci95": interval}
    return {"model": model, "level": 2, "verified": "ok", "latency": latency} | more


def changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one.row, one.change) for one in differences.differences(old, new)]


def test_intervals_decide_what_is_slower_and_faster() -> None:
    old = [row("a", 1.2), row("b", 1.2), row("c", 1.2)]
    new = [row("a", 1.1), row("b", 1.17), row("c", 1.4)]
    assert changes(old, new) == [("a -O 2", "slower"), ("c -O 2", "faster")]


def test_a_part_lacks_nothing_and_intervals_may_have_to_lie_further_apart() -> None:
    old, new = [row("a", 1.2), row("b", 1.2)], [row("a", 1.1)]

    part = differences.differences(old, new, part=True)
    lenient = differences.differences(old, new, part=True, apart=0.1)
    worse = differences.differences(old, [row("a", 1.0)], part=True, apart=0.1)

    assert [one.change for one in part] == ["slower"]
    assert list(lenient) == []
    assert [one.change for one in worse] == ["slower"]


def test_a_file_alone_is_held_against_the_originals_in_it(tmp_path: Path) -> None:
    rows = [row("a", 0.95), row("b", 0.8), row("c", 2.0), row("d", 1, verified="failed")]
    found = [(one.row, one.change) for one in differences.against_originals(rows, apart=0.1)]
    assert found == [("b -O 2", "slower"), ("d -O 2", "wrong")]

    for name, code in (("good", 0), ("bad", 1)):
        path = tmp_path / f"{name}.json"
        body = {"suite": "lossless", "rows": rows[2:3] if name == "good" else rows}
        path.write_text(json.dumps(body), encoding="utf-8")
        assert main(["compare", str(path), "--apart", "0.1"]) == code


def test_wrong_answers_errors_and_lost_rows_come_first() -> None:
    old = [row("a", 1), row("b", 1), row("c", 1), row("d", 1, nodes=[9, 3]), row("e", 2)]
    new = [
        row("a", 1, verified="failed"),
        {"model": "b", "level": 2, "error": "no answer within 9 s"},
        row("d", 1, nodes=[9, 4]),
        row("e", 1),
        row("f", 1),
    ]
    assert changes(old, new) == [
        ("a -O 2", "wrong"),
        ("b -O 2", "wrong"),
        ("e -O 2", "slower"),
        ("c -O 2", "gone"),
        ("d -O 2", "larger"),
        ("f -O 2", "new"),
    ]


def test_accuracy_may_fall_by_half_a_point() -> None:
    old = [row("a", 1, top1=[0.98, 0.98]), row("b", 1, top1=[0.98, 0.98])]
    new = [row("a", 1, top1=[0.98, 0.976]), row("b", 1, top1=[0.98, 0.97])]
    assert changes(old, new) == [("b -O 2", "less accurate")]


def written(path: Path, rows: list[dict[str, Any]], suite: str = "lossless") -> Path:
    path.write_text(json.dumps({"suite": suite, "rows": rows}))
    return path


def test_the_command_fails_only_where_something_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, fast = written(tmp_path / "1", [row("a", 1)]), written(tmp_path / "2", [row("a", 2)])
    assert main(["compare", str(slow), str(fast)]) == 0
    assert "faster" in capsys.readouterr().out
    assert main(["compare", str(fast), str(slow)]) == 1
    assert "slower" in capsys.readouterr().out
    assert main(["compare", str(fast), str(fast)]) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, other = written(tmp_path / "1", []), written(tmp_path / "2", [], "shipped")
    (tmp_path / "3").write_text("[]")
    for bad in (other, tmp_path / "3", tmp_path / "4"):
        assert main(["compare", str(good), str(bad)]) == 2
        assert "error:" in capsys.readouterr().err


def test_the_results_in_the_repository_do_not_differ_from_themselves() -> None:
    results = Path(differences.__file__).with_name("results")
    for path in sorted(results.glob("*.json*")):
        if "rows" in store.read(path).whole():
            assert main(["compare", str(path), str(path)]) == 0
