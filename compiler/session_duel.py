"""Session options of one model, timed and checked in processes of their own."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import onnx_ir as ir

from ..backends.base import Feeds, Session, SessionConfig
from ..backends.environment import usable_cores
from ..backends.errors import BackendError, DataError
from ..backends.ort import session_of
from ..backends.remote import RemoteSession
from ..backends.timing import compare_latency
from ..passes.analysis.cost import weight_bytes
from .latency import LARGE, Stopwatch
from .model_io import save
from .session_file import DENORMALS
from .session_search import NOT_MEASURED, SessionSearch
from .settings import Settings
from .verify import Verifier


class Duels:
    """Times sessions of one model file against each other; use it in ``with``.

    The session that is timed first keeps its process until another one is, since it is mostly the
    best so far.
    """

    def __init__(self, model: Path, feeds: Feeds, *, seed: int = 0) -> None:
        self.model = model
        self.feeds = feeds
        self.seed = seed
        self._first: tuple[SessionConfig, RemoteSession] | None = None

    def __call__(
        self, before: SessionConfig, after: SessionConfig, seconds: float
    ) -> dict[str, Any]:
        """Time both, interleaved; keys as in the reports."""
        try:
            with RemoteSession(self.model, after, self.feeds) as second:
                runs = [self._session(before), second]
                timings = compare_latency(runs, seconds=seconds, warmup=0.3, seed=self.seed)
        except BackendError as error:
            return {"status": "not-measured", "reason": error.message}
        pair, latencies = timings.pair(0, 1), timings.latencies
        return {
            "status": "measured",
            "before": asdict(latencies[0]),
            "after": asdict(latencies[1]),
            "speedup": pair.speedup,
            "ci95": list(pair.ci95),
            "verdict": pair.verdict,
        }

    def _session(self, config: SessionConfig) -> RemoteSession:
        if self._first is not None and self._first[0] == config:
            return self._first[1]
        self._close()
        self._first = config, RemoteSession(self.model, config, self.feeds)
        return self._first[1]

    def _close(self) -> None:
        if self._first is not None:
            self._first[1].close()
            self._first = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._close()


def choose_session(
    model: ir.Model,
    settings: Settings,
    stopwatch: Stopwatch,
    verifier: Callable[[], Verifier],
) -> tuple[SessionConfig | None, dict[str, Any]]:
    """The session options with which ``model`` is fastest on this machine, and the report.

    Args:
        model: The model; it is written to a temporary file for the processes that run it.
        settings: As for the compilation.
        stopwatch: Has the inputs to time with.
        verifier: Makes a verifier that has ``model`` as its original.
    """
    if settings.budget is None:
        return None, NOT_MEASURED
    if not settings.time:
        return None, {"status": "not-measured", "reason": "timing was turned off"}
    if weight_bytes(model) > LARGE:
        reason = "the weights are too large to be loaded by several processes"
        return None, {"status": "not-measured", "reason": reason}
    try:
        feeds = stopwatch.feeds
    except (BackendError, DataError) as error:
        return None, {"status": "not-measured", "reason": error.message}
    check = verifier() if settings.verify else None
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        file = Path(folder) / "model.onnx"
        save(model, file)
        with Duels(file, feeds, seed=settings.seed) as duels:
            return SessionSearch(
                SessionConfig(provider=settings.target.provider, threads=settings.threads),
                duels,
                disagreement=lambda config: _disagreement(check, model, file, config),
                cores=usable_cores(),
                choose_threads=settings.threads == 0,
                deadline=time.monotonic() + settings.budget / 2,
                progress=settings.progress,
            ).run()


def _disagreement(
    verifier: Verifier | None, model: ir.Model, file: Path, options: SessionConfig
) -> str:
    """How ``model``, saved as ``file``, answers otherwise with ``options``; empty if it does not.

    What could not be compared counts as different.
    """
    if verifier is None:
        return "the answers were not checked" if options.entries.get(DENORMALS) else ""
    opened: list[RemoteSession] = []

    def sessions(
        model: ir.Model,
        config: SessionConfig = options,
        outputs: Sequence[str] | None = None,
    ) -> Session:
        if config.level != "all":
            return session_of(model, config, outputs)
        opened.append(RemoteSession(file, options))
        return opened[-1]

    with_options = copy.copy(verifier)
    with_options.sessions = sessions
    try:
        verdict = with_options.run(model)
    finally:
        for session in opened:
            session.close()
    if verdict.status == "ok":
        return ""
    word = "differ" if verdict.status == "failed" else "were not checked"
    return f"the answers {word}: {verdict.reason}"
