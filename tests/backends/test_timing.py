"""Timing by a clock that the test turns: order, counts, statistics and verdicts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.timing import EFFECT, Speedup, Timings, compare_latency


class Machine:
    """A clock that only advances while one of its models runs."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def clock(self) -> int:
        return self.now

    def model(self, name: str, latencies_ms: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += int(next(latencies_ms) * 1e6)

        return run


def timed(machine: Machine, seconds: float = 1.0, **latency: Iterator[float]) -> Timings:
    runs = [machine.model(name, values) for name, values in latency.items()]
    return compare_latency(runs, list(latency), seconds=seconds, warmup=0.1, clock=machine.clock)


def test_steady_models_are_measured_exactly() -> None:
    timings = timed(Machine(), a=repeat(2.0), b=repeat(1.0))

    assert [latency.median_ms for latency in timings.latencies] == [2.0, 1.0]
    assert timings.pairs == (Speedup("a", "b", 2.0, (2.0, 2.0), "faster"),)
    assert timings.pair(1, 0).verdict == "slower"
    assert timings.pair(1, 0).speedup == 0.5


def test_percentiles_and_counts_are_over_all_timed_runs() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, 1001) / 100)
    timings = Timings(("a",), (values.reshape(100, 10),))

    (latency,) = timings.latencies

    assert latency.runs == 1000
    assert latency.median_ms == pytest.approx(5.005)
    assert latency.p10_ms == pytest.approx(1.0, abs=0.02)
    assert latency.p90_ms == pytest.approx(9.0, abs=0.02)
    assert latency.p99_ms == pytest.approx(9.9, abs=0.02)
    assert timings.pairs == ()


def test_models_warm_up_by_time_then_take_turns_in_reversing_order() -> None:
    machine = Machine()

    timings = timed(machine, seconds=0.7, a=repeat(10.0), b=repeat(30.0))

    assert machine.calls[:14] == ["a"] * 10 + ["b"] * 4
    # a: 1 untimed and 1 timed run a turn, as short runs settle first; b: 1 timed run a turn.
    assert machine.calls[14:20] == ["a", "a", "b", "b", "a", "a"]
    assert [turns.shape for turns in timings.turns] == [(14, 1), (14, 1)]


def test_slow_models_get_their_rounds_and_short_ones_many_runs() -> None:
    assert timed(Machine(), seconds=1.0, a=repeat(900.0)).turns[0].shape == (7, 1)
    rounds, runs = timed(Machine(), seconds=1.0, a=repeat(0.1)).turns[0].shape
    assert 98 <= rounds <= 100
    assert runs == 100
    assert timed(Machine(), seconds=60.0, a=repeat(1.0)).turns[0].shape[1] == 500


def test_rounds_go_on_until_the_interval_is_narrow_but_not_for_ever() -> None:
    def rounds(width: float | None) -> int:
        machine = Machine()
        values = iter(np.random.default_rng(0).normal(10.0, 1.0, 10_000).tolist())
        timings = compare_latency(
            [machine.model("a", values), machine.model("b", repeat(10.0))],
            seconds=1.0,
            warmup=0.1,
            width=width,
            clock=machine.clock,
        )
        return len(timings.turns[0])

    plain = rounds(None)
    assert rounds(0.5) == plain
    assert plain < rounds(0.001) <= 3.2 * plain


def test_a_speedup_that_changes_on_the_way_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    after = rng.normal(1.0, 0.001, (60, 5))
    before = after * np.where(np.arange(60) < 30, 1.0, 1.2)[:, None]

    pair = Timings(("a", "b"), (before, after)).pairs[0]

    assert pair.drift == pytest.approx(1.2, abs=0.01)
    assert pair.ci95[0] <= 1.001
    assert pair.ci95[1] >= 1.199
    assert pair.verdict == "no significant difference"
    assert Timings(("a", "b"), (after * 1.2, after)).pairs[0].drift == 1.0


def test_a_steady_drift_cancels() -> None:
    machine = Machine()

    def drifting(base: float) -> Iterator[float]:
        while True:
            yield base * (1 + machine.now / 1e9)

    timings = timed(machine, seconds=2.0, a=drifting(1.0), b=drifting(1.0))

    assert timings.pairs[0].speedup == pytest.approx(1.0, abs=0.005)
    assert timings.pairs[0].verdict == "no significant difference"


def test_garbage_is_not_collected_meanwhile() -> None:
    states: list[bool] = []

    compare_latency([lambda: states.append(gc.isenabled())], seconds=0.0, warmup=0.0)

    assert states
    assert not any(states)
    assert gc.isenabled()


