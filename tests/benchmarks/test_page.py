"""The page and the Markdown of all results hold what the result files say, and nothing else."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import page, store, tables
from benchmarks.__main__ import main


@pytest.fixture(scope="module")
def found() -> dict[str, tables.Results]:
    return {name: store.load(name) for name in page.SUITES if store.found_at(name) is not None}


def test_the_page_tells_of_every_model_and_loads_nothing(
    found: dict[str, tables.Results],
) -> None:
    text = page.as_html(found)

    HTMLParser().feed(text)
    for row in (*found["lossless"]["rows"], *found["compile-time"]["rows"]):
        assert row["model"] in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", text.replace("xlink:href", "href"))
    assert "@import" not in text
    for name in page.SUITES:
        assert (f"python -m benchmarks {name}" in text) == (name in found)


def test_what_is_missing_is_named(found: dict[str, tables.Results]) -> None:
    text = page.as_html({"shipped": found["shipped"]})

    assert "Not measured here: lossless, compile-time, harness, ensembles." in text


def test_merged_models_are_told_of(found: dict[str, tables.Results]) -> None:
    results = found["ensembles"]

    for text in (page.as_html(found), tables.everything(found)):
        for row in results["equalities"]:
            assert escape(row["case"]) in text or row["case"] in text
        assert ("speed, of best: not measured here." in text) == (not results["speed"])


def test_the_command_writes_both_files(tmp_path: Path, found: dict[str, tables.Results]) -> None:
    assert main(["report", "--out", str(tmp_path)]) == 0

    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page.as_html(found)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == tables.everything(found)
