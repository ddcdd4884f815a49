"""Latency of models measured against each other: interleaved, with an interval and a verdict."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .base import Array

Verdict: TypeAlias = Literal["faster", "slower", "no significant difference"]

EFFECT: Final = 0.015
"""The smallest relative difference that counts. Two sessions of one and the same model differ
however long they are timed, because their memory lies differently, and no interval from one pair
of sessions can know: in 55 such comparisons (nets of 0.06 to 0.4 ms, one and two threads) the
standard deviation was 0.4% and the largest difference 1.1%. By this rule none of 91 came out as a
difference, 36 of them on two cores at a load average of five."""

QUANTILES: Final = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""From 5% to 95% in steps of 5%: what is told of how runs are distributed."""

_ROUNDS: Final = 100
"""Turns that each model gets within the time budget, if its runs are short enough."""
_MIN_ROUNDS: Final = 7
_PATIENCE: Final = 3
"""How many times as long as asked for a measurement may take to narrow its intervals."""
_MOST_PER_TURN: Final = 500
_SETTLE_MS: Final = 20.0
"""Models that run shorter than this get one run untimed at the start of each turn: caches and
thread pools are then its own again (4% on the first of ten runs of a 60 microsecond model)."""
REST: Final = 0.06
"""Seconds until the threads of a session have stopped spinning for more work: twice what was seen.
On two cores a session of one thread took 10 ms beside spinning ones that took 4 ms alone."""
_RESAMPLES: Final = 2000
_KEPT_PER_TURN: Final = 31
_LEAST_OF_HALF: Final = 5
"""Rounds of which each half of a measurement has to have this many for its drift to be told."""


