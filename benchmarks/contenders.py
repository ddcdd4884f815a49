"""Ways to run the members of an ensemble, each in a process of its own.

Threads that a session keeps spinning take time from the sessions beside it, so that two ways to run
the same models cannot be timed in one process on more than one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.backends.timing import REST


@dataclass(frozen=True)
class Way:
    """Model files, and how they are run on the same inputs.

    Attributes:
        models: One merged model, or the members.
        config: The options of each session.
        at_once: Each session in a thread of its own, instead of one after another.
        mean: Answer with the mean of the sessions' answers, taken by NumPy.
        cores: Run on so many cores; 0 for all.
    """

    models: tuple[Path, ...]
    config: SessionConfig
    at_once: bool = False
    mean: bool = False
    cores: int = 0

    def open(self, feeds: dict[str, Array]) -> Callable[[], list[Array]]:
        """What runs all sessions once, as a user calls them: from arrays to arrays.

        Inputs go together in their order, whatever they are called.
        """
        natives = [session_of(path, self.config).native for path in self.models]
        own = [
            {
                spec.name: value
                for spec, value in zip(native.get_inputs(), feeds.values(), strict=True)
            }
            for native in natives
        ]
        if len(natives) == 1:
            return lambda: natives[0].run(None, own[0])
        each = ThreadPoolExecutor(len(natives)).map if self.at_once else map

        def one(index: int) -> list[Array]:
            answers: list[Array] = natives[index].run(None, own[index])
            return answers

        def run() -> list[Array]:
            answers = list(each(one, range(len(natives))))
            if not self.mean:
                return [array for answer in answers for array in answer]
            return [np.mean(arrays, axis=0) for arrays in zip(*answers, strict=True)]

        return run


class Contender:
    """A :class:`Way` in its process; an :class:`~onnxpress.backends.timing.OwnClock`."""

    def __init__(self, way: Way, feeds: dict[str, Array]) -> None:
        self.rest = 0.0 if way.config.threads == 1 and not way.at_once else REST
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, way, feeds), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self) -> None:
        """Run once."""
        self.turn(1)

    def turn(self, count: int) -> list[float]:
        """Run ``count`` times; how long each run took, in milliseconds."""
        self._pipe.send(count)
        spent: list[float] = self._pipe.recv()
        return spent

    def answers(self) -> list[Array]:
        """What one run answers."""
        self._pipe.send(0)
        found: list[Array] = self._pipe.recv()
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


class Contest(ExitStack):
    """Contenders that end together."""

    def __init__(self, ways: Sequence[Way], feeds: dict[str, Array]) -> None:
        super().__init__()
        self.contenders: list[Contender] = []
        for way in ways:
            self.contenders.append(Contender(way, feeds))
            self.callback(self.contenders[-1].close)

    def __enter__(self) -> Self:
        return self


def _serve(requests: Connection, way: Way, feeds: dict[str, Array]) -> None:
    if way.cores and hasattr(os, "sched_setaffinity"):  # Linux alone has it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: way.cores])
    run = way.open(feeds)
    while True:
        try:
            count = requests.recv()
        except EOFError:
            return
        requests.send(_turn(run, count) if count else run())


def _turn(run: Callable[[], Any], count: int) -> list[float]:
    spent = []
    for _ in range(count):
        before = time.perf_counter_ns()
        run()
        spent.append((time.perf_counter_ns() - before) / 1e6)
    return spent
