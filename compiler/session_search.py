"""Session options that make a model faster on this machine, found by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeAlias

from ..backends.base import SessionConfig
from ..backends.options import options_of
from .records import Progress, silent
from .report_text import options_text
from .session_file import DENORMALS

SECONDS: Final = 2.0
"""How long two sets of options are timed against each other."""
CLOSING: Final = 6.0
"""How long the options that won are timed against the default session."""
SPINNING: Final = "session.intra_op.allow_spinning"

NOT_MEASURED: Final[dict[str, Any]] = {
    "status": "not-measured",
    "reason": "session options are measured at level 3",
}

Change: TypeAlias = Callable[[SessionConfig], SessionConfig]


class Duel(Protocol):
    """Times two sets of options for one model; :class:`~.session_duel.Duels` by default.

    The answer is as :func:`~.latency.latency_before_and_after` gives it.
    """

    def __call__(
        self, before: SessionConfig, after: SessionConfig, seconds: float
    ) -> dict[str, Any]:
        """Time both, interleaved, for about so many ``seconds``."""
        ...


@dataclass
class SessionSearch:
    """Tries session options one after the other, and keeps each that is faster.

    Each is timed, interleaved, against the best so far. At the end the best is timed against the
    default session, longer, since the best of many is partly the luckiest: that ratio is reported,
    and only where it is *faster* by its whole interval the options are worth a file. What is faster
    has to give the default session's answers as well.

    Args:
        default: The session without any option set, but for provider and what threads were asked
            for.
        duel: Times two sets of options.
        disagreement: How the answers differ from the default session's; empty where they agree.
        cores: How many cores there are for threads to run on.
        choose_threads: Whether the number of threads is to be chosen.
        changes: What to try, in order, instead of all there is.
        deadline: When to stop trying, by ``clock``.
        progress: Called as ``progress(stage, done, total)``.
        clock: Seconds of a monotonic clock.
    """

    default: SessionConfig
    duel: Duel
    disagreement: Callable[[SessionConfig], str]
    cores: int = 1
    choose_threads: bool = True
    changes: Iterable[Change] | None = None
    deadline: float = float("inf")
    progress: Progress = silent
    clock: Callable[[], float] = time.monotonic
    tried: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> tuple[SessionConfig | None, dict[str, Any]]:
        """The best options, ``None`` where nothing beats the default session, and the report."""
        best = self.default
        changes = list(self._changes() if self.changes is None else self.changes)
        for number, change in enumerate(changes):
            candidate = change(best)
            if candidate == best:
                continue
            if self.clock() > self.deadline:
                self._note(best, candidate, {"verdict": "not tried", "reason": "no time was left"})
                continue
            self.progress("session options", number, len(changes))
            if self._wins(best, candidate):
                best = candidate
        return self._closed(best)

    def _changes(self) -> Iterator[Change]:
        """What to try, in order: first threads, which the others depend on."""
        if self.choose_threads:
            for count in thread_counts(self.cores):
                yield _setting(threads=count)
        yield _setting(level="extended")
        yield _setting(level="basic")
        if self.default.provider == "cpu":
            yield _entry(DENORMALS, "1")
        yield _setting(mem_pattern=False)
        yield _setting(arena=False)
        if self.cores > 1:
            spin = _entry(SPINNING, "0")
            yield lambda config: config if config.threads == 1 else spin(config)

    def _wins(self, best: SessionConfig, candidate: SessionConfig) -> bool:
        found = self.duel(best, candidate, SECONDS)
        wins = found.get("verdict") == "faster"
        if wins and (problem := self.disagreement(candidate)):
            found, wins = found | {"reason": problem}, False
        self._note(best, candidate, found, kept=wins)
        return wins

    def _note(
        self,
        best: SessionConfig,
        candidate: SessionConfig,
        found: Mapping[str, Any],
        *,
        kept: bool = False,
    ) -> None:
        entry = {
            "option": options_text(_difference(best, candidate)),
            "verdict": found.get("verdict", "not measured"),
            "kept": kept,
        }
        entry |= {key: found[key] for key in ("speedup", "ci95", "reason") if found.get(key)}
        self.tried.append(entry)

    def _closed(self, best: SessionConfig) -> tuple[SessionConfig | None, dict[str, Any]]:
        report = {"status": "measured", "options": {}, "tried": self.tried}
        if best == self.default:
            if not any("speedup" in entry for entry in self.tried):
                reason = next((e["reason"] for e in self.tried if "reason" in e), "nothing to try")
                return None, report | {"status": "not-measured", "reason": reason}
            return None, report | {"verdict": "no faster options were found"}
        self.progress("session options, closing measurement", 0, None)
        found = self.duel(self.default, best, CLOSING)
        if found.get("verdict") != "faster":
            return None, report | {"verdict": "no faster options were found"}
        return best, report | found | {"options": options_of(best)}


def waiting_changes() -> tuple[Change, ...]:
    """Threads that sleep while there is nothing for them to do, and no threads at all.

    Threads that spin are there sooner, and take the cores from whatever else runs on them.
    """
    return _entry(SPINNING, "0"), _setting(threads=1)


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads worth trying beside ONNX Runtime's own choice."""
    powers = [1 << power for power in range(cores.bit_length())]
    return [*(count for count in powers if count < cores), cores]


def _setting(**options: Any) -> Change:
    return lambda config: replace(config, **options)


def _entry(key: str, value: str) -> Change:
    return lambda config: replace(config, entries={**config.entries, key: value})


def _difference(best: SessionConfig, candidate: SessionConfig) -> dict[str, Any]:
    """The options that ``candidate`` sets otherwise than ``best``."""
    before, after = options_of(best), options_of(candidate)
    changed = {k: v for k, v in after.items() if k != "config_entries" and before.get(k) != v}
    entries = {k: v for k, v in candidate.entries.items() if best.entries.get(k) != v}
    return changed | ({"config_entries": entries} if entries else {})
