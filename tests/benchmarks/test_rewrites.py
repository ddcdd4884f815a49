"""Every exact pass by itself: which ones, what their rows hold, and how they are summed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import rewrites, store
from benchmarks.__main__ import main

LATENCY = {"status": "measured", "speedup": 2.0, "ci95": [1.9, 2.1], "verdict": "faster"}


def row_of(model: str, name: str, rewritten: int = 3, speedup: float = 2.0) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "pass": name, "rewritten": rewritten}
    if rewritten:
        row |= {"nodes": [10, 8], "latency": LATENCY | {"speedup": speedup}}
    return row


def test_every_exact_pass_is_measured() -> None:
    assert {"fold-constants", "cleanup", "fold-batch-norm"} <= set(rewrites.names())
    assert not {"insert-qdq", "prune-channels"} & set(rewrites.names())


def test_a_pass_is_summed_up_over_the_models_on_which_it_fires() -> None:
    rows = [
        row_of("a", "cleanup"),
        row_of("b", "cleanup", speedup=0.5),
        row_of("c", "cleanup", rewritten=0),
        {"model": "d", "pass": "cleanup", "error": "no"},
        row_of("a", "fold-batch-norm", rewritten=0),
    ]
    first, second = rewrites.summary(rows)
    assert (first["pass"], first["models"], first["fires"]) == ("cleanup", 4, 2)
    assert (first["rewritten"], first["nodes"]) == (6, [20, 16])
    assert first["mean"] == pytest.approx(1.0)
    assert first["best"] == ["a", 2.0]
    assert (second["fires"], second["mean"], second["best"]) == (0, None, None)


def test_a_pass_is_held_against_the_model_without_it() -> None:
    row = rewrites._measure("mnist-resnet", "fold-batch-norm", None, 0.2)
    assert row["rewritten"] > 0
    assert row["nodes"][1] < row["nodes"][0]
    assert row["latency"]["status"] == "measured"
    assert rewrites._measure("mnist-cnn-0", "fold-batch-norm", None, 0.2) == {"rewritten": 0}


def test_the_command_keeps_rows_and_prints_a_line_for_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def measure(model: str, name: str, **_: Any) -> dict[str, Any]:
        calls.append((model, name))
        return row_of(model, name)

    monkeypatch.setattr(rewrites, "measure", measure)
    folder = ["--results", str(tmp_path)]
    passes = ["--passes", "cleanup,fold-constants"]
    assert main(["rewrites", "--models", "mnist-cnn-0", *passes, *folder]) == 0
    assert main(["rewrites", "--models", "mnist-cnn-*", *passes, *folder, "--resume"]) == 0
    assert len(calls) == 2 * 4
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "fold-constants 4 of 4" in
               " ".join(one.split())]  # fmt: skip
    assert "2.00x" in line
    kept = store.load("rewrites", tmp_path)
    assert [one["pass"] for one in kept["summary"]] == ["fold-constants", "cleanup"]
    assert main(["rewrites", "--passes", "insert-qdq", *folder]) == 2
