"""Choose by measuring whether members of an ensemble run stacked or side by side."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import onnx_ir as ir

from ..backends.base import Feeds, SessionConfig
from ..backends.data import Data
from ..backends.errors import BackendError, DataError
from ..backends.feeds import dynamic_dims
from ..backends.ort import session_of
from ..backends.remote import RemoteSession
from ..backends.timing import EFFECT, compare_latency
from ..passes.analysis.cost import weight_bytes
from ..passes.base import Context
from .latency import LARGE, timing_feeds
from .manager import PassManager
from .model_io import save
from .pipeline import Pipeline, parse
from .records import PassRecord
from .session_duel import Duels
from .session_search import SessionSearch, waiting_changes
from .settings import Settings

Layout: TypeAlias = Literal["auto", "stacked", "side-by-side", "mixed"]

_AHEAD: Final = "permute-weights,crop-unread"
_TIDY: Final = "simplify-layout,simplify-shapes,fold-constants,cleanup"
_LAYOUTS: Final[dict[str, tuple[str, ...]]] = {
    "side-by-side": ("",),
    "mixed": ("stack-members{layers=shared}",),
    "stacked": ("stack-members", "stack-members{matrices=conv}"),
}
"""The passes that give each layout."""

FORMS: Final = {
    passes: parse(f"{_AHEAD},{passes},{_TIDY}" if passes else _AHEAD)
    for forms in _LAYOUTS.values()
    for passes in forms
}
"""The whole pipeline, after the level's own, of each of these passes."""

_SECONDS: Final = 1.0
"""For each candidate at each batch size."""


@dataclass(frozen=True)
class _Candidate:
    layout: str
    passes: str
    pipeline: Pipeline
    model: ir.Model