def test_what_a_run_raises_comes_through_and_the_collector_is_on_again() -> None:
    def broken() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        compare_latency([broken])
    assert gc.isenabled()


def noisy(rng: np.random.Generator, scale: tuple[float, float]) -> Timings:
    """Two models on a machine with slow regimes that last several rounds, jitter and spikes."""
    rounds, runs = 30, 6
    regime = np.repeat(rng.choice([1.0, 1.3, 1.6], size=rounds // 3), 3)[:, None]

    def turns(base: float) -> Array:
        jitter = rng.lognormal(0, 0.05, (rounds, runs))
        spikes = np.where(rng.random((rounds, runs)) < 0.05, 5.0, 1.0)
        latencies: Array = base * regime * jitter * spikes
        return latencies

    return Timings(("a", "b"), (turns(scale[0]), turns(scale[1])), seed=int(rng.integers(2**31)))


def test_a_model_against_itself_makes_no_difference_on_a_noisy_machine() -> None:
    rng = np.random.default_rng(0)

    verdicts = [noisy(rng, (1.0, 1.0)).pairs[0].verdict for _ in range(100)]

    assert verdicts.count("no significant difference") >= 98


@pytest.mark.parametrize(("after", "verdict"), [(0.88, "faster"), (1.14, "slower")])
def test_a_real_difference_is_found_in_the_noise(after: float, verdict: str) -> None:
    rng = np.random.default_rng(1)

    verdicts = [noisy(rng, (1.0, after)).pairs[0].verdict for _ in range(25)]

    assert verdicts.count(verdict) >= 22  # type: ignore[arg-type]
    assert set(verdicts) <= {verdict, "no significant difference"}


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        before, after = (rng.lognormal(np.log(base), 0.1, (20, 5)) for base in (1.2, 1.0))
        low, high = Timings(("a", "b"), (before, after)).pairs[0].ci95
        covered += low <= 1.2 <= high
    assert 0.88 <= covered / 100 <= 0.99


def test_long_turns_keep_their_median_when_they_are_thinned_out() -> None:
    turns = np.random.default_rng(3).lognormal(0, 0.3, (40, 500))
    steady = np.full((40, 500), 1.0)

    pair = Timings(("a", "b"), (turns, steady)).pairs[0]

    assert pair.ci95[0] <= pair.speedup <= pair.ci95[1]
    assert pair.ci95[1] - pair.ci95[0] < 0.02


def test_the_interval_is_the_same_for_the_same_seed() -> None:
    turns = tuple(np.random.default_rng(4).lognormal(0, 0.1, (2, 20, 5)))

    first, again = Timings(("a", "b"), turns, seed=1), Timings(("a", "b"), turns, seed=1)

    assert first.pairs == again.pairs
    assert Timings(("a", "b"), turns, seed=2).pairs != first.pairs


def test_a_difference_below_the_least_effect_is_none_however_certain() -> None:
    steady = np.ones((30, 5))

    assert Timings(("a", "b"), (steady * (1 + EFFECT / 2), steady)).pairs[0].verdict == (
        "no significant difference"
    )
    assert Timings(("a", "b"), (steady * (1 + EFFECT * 2), steady)).pairs[0].verdict == "faster"


class Spinning:
    """A model in another process whose threads keep busy for a while after each run."""

    rest = 0.02

    def __init__(self, calls: list[tuple[Spinning, int, float]]) -> None:
        self.calls = calls

    def __call__(self) -> None:
        self.turn(1)

    def turn(self, count: int) -> list[float]:
        self.calls.append((self, count, time.perf_counter()))
        time.sleep(0.001 * count)
        return [1.0] * count


def test_who_runs_next_waits_for_spinning_threads_and_wakes_its_own_first() -> None:
    calls: list[tuple[Spinning, int, float]] = []
    runs = [Spinning(calls), Spinning(calls)]

    timings = compare_latency(runs, seconds=0.3, warmup=0.01)

    assert timings.turns[0].shape[1] >= 10  # 20 runs in a rest; sleeping may take twice as long
    timed_ones = [at for at, (_, count, _) in enumerate(calls) if count > 1]
    assert len(timed_ones) == 2 * len(timings.turns[0])
    for at in timed_ones:
        untimed, before = calls[at - 1], calls[at - 2]
        assert untimed[:2] == (calls[at][0], 1)
        assert untimed[2] - before[2] >= Spinning.rest