@dataclass(frozen=True)
class Latency:
    """How long one run of a model takes, in milliseconds, over ``runs`` timed runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    runs: int


@dataclass(frozen=True)
class Speedup:
    """The latency of ``baseline`` over that of ``candidate``: above 1 the candidate is faster.

    ``speedup`` is the ratio of the medians. ``ci95`` is its 95% interval by a circular block
    bootstrap (Politis and Romano, 1992) over rounds: a round holds one turn of each model, so what
    disturbs the machine for longer than a turn disturbs both, and blocks of neighbouring rounds
    keep what lasts longer than a round together. The verdict is ``faster`` or ``slower`` only
    where the whole interval is beyond one by :data:`EFFECT`.

    ``drift`` is the speedup in the later half of the rounds over that in the earlier half, where
    the intervals of both lie apart by more than :data:`EFFECT`, and else 1. Blocks are too short
    for what changes once in a measurement, such as a clock rate, so ``ci95`` then spans the
    speedups of both halves as well.
    """

    baseline: str
    candidate: str
    speedup: float
    ci95: tuple[float, float]
    verdict: Verdict
    drift: float = 1.0


@dataclass(frozen=True)
class Timings:
    """What was timed: ``turns[i]`` is ``(rounds, runs)`` in milliseconds of model ``names[i]``."""

    names: tuple[str, ...]
    turns: tuple[Array, ...]
    seed: int = 0

    @property
    def latencies(self) -> tuple[Latency, ...]:
        """The latency of each model over all its timed runs."""
        return tuple(_latency(turns) for turns in self.turns)

    def distribution(self, model: int, levels: Sequence[float] = QUANTILES) -> list[float]:
        """The quantiles ``levels`` of the runs of ``model``, in milliseconds."""
        return [float(f"{one:.4g}") for one in np.quantile(self.turns[model], levels)]

    @property
    def pairs(self) -> tuple[Speedup, ...]:
        """The first model as the baseline of each other one."""
        return tuple(self.pair(0, index) for index in range(1, len(self.names)))

    def pair(self, baseline: int, candidate: int) -> Speedup:
        """How much faster than model ``baseline`` model ``candidate`` is."""
        before, after = self.turns[baseline], self.turns[candidate]
        low, high = _interval(before, after, self.seed)
        halves = _drifted(before, after, self.seed)
        low, high = min(low, *halves), max(high, *halves)
        return Speedup(
            baseline=self.names[baseline],
            candidate=self.names[candidate],
            speedup=_ratio(before, after),
            ci95=(low, high),
            verdict=_verdict(low, high),
            drift=halves[1] / halves[0],
        )

    @property
    def width(self) -> float:
        """How far the widest interval of :attr:`pairs` spans, as a share of the speedup."""
        return max((pair.ci95[1] / pair.ci95[0] - 1 for pair in self.pairs), default=0.0)


@runtime_checkable
class OwnClock(Protocol):
    """A model that is timed where it runs, such as in another process.

    ``rest`` is how long it keeps cores busy after a run, in seconds: who is next waits so long.
    """

    rest: float

    def turn(self, count: int) -> list[float]:
        """Run ``count`` times; how long each run took, in milliseconds."""
        ...


def compare_latency(
    runs: Sequence[Callable[[], object]],
    names: Sequence[str] = (),
    *,
    seconds: float = 5.0,
    warmup: float = 0.5,
    width: float | None = None,
    seed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timings:
    """Time ``runs``, each of which runs one model once, in turns within this process.

    Every model warms up for ``warmup`` seconds. Then come rounds: in each, every model has one
    turn of several runs, in an order that reverses from round to round (ABBA) so that a steady
    drift falls on all alike. The turns are as long as lets about 100 rounds fit into ``seconds``;
    slow models get at least 7 rounds, however long these take. Python's garbage collector is off
    meanwhile.

    Where one of ``runs`` needs a ``rest`` (:class:`OwnClock`), each turn comes after it and after
    an untimed run, and takes at least as long: all are timed as if they ran back to back, alone.

    With ``width``, rounds go on until the widest interval is narrower than that, but for at most
    three times ``seconds``. That depends on how wide an interval is and not on where it lies,
    which would bias it.

    Args:
        runs: One callable per model, such as :meth:`~.ort.OrtSession.bind` returns. What is an
            :class:`OwnClock` as well times its turns itself.
        names: What to call the models; their position by default.
        seconds: The time for all timed runs together.
        warmup: The time for each model to warm up.
        width: The share of the speedup that its interval may span without more rounds.
        seed: Seeds the bootstrap.
        clock: Nanoseconds of a monotonic clock.
    """
    labels = tuple(names) or tuple(str(index) for index in range(len(runs)))
    with _no_garbage_collection():
        typical = [_warm_up(run, warmup, clock) for run in runs]
        rest = max(map(_rest, runs))
        turn_ns = max(seconds / (_ROUNDS * len(runs)), rest) * 1e9
        counts = [int(min(max(turn_ns / ns, 1), _MOST_PER_TURN)) for ns in typical]
        turns: list[list[list[float]]] = [[] for _ in runs]
        start, order = clock(), list(range(len(runs)))
        until = start + seconds * 1e9
        while True:
            if len(turns[0]) >= _MIN_ROUNDS and clock() >= until:
                so_far = Timings(labels, tuple(map(np.array, turns)), seed)
                late = clock() >= start + _PATIENCE * seconds * 1e9
                if late or width is None or so_far.width <= width:
                    return so_far
                until = clock() + seconds * 1e9 / 2
            for index in order:
                time.sleep(rest)
                if rest or typical[index] < _SETTLE_MS * 1e6:
                    runs[index]()
                turns[index].append(_turn(runs[index], counts[index], clock))
            order.reverse()


def _warm_up(run: Callable[[], object], seconds: float, clock: Callable[[], int]) -> float:
    """Run for ``seconds``, at least twice; the median of one run in nanoseconds."""
    start = clock()
    spent: list[int] = []
    while len(spent) < 2 or clock() - start < seconds * 1e9:
        before = clock()
        run()
        spent.append(clock() - before)
    return float(max(np.median(spent[len(spent) // 2 :]), 1))


def _rest(run: Callable[[], object]) -> float:
    return run.rest if isinstance(run, OwnClock) else 0.0


def _turn(run: Callable[[], object], count: int, clock: Callable[[], int]) -> list[float]:
    if isinstance(run, OwnClock):
        return run.turn(count)
    spent = []
    for _ in range(count):
        before = clock()
        run()
        spent.append((clock() - before) / 1e6)
    return spent


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _latency(turns: Array) -> Latency:
    p10, median, p90, p99 = (float(q) for q in np.quantile(turns, [0.1, 0.5, 0.9, 0.99]))
    return Latency(median, p10, p90, p99, int(turns.size))


def _interval(before: Array, after: Array, seed: int) -> tuple[float, float]:
    """The 95% interval of the ratio of medians, rounds resampled in blocks, pairs kept."""
    rounds = len(before)
    length = max(1, round(rounds ** (1 / 3)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(rounds, size=(_RESAMPLES, -(-rounds // length), 1))
    picked = ((starts + np.arange(length)) % rounds).reshape(_RESAMPLES, -1)[:, :rounds]
    ratios = _medians(before, picked) / _medians(after, picked)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def _drifted(before: Array, after: Array, seed: int) -> tuple[float, float]:
    """The speedups of the earlier and the later half if they differ, else the whole's twice."""
    whole, middle = _ratio(before, after), len(before) // 2
    parts = slice(None, middle), slice(middle, None)
    early, late = (_ratio(before[part], after[part]) for part in parts)
    if middle < _LEAST_OF_HALF or max(early, late) < min(early, late) * (1 + EFFECT):
        return whole, whole
    first, second = (_interval(before[part], after[part], seed) for part in parts)
    apart = max(first[0], second[0]) > min(first[1], second[1]) * (1 + EFFECT)
    return (early, late) if apart else (whole, whole)


def _ratio(before: Array, after: Array) -> float:
    return float(np.median(before) / np.median(after))


def _medians(turns: Array, picked: Array) -> Array:
    """For each row of ``picked``, the median over the turns it names.

    A turn of many runs is represented by evenly spaced quantiles of it, which changes the median
    by far less than the interval is wide and bounds the work.
    """
    if turns.shape[1] > _KEPT_PER_TURN:
        levels = (np.arange(_KEPT_PER_TURN) + 0.5) / _KEPT_PER_TURN
        turns = np.quantile(turns, levels, axis=1).T
    medians: Array = np.median(turns[picked].reshape(len(picked), -1), axis=1)
    return medians


def _verdict(low: float, high: float) -> Verdict:
    if low > 1 + EFFECT:
        return "faster"
    if high < 1 / (1 + EFFECT):
        return "slower"
    return "no significant difference"
