"""Names the pass of a pipeline that changes answers, and cuts out the part that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ..backends.data import Data
from ..backends.errors import OnnxpressError
from ..backends.feeds import Kind
from ..backends.targets import Target
from ..passes.analysis.fidelity import is_text
from ..passes.base import EXACT, Context, Contract, Pass
from .manager import apply, check_needs
from .model_io import save
from .pipeline import FIXPOINT_LIMIT, Fixpoint, Pipeline, Step, as_pipeline
from .reduce import Reduced, reduce_fault
from .structure import check_structure
from .verify import Verification, Verifier


@dataclass
class BisectReport:
    """Which pass is wrong, if any.

    Attributes:
        status: ``found``, ``no-fault``, or ``not-run`` where the original cannot be run.
        guilty: The pass, as pipeline text.
        position: Which of the steps that changed the model it is, from 1.
        reason: What is wrong after it, or why nothing could be run.
        steps: The steps that changed the model, in order.
        checks: How many models were compared with the original.
        reduced: A small model that shows the fault.
        files: Where it was written, with the inputs that show it beside it.
    """

    status: Literal["found", "no-fault", "not-run"] = "no-fault"
    guilty: str = ""
    position: int = 0
    reason: str = ""
    steps: list[str] = field(default_factory=list)
    checks: int = 0
    reduced: Reduced | None = None
    files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The object that ``onnxpress bisect --json`` prints."""
        reduced = None
        if self.reduced is not None:
            reduced = {
                "nodes": list(self.reduced.nodes),
                "reason": self.reduced.reason,
                "tests": self.reduced.tests,
                "files": self.files,
            }
        return {
            "status": self.status,
            "guilty": self.guilty,
            "position": self.position,
            "reason": self.reason,
            "steps": self.steps,
            "checks": self.checks,
            "reduced": reduced,
        }


@dataclass(frozen=True)
class _State:
    """The model after ``step``; ``error`` if the step did not leave one."""

    step: Step
    model: ir.Model
    error: str = ""

    @property
    def contract(self) -> Contract:
        return self.step.run.contract if isinstance(self.step.run, Pass) else EXACT


