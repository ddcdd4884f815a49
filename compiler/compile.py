"""From a model to a better one and a report: the work behind every compiling command."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from ..backends.base import SessionConfig
from ..backends.environment import environment
from ..backends.errors import VerificationError
from ..backends.feeds import sizes_in
from ..passes.analysis import cost
from ..passes.base import EXACT, Context, Contract
from .guard import Guard
from .latency import Stopwatch, timing_feeds
from .manager import PassManager, Run, check_needs, replay
from .mixed_precision import NOT_ASKED, hold_accuracy, quantizes
from .model_io import save
from .pipeline import Pipeline, Step, as_pipeline
from .prune_search import prune_as_far, prunes
from .quality import Part
from .records import LEFT_OUT, silent
from .report import Report
from .report_text import quantity
from .schemes import passes_of
from .search import NOT_MEASURED as SEARCH_NOT_MEASURED
from .search import Choices, search
from .session_duel import choose_session
from .session_file import session_path, write_session
from .settings import Settings
from .verify import Verifier

STORED: Final = 100_000
"""Bytes of weights that are not worth a word, if a pass stores them that were computed before."""

NOT_VERIFIED: dict[str, Any] = {"status": "not-run", "reason": "verification was turned off"}
NOT_TIMED: dict[str, Any] = {"status": "not-measured", "reason": "timing was turned off"}


@dataclass(frozen=True)
class Outcome:
    """The compiled model, and everything there is to say about how it came about."""

    model: ir.Model
    report: Report
    session: SessionConfig | None = None
    """Session options that are faster than the default ones; only level 3 looks for any."""

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model, and beside it its session file if other options are faster.

        Raises:
            OutputError: Something cannot be written.
        """
        save(self.model, path, force=force)
        if self.session is not None:
            write_session(session_path(path), self.session, self.report)


def compression(
    *, macs: float | None = None, quantize: str | None = None, refit: bool = True
) -> Pipeline:
    """Pruning to the fraction ``macs``, then quantization by the scheme ``quantize``, if asked for.

    Without ``refit`` nothing is fitted after rounding.

    Raises:
        PipelineError: A value that the pass does not take.
        UsageError: There is no such scheme.
    """
    pipeline = Pipeline()
    if macs is not None:
        pipeline += as_pipeline(f"fold-batch-norm,prune-channels{{macs={macs}}},cleanup")
    if quantize is not None:
        pipeline += as_pipeline(passes_of(quantize, refit=refit))
    return pipeline


def compile_model(
    model: ir.Model,
    passes: str | Pipeline | Iterable[ir.passes.PassBase],
    settings: Settings | None = None,
) -> Outcome:
    """Run ``passes`` over a copy of ``model``, check it, time it, and report.

    Where latency is measured, passes that make the result slower are withdrawn (:class:`~.guard.
    Guard`).

    Raises:
        PipelineError: ``passes`` is text that is not well formed.
        PassError: A pass lacks what it needs; raised before anything runs.
        VerificationError: The result as a whole does not give the original's answers.
        DataError: The data does not fit the model.
    """
    settings = settings or Settings()
    started = time.perf_counter()
    pipeline = as_pipeline(passes)
    context = Context(
        target=settings.target,
        data=settings.data,
        seed=settings.seed,
        dims=dict(settings.dims),
        progress=settings.progress,
    )
    check_needs(pipeline, context)
    stopwatch = Stopwatch(
        model,
        data=settings.data,
        dims=settings.dims,
        seed=settings.seed,
        provider=settings.target.provider,
        threads=settings.threads,
    )
    accuracy = NOT_ASKED
    if settings.demand is not None:
        timer = stopwatch if settings.time else None
        if prunes(pipeline) and not quantizes(pipeline):
            held = prune_as_far(model, pipeline, settings.demand, context)
        else:
            held = hold_accuracy(model, pipeline, settings.demand, context, timer)
        pipeline, accuracy = held.pipeline, held.report
        if settings.data is not None:
            context = replace(context, data=Part(settings.data, held=False))
    run, latency, searched = _searched(model, pipeline, context, settings, stopwatch)
    verified = _verified(model, run, settings) if settings.verify else NOT_VERIFIED
    session, session_report = choose_session(
        run.model, settings, stopwatch, lambda: _verifier(run.model, settings)
    )
    both = (model, run.model)
    weights = [cost.weight_bytes(one) for one in both]
    sizes = _sizes(model, verified, settings)
    report = Report(
        input="",
        output="",
        target=settings.target.name,
        pipeline=str(pipeline),
        nodes=[cost.node_count(one) for one in both],
        bytes=weights,
        macs=[cost.macs(one, sizes) for one in both],
        parameters=[cost.parameters(one) for one in both],
        passes=run.records,
        verified=verified,
        latency=latency,
        search=searched,
        session=session_report,
        accuracy=accuracy,
        seconds=time.perf_counter() - started,
        environment=environment(),
        operators=[cost.operators(one) for one in both],
        sizes=sizes,
        profile=stopwatch.profile(both) if settings.profile else [],
        warnings=_warnings(run, verified, latency, weights[1] - weights[0])
        + ([accuracy["reason"]] if accuracy["status"] == "not-worth-it" else []),
    )
    return Outcome(run.model, report, session)


def _run(
    model: ir.Model, pipeline: Pipeline, context: Context, settings: Settings, choices: Choices
) -> Run:
    manager = PassManager(
        pipeline,
        checker=_verifier(model, settings) if settings.verify else None,
        hooks=settings.hooks,
        strict=settings.strict,
        reproduce=settings.reproduce,
        withdrawn=choices.withdrawn,
    )
    return manager.run(model, replace(context, held=choices.held))


