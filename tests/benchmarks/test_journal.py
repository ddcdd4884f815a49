"""Result files: what stands in them, and how a run goes on where another stopped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import store
from benchmarks.corpus import CorpusError
from benchmarks.journal import Journal

KEYS = {"rows": ("model", "level"), "peers": ("model", "peer")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key(model: str, level: int = 1) -> dict[str, Any]:
    return {"model": model, "level": level}


# --- files -------------------------------------------------------------------------------------


def test_a_file_begins_with_the_fingerprint_of_the_run(tmp_path: Path) -> None:
    body = {"rows": [1], "levels": {"1": 2.0}}
    path = store.save("lossless", body, packages=["pytest", "no-such-package"], folder=tmp_path)

    first, *rest = lines(path)

    assert path.name == "lossless.jsonl"
    assert len(first["corpus"]) == 64
    assert first["commit"] == store.commit()
    assert store.commit(tmp_path) is None
    assert {"features", "governor", "threads"} <= first["environment"]["cpu"].keys()
    assert first["environment"]["packages"]["pytest"] == pytest.__version__
    assert rest == [{"rows": [1]}, {"levels": {"1": 2.0}}]
    assert store.load("lossless", tmp_path) == first | body


def test_missing_results_are_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        store.load("compile-time", tmp_path)
    assert caught.value.hint == "python -m benchmarks compile-time"


def test_no_suite_of_the_repository_has_results_in_two_files() -> None:
    names = Counter(path.stem for path in store.RESULTS.glob("*.json*"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("text", ["[]", "", "{}\n", "no\n", '{"suite": "a", "keys": {}}\nno\n'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lossless.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"."):
        store.read(path)


# --- runs --------------------------------------------------------------------------------------


def test_each_row_is_written_when_it_is_there_and_the_last_line_may_be_torn(
    tmp_path: Path,
) -> None:
    journal = Journal("lossless", KEYS, tmp_path, seconds=2)
    assert not journal.path.exists()
    for model in ("b", "a"):
        journal.measure("rows", key(model), lambda: {"nodes": 1})
        assert [one["rows"]["model"] for one in lines(journal.path)[1:]][-1] == model
    with journal.path.open("a", encoding="utf-8") as file:
        file.write('{"rows": {"model": "c", "lev')

    found = store.load("lossless", tmp_path)

    assert found["rows"] == [key("b") | {"nodes": 1}, key("a") | {"nodes": 1}]
    assert found["peers"] == []
    assert found["seconds"] == 2


def test_a_run_goes_on_and_tries_again_what_failed(tmp_path: Path) -> None:
    first = Journal("lossless", KEYS, tmp_path)
    first.put("rows", key("a") | {"nodes": 1})
    first.put("rows", key("b") | {"error": "no answer within 9 s"})
    calls: list[str] = []

    def measure(model: str) -> dict[str, Any]:
        calls.append(model)
        return {"nodes": 2}

    for resume, update, expected in (
        (True, False, "bc"),
        (False, True, "abc"),
        (False, False, "abc"),
    ):
        calls.clear()
        journal = Journal("lossless", KEYS, tmp_path, resume=resume, update=update)
        for model in "abc":
            journal.measure("rows", key(model), measure, model)
        journal.finish()
        assert "".join(calls) == expected

    kept = Journal("lossless", KEYS, tmp_path, resume=True, again=False)
    kept.put("rows", key("d") | {"error": "no"})
    assert kept.has("rows", key("d"))
    assert not kept.has("peers", key("d"))


def test_a_finished_file_is_in_order_and_ends_with_what_was_made_of_it(tmp_path: Path) -> None:
    journal = Journal("lossless", KEYS, tmp_path, order=lambda _, row: row["model"])
    for model in "bac":
        journal.put("rows", key(model) | {"nodes": 1})
    journal.put("rows", key("b") | {"nodes": 2})

    path = journal.finish(summary=[1])

    rows = [one["rows"] for one in lines(path)[1:-1]]
    assert [(row["model"], row["nodes"]) for row in rows] == [("a", 1), ("b", 2), ("c", 1)]
    assert lines(path)[-1] == {"summary": [1]}
    assert journal.rows() == rows


def test_rows_of_another_run_keep_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "commit", lambda: "one")
    first = Journal("lossless", KEYS, tmp_path)
    first.put("rows", key("a") | {"nodes": 1})
    first.put("rows", key("b") | {"nodes": 1})
    monkeypatch.setattr(store, "commit", lambda: "two")
    second = Journal("lossless", KEYS, tmp_path, update=True)
    second.put("rows", key("b") | {"nodes": 2})
    path = second.finish()

    found = store.load("lossless", tmp_path)

    assert [one.get("run", 0) for one in lines(path)[2:]] == [0, 1]
    assert found["commit"] == "two"
    assert [one["commit"] for one in found["earlier"]] == ["one"]
    third = Journal("lossless", KEYS, tmp_path, update=True)
    third.put("rows", key("a") | {"nodes": 3})
    assert "earlier" not in store.load("lossless", tmp_path) or third.finish()
    assert [one["commit"] for one in lines(path) if "suite" in one][-1] == "two"


def test_an_object_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    old = {"suite": "harness", "date": "2026-01-01", "environment": {}, "seconds": 2.0,
           "rows": [{"kind": "same", "trial": 0}], "summary": [1]}  # fmt: skip
    for indent in (None, 1):
        path = tmp_path / "harness.json"
        path.write_text(json.dumps(old, indent=indent) + "\n", encoding="utf-8")
        assert store.load("harness", tmp_path) == old
        journal = Journal("harness", {"rows": ("kind", "trial")}, tmp_path, resume=True)
        assert journal.has("rows", {"kind": "same", "trial": 0})
        journal.put("rows", {"kind": "same", "trial": 1})

        found = store.load("harness", tmp_path)

        assert not path.exists()
        assert [row["trial"] for row in found["rows"]] == [0, 1]
        assert [one["date"] for one in found["earlier"]] == ["2026-01-01"]
        journal.path.unlink()


def test_a_stopped_run_says_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> dict[str, Any]:
        raise KeyboardInterrupt

    journal = Journal("lossless", KEYS, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        journal.measure("rows", key("a"), stop)
    assert "--resume" in capsys.readouterr().err
