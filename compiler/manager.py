"""The pass manager: runs a pipeline, checks every step, and undoes the ones that are wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from ..backends.errors import OnnxpressError, PassError, VerificationError
from ..passes.analysis.cost import node_count, weight_bytes
from ..passes.base import EXACT, Context, Pass, Result
from ..passes.held import held
from .collection import without_collection
from .pipeline import FIXPOINT_LIMIT, Fixpoint, Pipeline, Step, as_pipeline
from .records import LEFT_OUT, Checker, Hook, PassRecord, Run, Verdict
from .structure import check_structure
from .weigh import Scales

__all__ = [
    "Checker",
    "Hook",
    "PassManager",
    "PassRecord",
    "Run",
    "Verdict",
    "apply",
    "check_needs",
    "replay",
]


class PassManager:
    """Runs a pipeline over a model and keeps only the steps that are right.

    After each step that changed something: the structural check, then ``checker`` if there is
    one. A step that raises, breaks the structure or changes answers beyond its contract is
    undone, named in the records, and not run again; the rest goes on. With ``strict`` the first
    such step raises instead.

    Args:
        passes: Pipeline text, passes in order, or a :class:`~.pipeline.Pipeline`.
        checker: Compares results with the original; ``None`` checks the structure only.
        hooks: Called around every step.
        strict: Raise instead of quarantining.
        reproduce: A folder in which each quarantined step leaves the model it was wrong on.
        withdrawn: Steps that are not run, each with the reason that its record then gives.

    Raises:
        PipelineError: ``passes`` is text that is not well formed.
    """

    def __init__(
        self,
        passes: str | Pipeline | Iterable[ir.passes.PassBase],
        *,
        checker: Checker | None = None,
        hooks: Sequence[Hook] = (),
        strict: bool = False,
        reproduce: Path | None = None,
        withdrawn: Mapping[Step, str] | None = None,
    ) -> None:
        self.pipeline = as_pipeline(passes)
        self.checker = checker
        self.hooks = tuple(hooks)
        self.strict = strict
        self.reproduce = reproduce
        self.withdrawn = dict(withdrawn or {})

    def run(self, model: ir.Model, context: Context | None = None) -> Run:
        """Run the pipeline on a copy of ``model``, which itself stays as it is.

        Raises:
            PassError: A pass needs data and there is none; raised before anything runs. Or, with
                ``strict``, a pass failed or broke the model.
            VerificationError: With ``strict``, a pass changed answers beyond its contract.
        """
        context = context or Context()
        check_needs(self.pipeline, context)
        started = time.perf_counter()
        progress = _Progress(self, model, context)
        # A checker's sessions and answers are large, so that there garbage is better collected.
        with without_collection() if self.checker is None else nullcontext():
            progress.run_all(self.pipeline)
        kept = model.clone() if progress.kept is model else progress.kept
        seconds = time.perf_counter() - started
        applied, left_out = progress.applied, self.withdrawn
        return Run(kept, progress.records, seconds, progress.verdict, applied, left_out)


def check_needs(pipeline: Pipeline, context: Context) -> None:
    """Check that ``context`` has what the passes of ``pipeline`` need.

    Raises:
        PassError: A pass needs calibration data and there is none.
    """
    for step in pipeline.steps():
        if isinstance(step.run, Pass) and step.run.requires_data() and context.data is None:
            raise PassError(
                f"{step.name} needs data and got none",
                hint="give samples with --data: an .npz keyed by input name, a folder of .npy "
                "or .npz, or module:function; a few hundred unlabelled samples are enough",
            )


def apply(step: Step, model: ir.Model, context: Context) -> ir.passes.PassResult:
    """Run ``step`` on ``model`` in place, with nothing checked but the pass's own conditions.

    What ``context`` holds back of it is left as it is.

    Raises:
        PassError: It raised; the model may be left half rewritten.
    """
    try:
        step.run.requires(model)
        with held(model, context.held.get(str(step), ())):
            if isinstance(step.run, Pass):
                result: ir.passes.PassResult = step.run.rewrite(model, context)
            else:
                result = step.run(model)
        step.run.ensures(result.model)
    except (OnnxpressError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise PassError(f"{type(error).__name__}: {error}") from error
    return result


def replay(model: ir.Model, steps: Iterable[Step], context: Context) -> ir.Model:
    """A copy of ``model`` after ``steps``, each of which did its work on it before.

    Raises:
        PassError: One of them fails.
    """
    model = model.clone()
    for step in steps:
        model = apply(step, model, context).model
    return model


class _Progress:
    """One run of one pipeline: the model kept so far, and a scratch copy to rewrite."""

    def __init__(self, manager: PassManager, model: ir.Model, context: Context) -> None:
        self.manager = manager
        self.context = context
        self.scales = Scales(context)
        self.inputs = [value.name or "" for value in model.graph.inputs]
        self.outputs = [value.name or "" for value in model.graph.outputs]
        self.original = model
        # A step works on the scratch copy, which takes the place of the kept model if it is right.
        self.kept = model
        self.scratch: ir.Model | None = None
        self.applied: list[Step] = []
        self.size = (node_count(model), weight_bytes(model))
        self.records: list[PassRecord] = []
        self.refused: set[Step] = set()
        self.verdict: Verdict | None = None
        self.rebased = False
        self.total = 0

    def tell(self, stage: str, record: PassRecord) -> None:
        """Say what is being done about which of the passes."""
        position = next(at for at, one in enumerate(self.records) if one is record)
        self.context.progress(f"{record.name}: {stage}", position, self.total)

    def naming(self, record: PassRecord) -> Context:
        """The context for one pass: what it says of its progress comes with its name."""
        outer = self.context.progress

        def tell(stage: str, done: int, total: int | None) -> None:
            outer(f"{record.name}: {stage}", done, total)

        return replace(self.context, progress=tell)

    def run_all(self, pipeline: Pipeline) -> None:
        self.total = sum(1 for _ in pipeline.steps())
        for item in pipeline:
            if isinstance(item, Fixpoint):
                self.repeat(item)
                continue
            record = _record(item)
            self.records.append(record)
            self.run_step(item, record)

    def repeat(self, group: Fixpoint) -> None:
        steps = list(group.steps.steps())
        records = [_record(step) for step in steps]
        self.records.extend(records)
        for _ in range(FIXPOINT_LIMIT):
            changed = [
                self.run_step(step, record) for step, record in zip(steps, records, strict=True)
            ]
            if not any(changed):
                break

    def run_step(self, step: Step, record: PassRecord) -> bool:
        """Run ``step`` once, keep or undo what it did, and say whether the model changed."""
        if step in self.manager.withdrawn:
            record.status, record.reason = "withdrawn", self.manager.withdrawn[step]
            return False
        if step in self.refused:
            if record.status == "no-change":
                record.status, record.reason = "skipped", "it was quarantined before"
            return False
        hooks = self.manager.hooks
        if not all(hook.should_run(step, self.kept) for hook in hooks):
            record.status, record.reason = "skipped", "a hook decided so"
            return False
        for hook in hooks:
            hook.run_before_pass(step, self.kept)
        changed = self.attempt(step, record)
        for hook in hooks:
            hook.run_after_pass(step, self.kept, record)
        return changed

    def attempt(self, step: Step, record: PassRecord) -> bool:
        self.tell("rewriting", record)
        if self.scratch is None or (self.scratch is self.kept and self.scales.weighs(step)):
            self.scratch = self.kept.clone()
        started = time.perf_counter()
        try:
            result = apply(step, self.scratch, self.naming(record))
            record.seconds += time.perf_counter() - started
            _note(record, result)
            if left := self.context.held.get(str(step)):
                record.declined[LEFT_OUT] = len(left)
            if not result.modified:
                return False
            check_structure(result.model, self.inputs, self.outputs)
            reason = self.scales.verdict(step, self.kept, result.model, len(self.applied))
            if reason:
                self.withdraw(step, record, reason)
                return False
            self.verify(result.model, record)
        except OnnxpressError as error:
            if self.manager.strict:
                raise
            self.quarantine(step, record, error)
            return False
        self.keep(step, result.model, record)
        return True

    def verify(self, model: ir.Model, record: PassRecord) -> None:
        checker = self.manager.checker
        if checker is None:
            return
        self.tell("checking answers", record)
        contract = record.contract
        verdict = checker.check(model, contract)
        record.verified = verdict.status
        if verdict.status == "failed":
            raise VerificationError(verdict.reason)
        if not contract.exact:
            checker.rebase(model)
            self.rebased = True
        self.verdict = None if self.rebased else verdict

    def keep(self, step: Step, model: ir.Model, record: PassRecord) -> None:
        size = (node_count(model), weight_bytes(model))
        first = record.status == "no-change"
        record.nodes = (self.size[0] if first else record.nodes[0], size[0])
        record.bytes = (self.size[1] if first else record.bytes[1], size[1])
        record.status = "ok"
        self.kept, self.size = model, size
        self.applied.append(step)
        # What is not run fails too rarely for a copy before each step: `undo` repeats the others.
        self.scratch = model if self.manager.checker is None else None

    def withdraw(self, step: Step, record: PassRecord, reason: str) -> None:
        self.undo()
        self.refused.add(step)
        record.status, record.reason = "withdrawn", reason

    def quarantine(self, step: Step, record: PassRecord, error: OnnxpressError) -> None:
        self.undo()
        self.refused.add(step)
        record.status, record.reason = "quarantined", error.message
        if self.manager.reproduce is not None:
            record.reproduction = self.save_reproduction(step, self.manager.reproduce)

    def undo(self) -> None:
        """Let the kept model be what it was before the step that worked on the scratch copy."""
        if self.scratch is self.kept:
            self.kept = replay(self.original, self.applied, self.context)
        self.scratch = None

    def save_reproduction(self, step: Step, folder: Path) -> str:
        from .model_io import save

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(self.records):02d}-{step.name.replace(':', '.')}.onnx"
        save(self.kept, path, force=True)
        return str(path)


def _record(step: Step) -> PassRecord:
    contract = step.run.contract if isinstance(step.run, Pass) else EXACT
    return PassRecord(step.name, step.all_options(), contract)


def _note(record: PassRecord, result: ir.passes.PassResult) -> None:
    if not isinstance(result, Result):
        record.rewritten += int(result.modified)
        return
    record.rewritten += len(result.rewritten)
    record.rewrites += result.rewritten
    record.declined = Counter(result.declined.values())
    if result.details:
        record.details = result.details