def _guarded(
    model: ir.Model,
    pipeline: Pipeline,
    context: Context,
    settings: Settings,
    stopwatch: Stopwatch,
    choices: Choices = Choices(),  # noqa: B008
) -> tuple[Run, dict[str, Any]]:
    """The pipeline run over ``model`` without the passes that do not pay, and the latency."""

    def again(withdrawn: Mapping[Step, str]) -> Run:
        more = replace(choices, withdrawn={**choices.withdrawn, **withdrawn})
        return _run(model, pipeline, context, settings, more)

    run = again({})
    if not settings.time:
        return run, NOT_TIMED
    if not run.applied:
        return run, {"status": "not-measured", "reason": "no pass changed the model"}
    held = replace(context, held=choices.held)
    guard = Guard(
        model,
        stopwatch,
        rerun=again,
        replay=lambda steps: replay(model, steps, held),
        progress=settings.progress,
    )
    return guard.settle(run)


def _searched(
    model: ir.Model, pipeline: Pipeline, context: Context, settings: Settings, stopwatch: Stopwatch
) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """As :func:`_guarded`, at level 3 without the rewrites that do not pay, and how they did."""
    run, latency = _guarded(model, pipeline, context, settings, stopwatch)
    if settings.budget is None:
        return run, latency, SEARCH_NOT_MEASURED
    if not settings.time:
        return run, latency, {"status": "not-measured", "reason": "timing was turned off"}
    quiet = replace(context, progress=silent)
    unchecked = replace(settings, verify=False, hooks=(), reproduce=None, progress=silent)
    choices, report = search(
        run,
        stopwatch,
        lambda wanted: _run(model, pipeline, quiet, unchecked, wanted).model,
        budget=settings.budget / 2,
        progress=settings.progress,
    )
    if choices is not None:
        run, latency = _guarded(model, pipeline, context, settings, stopwatch, choices)
    return run, latency, report


def _verifier(model: ir.Model, settings: Settings) -> Verifier:
    settings.progress("running the original", 0, None)
    return Verifier(
        model,
        data=settings.data,
        dims=settings.dims,
        seed=settings.seed,
        provider=settings.target.provider,
    )


def _verified(model: ir.Model, run: Run, settings: Settings) -> dict[str, Any]:
    """The check of the result as a whole against the original.

    The manager's last verdict is just that, unless an approximate pass moved its reference.

    Raises:
        VerificationError: The answers are not the original's.
    """
    contract = _weakest(run)
    verdict = run.verdict
    if verdict is None:
        settings.progress("checking the result", 0, None)
        verdict = _verifier(model, settings).check(run.model, contract)
    if verdict.status == "failed":
        raise VerificationError(
            f"the result does not give the original's answers: {verdict.reason}",
            hint="`onnxpress bisect` names the pass; --reproduce keeps the model it was wrong on",
        )
    return {**verdict.to_json(), "exact": contract.exact}


def _weakest(run: Run) -> Contract:
    """What the kept passes together promise."""
    kept = [record.contract for record in run.records if record.modified]
    loose = [contract for contract in kept if not contract.exact]
    if not loose:
        return EXACT
    changes = "; ".join(contract.changes for contract in loose)
    # Each pass was held to its own floor; noises add up, so their sum gets 3 dB a doubling.
    floor = min(contract.min_sqnr_db for contract in loose) - 10 * math.log10(len(loose))
    return Contract(exact=False, changes=changes, min_sqnr_db=floor)


def _sizes(model: ir.Model, verified: dict[str, Any], settings: Settings) -> dict[str, int]:
    """The sizes to count at: those of one sample, else the first that the original accepted.

    Raises:
        DataError: There are no samples in the data.
    """
    if settings.data is None:
        accepted: list[dict[str, int]] = verified.get("sizes") or [{}]
        return accepted[0] | dict(settings.dims)
    return sizes_in(model, timing_feeds(model, data=settings.data, dims=settings.dims))


def _withdrawn(run: Run) -> dict[str, str]:
    """Why each pass that did not pay was withdrawn, however often it stands in the pipeline."""
    return {record.name: record.reason for record in run.withdrawn}


def _warnings(run: Run, verified: dict[str, Any], latency: dict[str, Any], grown: int) -> list[str]:
    found = [
        f"{record.name} was wrong and is undone: {record.reason}" for record in run.quarantined
    ]
    found += [
        f"{name} is withdrawn: {reason}"
        for name, reason in _withdrawn(run).items()
        if reason != LEFT_OUT
    ]
    storing = {record.name for record in run.records if record.options.get("max_weight")}
    found += [
        f"the weights are {quantity(grown, 'B')} larger: {name} stored those that nodes computed, "
        "and does not where --passes gives it no max_weight"
        for name in storing
        if grown > STORED
    ]
    if verified["status"] != "ok" and verified is not NOT_VERIFIED:
        found.append(f"the answers were not checked: {verified['reason']}")
    found += [
        f"not checked: {text}"
        for text in verified.get("not_run", ())
        if text != verified.get("reason")
    ]
    for name, output in verified.get("outputs", {}).items():
        if verified["status"] == "ok" and output["status"] != "ok":
            found.append(f"the output {name!r} is {output['status']}: {output['reason']}")
    if latency.get("verdict") == "slower":
        found.append(
            "the result is slower than the original on this machine, by a pass that changes "
            "answers on purpose and is kept for what else it gives"
        )
    return found
