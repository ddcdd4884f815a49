"""Latency before and after, on inputs that the original accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Final

import onnx_ir as ir

from ..backends.base import Feeds, Provider, SessionConfig
from ..backends.data import Data
from ..backends.errors import BackendError, DataError
from ..backends.ort import session_of
from ..backends.profile import profile
from ..backends.search import find_cases
from ..backends.timing import compare_latency
from ..passes.analysis.cost import weight_bytes

WIDTH: Final = 0.03
"""What an interval may span of the speedup: more than twice of what counts as a difference."""
LARGE: Final = 1 << 30
"""Bytes of weights above which sessions keep them as they are: both models are loaded at once, and
a default session holds a second, packed copy of every matrix."""


def timing_feeds(
    model: ir.Model,
    *,
    data: Data | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Feeds:
    """Inputs to time ``model`` on: the first sample of ``data``, else the first accepted inputs.

    Raises:
        DataError: There is no sample, or nothing that could be made up is accepted.
        BackendError: ONNX Runtime cannot load the model.
    """
    if data is not None:
        for feeds in data.batches((dims or {}).get("batch", 1)):
            return feeds
        raise DataError("the data holds no samples")
    session = session_of(model, SessionConfig(level="disabled", prepacking=False))
    found = find_cases(model, session.run, dims=dims, seed=seed, wanted=1)
    if not found.accepted:
        reason = found.rejected[-1][1] if found.rejected else "no input could be made up"
        raise DataError(
            f"no inputs that the model accepts were found: {reason}", hint="give some with --data"
        )
    return found.accepted[0].feeds


class Stopwatch:
    """Times models against each other, on inputs that ``model`` accepts and that are found once.

    Args:
        model: The original.
        data, dims, seed: What the inputs are made from, see :func:`timing_feeds`.
        provider: Where to run.
        threads: Intra-op threads; 0 is ONNX Runtime's choice.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        data: Data | None = None,
        dims: Mapping[str, int] | None = None,
        seed: int = 0,
        provider: Provider = "cpu",
        threads: int = 0,
    ) -> None:
        self._find = partial(timing_feeds, model, data=data, dims=dims, seed=seed)
        self._options: dict[str, Any] = {"provider": provider, "threads": threads, "seed": seed}

    @cached_property
    def feeds(self) -> Feeds:
        """What the models are run on. Raises as :func:`timing_feeds` does."""
        return self._find()

    def __call__(self, before: ir.Model, after: ir.Model, seconds: float) -> dict[str, Any]:
        """Time both for about so many ``seconds``; see :func:`latency_before_and_after`."""
        try:
            feeds = self.feeds
        except (BackendError, DataError) as error:
            return {"status": "not-measured", "reason": error.message}
        return latency_before_and_after(before, after, feeds, seconds=seconds, **self._options)

    def profile(self, models: Sequence[ir.Model]) -> list[list[dict[str, Any]]]:
        """Where the time of each of ``models`` goes, as :func:`~..backends.profile.profile` says.

        Empty where no inputs were found that they accept.
        """
        config = SessionConfig(self._options["provider"], threads=self._options["threads"])
        try:
            return [[asdict(row) for row in profile(one, self.feeds, config)] for one in models]
        except (BackendError, DataError):
            return []


def latency_before_and_after(
    before: ir.Model,
    after: ir.Model,
    feeds: Feeds,
    *,
    provider: Provider = "cpu",
    threads: int = 0,
    seconds: float = 4.0,
    width: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Time both models interleaved in default sessions; JSON-ready, keys as in the reports.

    ``width`` is as :func:`~..backends.timing.compare_latency` takes it.

    Returns:
        ``status`` is ``measured``, with ``before`` and ``after`` (:class:`~..backends.timing.
        Latency`), ``speedup``, ``ci95``, ``verdict``, ``drift``, ``distribution``
        (:data:`~..backends.timing.QUANTILES` of both), ``threads`` and ``prepacking``, which is
        false for weights above :data:`LARGE`; or ``not-measured``, with ``reason``.
    """
    prepacking = max(weight_bytes(before), weight_bytes(after)) <= LARGE
    config = SessionConfig(provider=provider, threads=threads, prepacking=prepacking)
    try:
        runs = [session_of(model, config).bind(feeds) for model in (before, after)]
        timings = compare_latency(
            runs, ("before", "after"), seconds=seconds, width=width, seed=seed
        )
    except BackendError as error:
        return {"status": "not-measured", "reason": error.message}
    first, second = timings.latencies
    pair = timings.pair(0, 1)
    return {
        "status": "measured",
        "before": asdict(first),
        "after": asdict(second),
        "speedup": pair.speedup,
        "ci95": list(pair.ci95),
        "verdict": pair.verdict,
        "drift": pair.drift,
        "distribution": {"before": timings.distribution(0), "after": timings.distribution(1)},
        "threads": threads,
        "prepacking": prepacking,
    }