def choose_layout(
    model: ir.Model,
    base: Pipeline,
    layout: Layout,
    settings: Settings,
    batches: Sequence[int] = (1,),
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline for the merged ``model``, and how the alternatives did, in JSON-ready form.

    ``auto`` compares all layouts, ``stacked`` the ways to write it, each run after ``base``. The
    fastest is kept, by the geometric mean over ``batches``; of those that differ by less than what
    counts as a difference, the first, which is the plainest.

    Args:
        model: The members side by side.
        base: What is run on it whatever the layout.
        layout: What to choose from.
        settings: Where to run and what to run on. Without ``time`` nothing is measured, and
            ``auto`` is side by side.
        batches: The batch sizes that the result will be run with, where the model leaves that open.

    Returns:
        The pipeline, and ``status``, ``chosen`` (a layout), ``passes``, and ``tried``: each
        candidate's ``layout``, ``passes`` and ``median_ms`` by batch size; where something that
        is alike was not stacked, ``declined`` says how often and why.
    """
    wanted = list(_LAYOUTS) if layout == "auto" else [layout]
    if not settings.time:
        first = "side-by-side" if layout == "auto" else layout
        pipeline = base + FORMS[_LAYOUTS[first][0]]
        report = {"status": "not-measured", "reason": "timing was turned off"}
        return pipeline, report | {"chosen": first, "passes": _LAYOUTS[first][0], "tried": []}
    candidates, declined = _candidates(model, base, wanted, settings)
    times: dict[int, list[float]] = {}
    reason = "no alternative to it was found"
    if len(candidates) > 1:
        settings.progress("timing layouts", 0, None)
        times, reason = _times(model, candidates, settings, batches)
    best = candidates[_best(list(times.values()))] if times else candidates[0]
    tried = [
        {
            "layout": one.layout,
            "passes": one.passes,
            "median_ms": {str(size): row[at] for size, row in times.items()},
        }
        for at, one in enumerate(candidates)
    ]
    measured = {"status": "measured"} if times else {"status": "not-measured", "reason": reason}
    found = {"chosen": best.layout, "passes": best.passes, "tried": tried}
    return best.pipeline, measured | found | ({"declined": dict(declined)} if declined else {})


def _candidates(
    model: ir.Model, base: Pipeline, layouts: Sequence[str], settings: Settings
) -> tuple[list[_Candidate], Counter[str]]:
    """Each layout in which something is stacked, and why other things are not."""
    context = Context(
        target=settings.target, data=settings.data, seed=settings.seed, dims=dict(settings.dims)
    )
    plain = PassManager(base).run(model, context).model
    found: list[_Candidate] = []
    declined: Counter[str] = Counter()
    for layout in layouts:
        for passes in _LAYOUTS[layout]:
            form = FORMS[passes]
            run = PassManager(form).run(plain, context)
            stacks = [one for one in run.records if one.name == "stack-members"]
            # Each layout meets the same; the one that meets most says it all.
            declined = max([declined, *(one.declined for one in stacks)], key=Counter.total)
            if any(one.modified for one in stacks) or not passes:
                found.append(_Candidate(layout, passes, base + form, run.model))
    return found or [_Candidate("side-by-side", "", base, plain)], declined


def _times(
    model: ir.Model, candidates: Sequence[_Candidate], settings: Settings, batches: Sequence[int]
) -> tuple[dict[int, list[float]], str]:
    """By batch size the median of each candidate in milliseconds; else why there is none."""
    config = SessionConfig(provider=settings.target.provider, threads=settings.threads)
    models = [one.model for one in candidates]
    times = {}
    try:
        for size in batches:
            feeds = batch_feeds(model, size, settings.data, settings.dims, settings.seed)
            with _Opened(models, config, feeds) as runs:
                timings = compare_latency(runs, seconds=_SECONDS * len(runs), seed=settings.seed)
            times[size] = [latency.median_ms for latency in timings.latencies]
    except (BackendError, DataError) as error:
        return {}, error.message
    return times, ""


class _Opened:
    """``models`` bound to ``feeds``, ready to be timed against each other.

    On more than one thread each has a process of its own: threads that spin after a run would take
    the cores from the session that is timed next.
    """

    def __init__(self, models: Sequence[ir.Model], config: SessionConfig, feeds: Feeds) -> None:
        self._models, self._config, self._feeds = models, config, feeds
        self._stack = ExitStack()

    def __enter__(self) -> list[Callable[[], None]]:
        config, feeds = self._config, self._feeds
        if config.threads == 1 or max(map(weight_bytes, self._models)) > LARGE:
            return [session_of(model, config).bind(feeds) for model in self._models]
        with self._stack as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxpress-")))
            opened: list[Callable[[], None]] = []
            for number, model in enumerate(self._models):
                save(model, file := folder / f"{number}.onnx")
                opened.append(stack.enter_context(RemoteSession(file, config, feeds)))
            self._stack = stack.pop_all()
        return opened

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def choose_waiting(
    model: ir.Model, settings: Settings, batches: Sequence[int] = (1,)
) -> tuple[SessionConfig | None, dict[str, Any]]:
    """Whether threads of ``model`` that sleep between nodes, or one thread, are faster here.

    Returns:
        The options that are faster at every batch size, ``None`` for the default ones, and the
        report, as :func:`~.session_duel.choose_session` gives them.
    """
    if not settings.time or settings.threads == 1:
        return None, {"status": "not-measured", "reason": "there is one thread, or no timing"}
    if weight_bytes(model) > LARGE:
        reason = "the weights are too large to be loaded by several processes"
        return None, {"status": "not-measured", "reason": reason}
    settings.progress("timing threads", 0, None)
    with ExitStack() as stack:
        file = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxpress-"))) / "m.onnx"
        )
        save(model, file)
        try:
            duels = [
                stack.enter_context(
                    Duels(
                        file,
                        batch_feeds(model, size, settings.data, settings.dims, settings.seed),
                        seed=settings.seed,
                    )
                )
                for size in batches
            ]
        except (BackendError, DataError) as error:
            return None, {"status": "not-measured", "reason": error.message}

        def least(before: SessionConfig, after: SessionConfig, seconds: float) -> dict[str, Any]:
            """The duel at the batch size at which ``after`` gains least."""
            found = [duel(before, after, seconds) for duel in duels]
            return min(found, key=lambda one: float(one.get("speedup", 0)))

        return SessionSearch(
            SessionConfig(provider=settings.target.provider, threads=settings.threads),
            least,
            disagreement=lambda _: "",
            changes=waiting_changes(),
            progress=settings.progress,
        ).run()


def batch_feeds(
    model: ir.Model, size: int, data: Data | None, dims: Mapping[str, int], seed: int
) -> Feeds:
    """Inputs of ``size`` samples, where ``model`` leaves their number open.

    Raises:
        DataError: None could be found or made up.
        BackendError: ONNX Runtime cannot load the model.
    """
    if data is not None:
        for feeds in data.batches(size):
            return feeds
        raise DataError("the data holds no samples")
    open_dims = {dim.name: size for dim in dynamic_dims(model) if dim.role == "batch"}
    return timing_feeds(model, dims=open_dims | dict(dims), seed=seed)


def _best(rows: Sequence[Sequence[float]]) -> int:
    """The first candidate that is not slower than the fastest by what counts as a difference."""
    scores = [
        math.exp(sum(math.log(row[at] / row[0]) for row in rows) / len(rows))
        for at in range(len(rows[0]))
    ]
    least = min(scores)
    return next(at for at, score in enumerate(scores) if score <= least * (1 + EFFECT))


def settled(layout: Mapping[str, Any], records: Sequence[PassRecord]) -> dict[str, Any]:
    """``layout`` as it came out: side by side where nothing could be stacked, and why not."""
    steps = [record for record in records if record.name == "stack-members"]
    found = dict(layout)
    if steps and not any(record.modified for record in steps):
        found["chosen"] = "side-by-side"
    for record in steps:
        if record.declined:
            found.setdefault("declined", dict(record.declined))
    return found


def layout_text(layout: Mapping[str, Any]) -> str:
    """Which layout was chosen, how long each took and what does not stack, as a plain sentence."""
    reasons = "".join(f"; not stacked: {reason}" for reason in layout.get("declined", ()))
    if layout["status"] != "measured":
        return f"{layout['chosen']}, not measured: {layout['reason']}{reasons}"
    rows = []
    for one in layout["tried"]:
        name = one["layout"] + (" (grouped Conv)" if "conv" in one["passes"] else "")
        times = ", ".join(f"{ms:.3f} ms" for ms in one["median_ms"].values())
        rows.append(f"{name} {times}")
    sizes = " and ".join(layout["tried"][0]["median_ms"])
    return f"{layout['chosen']} is fastest at batch {sizes}: {'; '.join(rows)}{reasons}"
