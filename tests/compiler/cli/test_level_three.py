"""Level 3 on the command line: what it tells, and the session file that it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.compiler import compile as compiling
from onnxpress.compiler.settings import BUDGET, Settings
from tests.compiler.cli.runner import Command

LATENCY = {"median_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.2, "p99_ms": 2.5, "runs": 100}
CHOSEN = SessionConfig(threads=1, entries={"session.set_denormal_as_zero": "1"})
TRIED = {"option": "intra_op_num_threads=1", "verdict": "faster", "kept": True}
FASTER: dict[str, Any] = {
    "status": "measured",
    "before": LATENCY,
    "after": {**LATENCY, "median_ms": 1.0},
    "speedup": 2.0,
    "ci95": [1.9, 2.1],
    "verdict": "faster",
    "options": {
        "intra_op_num_threads": 1,
        "config_entries": {"session.set_denormal_as_zero": "1"},
    },
    "tried": [TRIED | {"speedup": 2.0, "ci95": [1.9, 2.1]}],
}
NONE: dict[str, Any] = {
    "status": "measured",
    "verdict": "no faster options were found",
    "options": {},
    "tried": [TRIED | {"kept": False, "verdict": "slower", "reason": "because"}],
}


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The budgets that session options were chosen with; the choice is :data:`FASTER`."""
    asked: list[float | None] = []

    def choose(_model: Any, settings: Settings, *_: Any) -> Any:
        asked.append(settings.budget)
        return (CHOSEN, dict(FASTER)) if settings.budget else (None, dict(NONE))

    monkeypatch.setattr(compiling, "choose_session", choose)
    return asked


def test_a_session_file_is_written_and_the_lines_that_read_it_are_printed(
    onnxpress: Command, models: Path, budgets: list[float | None]
) -> None:
    arguments = ("optimize", models / "mnist_cnn_0.onnx", "-o", "out.onnx", "--no-time")
    reports = ("--report", "r.json", "--report", "r.md", "--report", "r.html")
    done = onnxpress(*arguments, "-O", "3", *reports)
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert (
        "session  faster: 2.000 ms → 1.000 ms, 2.00x (95% interval 1.90 to 2.10) with "
        "intra_op_num_threads=1, session.set_denormal_as_zero=1"
    ) in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("wrote "))
    assert [line.strip() for line in lines[at + 1 : at + 5]] == [
        "out.session.json, which this reads:",
        "import onnxpress",
        'session = onnxpress.session("out.onnx")',
        "answers = session.run(None, inputs)",
    ]
    written = json.loads(Path("out.session.json").read_text(encoding="utf-8"))
    assert written["intra_op_num_threads"] == 1
    assert written["measured"]["speedup"] == 2.0
    found = json.loads(Path("r.json").read_text(encoding="utf-8"))["session"]
    assert found["file"] == "out.session.json"
    assert "options.intra_op_num_threads = 1" in Path("r.md").read_text(encoding="utf-8")
    page = Path("r.html").read_text(encoding="utf-8")
    assert "<h2>Session options</h2>" in page
    assert "2.00x, faster" in page
    assert "ort.InferenceSession(&quot;out.onnx&quot;, options)" in page

    again = onnxpress(*arguments, "--budget", "0")
    assert "1 option tried, none is faster than the default" in again.out
    assert "out.session.json is of an earlier result" in again.err
    assert budgets == [BUDGET, 0.0]


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (("-O", "3"), BUDGET),
        (("-O", "3", "--budget", "7"), 7.0),
        (("--passes", "cleanup", "--budget", "7"), 7.0),
        (("-O", "2"), None),
        ((), None),
    ],
)
def test_who_has_how_much_time(
    onnxpress: Command,
    models: Path,
    budgets: list[float | None],
    options: tuple[str, ...],
    budget: float | None,
) -> None:
    model = models / "mnist_cnn_0.onnx"
    done = onnxpress("optimize", model, "-o", "o.onnx", "--no-time", "--no-verify", "-q", *options)
    assert done.code == 0, done
    assert budgets == [budget]


def test_without_time_nothing_is_measured(onnxpress: Command, models: Path) -> None:
    arguments = ("optimize", models / "mnist_cnn_0.onnx", "-o", "o.onnx", "--json")
    untimed = onnxpress(*arguments, "-O", "3", "--no-time").json["session"]
    assert untimed == {"status": "not-measured", "reason": "timing was turned off"}
    default = onnxpress(*arguments, "--no-time").json["session"]
    assert default["reason"] == "session options are measured at level 3"
    assert not Path("o.session.json").exists()


def test_no_time_left_is_said(
    onnxpress: Command, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {**FASTER, "verdict": "no significant difference"}
    monkeypatch.setattr(
        "onnxpress.compiler.latency.latency_before_and_after", lambda *_, **__: slow
    )
    model = models / "mnist_cnn_0.onnx"
    done = onnxpress("optimize", model, "-o", "o.onnx", "-O", "3", "--budget", "0", "--json")
    session = done.json["session"]
    assert (session["status"], session["reason"]) == ("not-measured", "no time was left")
    assert {one["verdict"] for one in session["tried"]} == {"not tried"}


def test_bench_times_session_files(onnxpress: Command, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes((models / "mnist_cnn_0.onnx").read_bytes())
    arguments = ("bench", "m.onnx", "--session", "--seconds", "0.2", "--json")
    missing = onnxpress(*arguments)
    assert missing.code == 2
    assert "there is no session file m.session.json" in missing.json["error"]["message"]
    (tmp_path / "m.session.json").write_text('{"intra_op_num_threads": 1}')
    found = onnxpress(*arguments).json
    assert [one["path"] for one in found["models"]] == ["m.onnx", "m.session.json"]
    assert all(one["peak_rss_mb"] > 30 for one in found["models"])
    assert found["pairs"][0]["candidate"] == "m.session.json"
