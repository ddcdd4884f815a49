"""The harness judged by itself: which pairs it takes, and how their verdicts are counted."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, store
from benchmarks.__main__ import main
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of


def test_every_model_and_number_of_threads_has_its_turn() -> None:
    same = harness.schedule("same", False, 10)
    slowed = harness.schedule("slowed", True, 8)

    assert {(case["model"], case["threads"]) for case in same} == {
        (model, threads)
        for model in (*harness.SHIPPED, "chain-128", "chain-256")
        for threads in (0, 1)
    }
    assert {case["model"] for case in slowed} == {"chain-128", "chain-256"}
    assert [case["trial"] for case in slowed] == list(range(8))
    assert all(case["load"] for case in slowed)


def test_the_slowed_chain_has_one_layer_in_twenty_more() -> None:
    one, other = harness.chain(8, 20), harness.chain(8, 21)
    feeds = {"x": np.ones((32, 8), np.float32)}

    assert len(other.graph.node) / len(one.graph.node) == 1.05
    for model in (one, other):
        (answer,) = (
            session_of(model.SerializeToString(), SessionConfig(level="disabled"))
            .run(feeds)
            .values()
        )
        assert np.isfinite(answer).all()


def test_a_trial_that_breaks_off_counts_as_not_as_expected() -> None:
    row = {"kind": "same", "load": False, "trial": 0}
    fine = {**row, "verdict": "no significant difference", "ci95": [0.99, 1.01]}

    (found,) = harness.summary([fine, {**row, "error": "no answer within 1 s"}])

    assert (found["trials"], found["as_expected"], found["failed"]) == (2, 1, 1)
    assert not found["holds"]
    assert found["median_width"] == pytest.approx(0.0202, abs=1e-4)


def test_background_work_ends_with_its_block() -> None:
    with harness.background(1):
        (worker,) = multiprocessing.active_children()
        time.sleep(0.1)
    assert not worker.is_alive()


@pytest.mark.slow
def test_the_command_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "harness", "--only", "slowed", "--seconds", "0.5", "--results", str(tmp_path)]
    main([*command, "--trials", "1"])
    first = store.load("harness", tmp_path)["rows"]
    main([*command, "--trials", "2", "--resume"])

    rows = store.load("harness", tmp_path)["rows"]

    assert rows[0] == first[0]
    assert len(rows) == 2
    assert "a model slowed by 5%" in capsys.readouterr().out