def bisect(
    model: ir.Model,
    passes: str | Pipeline | Iterable[ir.passes.PassBase],
    *,
    target: Target | None = None,
    data: Data | None = None,
    dims: Mapping[str, int] | None = None,
    kinds: Mapping[str, str | Kind] | None = None,
    seed: int = 0,
    reduce_to: Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> BisectReport:
    """Find the first pass of ``passes`` after which the answers are not the original's.

    All passes run first, none is undone; then the models in between are compared with the
    original, by halves. An approximate pass moves the answers, so what follows it is compared
    with its result. The pass that is named turned right answers into wrong ones, or failed.

    Args:
        model: The original; it is not changed.
        passes: Pipeline text, passes in order, or a pipeline.
        target: What the passes compile for.
        data: Samples, for passes that calibrate and for the comparison.
        dims: Sizes of dynamic dimensions that are settled.
        kinds: Kinds of values by input name.
        seed: The root of every random choice.
        reduce_to: Where to write a small model that still shows the fault; its inputs go beside
            it, with the suffix ``.npz``.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        PipelineError: ``passes`` is text that is not well formed.
        PassError: A pass needs data and there is none.
        UsageError: ``dims`` or ``kinds`` name what the model does not have.
        DataError: The data does not fit the model.
        OutputError: ``reduce_to`` cannot be written.
    """
    pipeline = as_pipeline(passes)
    context = Context(target or Target(), data, seed=seed, dims=dict(dims or {}))
    check_needs(pipeline, context)
    tell = progress or context.progress
    tell("running the original", 0, None)
    verifier = Verifier(
        model, data=data, dims=dims, kinds=kinds, seed=seed, provider=context.target.provider
    )
    report = BisectReport()
    tell("running the passes", 0, None)
    states = _run_all(model, pipeline, context)
    report.steps = [str(state.step) for state in states]
    found = _find(model, states, verifier, report, tell)
    if found is None:
        return report
    before, state = found
    report.status, report.guilty = "found", str(state.step)
    if reduce_to is not None:
        tell("reducing the model", 0, None)
        report.reduced = reduce_fault(
            before,
            lambda part: _applied(state.step, part, context),
            state.contract,
            verifier.feeds,
        )
        if report.reduced is None:
            report.reason += " (no part of the model shows it by itself)"
        else:
            report.files = _write(report.reduced, reduce_to)
    return report


def _run_all(model: ir.Model, pipeline: Pipeline, context: Context) -> list[_State]:
    """The model after every step that changed it; the last may be one that failed."""
    states: list[_State] = []
    current = model
    for item in pipeline:
        rounds = FIXPOINT_LIMIT if isinstance(item, Fixpoint) else 1
        steps = list(item.steps.steps()) if isinstance(item, Fixpoint) else [item]
        for _ in range(rounds):
            count = len(states)
            for step in steps:
                try:
                    result = _result(step, current.clone(), context)
                except OnnxpressError as error:
                    return [*states, _State(step, current, error.message)]
                if result.modified:
                    current = result.model
                    states.append(_State(step, current.clone()))
            if len(states) == count:
                break
    return states


def _result(step: Step, model: ir.Model, context: Context) -> ir.passes.PassResult:
    """Run ``step`` on ``model``.

    Raises:
        PassError: It raised, or left a model that is not well formed.
    """
    inputs = [value.name or "" for value in model.graph.inputs]
    outputs = [value.name or "" for value in model.graph.outputs]
    result = apply(step, model, context)
    check_structure(result.model, inputs, outputs)
    return result


def _applied(step: Step, model: ir.Model, context: Context) -> ir.Model | None:
    result = _result(step, model, context)
    return result.model if result.modified else None


def _find(
    model: ir.Model,
    states: list[_State],
    verifier: Verifier,
    report: BisectReport,
    tell: Callable[[str, int, int | None], None],
) -> tuple[ir.Model, _State] | None:
    """The first wrong step and the model before it; the report gets the reason."""
    models = [model, *(state.model for state in states)]

    def wrong(at: int) -> Verification | None:
        """What is wrong with the model after step ``at``, counted from 1."""
        state = states[at - 1]
        if state.error:
            return Verification("failed", state.error)
        report.checks += 1
        tell("comparing", report.checks, None)
        found = verifier.check(state.model, state.contract)
        if found.status == "not-run":
            report.status, report.reason = "not-run", found.reason
        return found if found.status == "failed" else None

    start = 0
    for end in _segments(states):
        if (fault := wrong(end)) is not None:
            low, high = start, end
            while high - low > 1:
                middle = (low + high) // 2
                if (earlier := wrong(middle)) is not None:
                    high, fault = middle, earlier
                else:
                    low = middle
            report.position, report.reason = high, fault.reason
            return models[high - 1], states[high - 1]
        if report.status == "not-run":
            return None
        if not states[end - 1].contract.exact:
            verifier.rebase(states[end - 1].model)
        start = end
    return None


def _segments(states: list[_State]) -> list[int]:
    """After which steps to compare: before and after each approximate one, and at the end."""
    ends = set()
    for at, state in enumerate(states, start=1):
        if not state.contract.exact or state.error:
            ends |= {at - 1, at}
    return sorted((ends | {len(states)}) - {0})


def _write(reduced: Reduced, path: Path) -> list[str]:
    """Write the reduced model and its inputs."""
    written = [str(one) for one in save(reduced.model, path, force=True)]
    # As --data takes it: one leading axis of samples for all inputs, if one of them is a scalar.
    scalar = any(array.ndim == 0 for array in reduced.feeds.values())
    arrays: dict[str, Any] = {
        name: (array.astype(str) if is_text(array) else array)[(None,) if scalar else ()]
        for name, array in reduced.feeds.items()
    }
    inputs = path.with_suffix(".npz")
    np.savez(inputs, **arrays)
    return [*written, str(inputs)]
