"""Session options are kept if they are faster by measurement, twice, and do not change answers.

How fast options are is said by the test (:class:`Machine`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.compiler.session_file import DENORMALS
from onnxpress.compiler.session_search import (
    CLOSING,
    SECONDS,
    SPINNING,
    SessionSearch,
    thread_counts,
)


@dataclass
class Machine:
    """Knows how long a run takes with given options, and when a duel is noisy."""

    ms: Callable[[SessionConfig], float]
    noise: dict[float, float] = field(default_factory=dict)
    duels: list[tuple[SessionConfig, SessionConfig, float]] = field(default_factory=list)

    def __call__(
        self, before: SessionConfig, after: SessionConfig, seconds: float
    ) -> dict[str, Any]:
        self.duels.append((before, after, seconds))
        ratio = self.ms(before) / self.ms(after) * self.noise.get(seconds, 1.0)
        verdict = "faster" if ratio > 1.015 else "slower" if ratio < 0.985 else "none"
        return {"status": "measured", "speedup": ratio, "ci95": [ratio, ratio], "verdict": verdict}


def agree(_config: SessionConfig) -> str:
    return ""


def search(machine: Machine, **options: Any) -> tuple[SessionConfig | None, dict[str, Any]]:
    settings: dict[str, Any] = {"default": SessionConfig(), "disagreement": agree, "cores": 4}
    return SessionSearch(duel=machine, **(settings | options)).run()


def test_what_is_faster_is_kept_and_built_upon() -> None:
    def ms(config: SessionConfig) -> float:
        threads = {0: 10.0, 1: 12.0, 2: 8.0, 4: 9.0}[config.threads]
        return threads - (config.level == "extended") + config.arena

    machine = Machine(ms)
    best, report = search(machine)

    assert best == SessionConfig(threads=2, level="extended", arena=False)
    assert report["options"] == {
        "graph_optimization_level": "ORT_ENABLE_EXTENDED",
        "intra_op_num_threads": 2,
        "enable_cpu_mem_arena": False,
    }
    assert report["speedup"] == pytest.approx(11 / 7)
    assert machine.duels[-1] == (SessionConfig(), best, CLOSING)
    kept = [one["option"] for one in report["tried"] if one["kept"]]
    assert kept == [
        "intra_op_num_threads=2",
        "graph_optimization_level=ORT_ENABLE_EXTENDED",
        "enable_cpu_mem_arena=False",
    ]
    before, after, seconds = machine.duels[3]
    assert (before.threads, after.threads, seconds) == (2, 2, SECONDS)


def test_where_nothing_is_faster_nothing_is_chosen() -> None:
    best, report = search(Machine(lambda config: 10.0 + (config.threads > 0)))
    assert best is None
    assert (report["status"], report["options"]) == ("measured", {})
    tried = {one["option"] for one in report["tried"]}
    assert tried == {
        *(f"intra_op_num_threads={count}" for count in (1, 2, 4)),
        *(f"graph_optimization_level=ORT_ENABLE_{level}" for level in ("EXTENDED", "BASIC")),
        *(f"{DENORMALS}=1", "enable_mem_pattern=False", "enable_cpu_mem_arena=False"),
        f"{SPINNING}=0",
    }


def test_luck_in_one_of_many_duels_is_not_believed() -> None:
    best, report = search(Machine(lambda _: 10.0, noise={SECONDS: 1.1}))
    assert best is None
    assert report["options"] == {}
    assert "speedup" not in report


def test_what_changes_answers_is_refused() -> None:
    def disagreement(config: SessionConfig) -> str:
        return "the answers differ: y" if DENORMALS in config.entries else ""

    machine = Machine(lambda config: 10.0 - 5 * bool(config.entries) - (config.level == "basic"))
    best, report = search(machine, disagreement=disagreement, cores=1)

    assert best == SessionConfig(level="basic")
    (refused,) = [one for one in report["tried"] if one["option"] == f"{DENORMALS}=1"]
    assert (refused["kept"], refused["reason"]) == (False, "the answers differ: y")


def test_threads_that_were_asked_for_stay() -> None:
    machine = Machine(lambda config: 10.0 + config.threads)
    best, _ = search(machine, default=SessionConfig(threads=3), choose_threads=False)
    assert best is None
    assert {config.threads for duel in machine.duels for config in duel[:2]} == {3}


def test_one_thread_does_not_spin_and_cuda_has_no_denormals() -> None:
    machine = Machine(lambda config: 10.0 - (config.threads == 1))
    _, report = search(machine, default=SessionConfig(provider="cuda"))
    entries = {SPINNING, DENORMALS}
    assert not any(entries & {one["option"].split("=")[0]} for one in report["tried"])


def test_time_runs_out() -> None:
    times = iter([0.0, 5.0])
    machine = Machine(lambda config: 10.0 - (config.level == "extended"))
    best, report = search(
        machine, cores=1, choose_threads=False, deadline=4.0, clock=lambda: next(times, 9.0)
    )
    assert best == SessionConfig(level="extended")
    assert [one["verdict"] for one in report["tried"][1:]] == ["not tried"] * 4
    best, report = search(machine, deadline=-1.0)
    assert (best, report["status"]) == (None, "not-measured")
    assert report["reason"] == "no time was left"


def test_what_cannot_be_run_is_not_measured() -> None:
    def unable(before: SessionConfig, after: SessionConfig, seconds: float) -> dict[str, Any]:
        return {"status": "not-measured", "reason": "it does not load"}

    best, report = SessionSearch(SessionConfig(), unable, agree).run()
    assert best is None
    assert (report["status"], report["reason"]) == ("not-measured", "it does not load")


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_thread_counts(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts
