"""From a model to a better one and a report: the work behind every compiling command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir

from ..backends.base import SessionConfig
from ..backends.data import Data
from ..backends.errors import PassError, VerificationError
from ..backends.targets import Target, TargetName
from ..passes.analysis import cost
from ..passes.base import EXACT, Context, Contract, Pass
from .manager import Hook, PassManager, Run, check_needs
from .pipeline import Pipeline, as_pipeline, preset
from .report import Report
from .verify import Verifier

Progress: TypeAlias = Callable[[str, int, int | None], None]

NOT_VERIFIED = {"status": "not-run", "reason": "verification was turned off"}
NOT_TIMED = {"status": "not-measured", "reason": "timing was turned off"}


def _silent(_stage: str, _done: int, _total: int | None) -> None:
    """Nobody asked for progress."""


@dataclass(frozen=True)
class Settings:
    """How to compile, apart from which passes to run.

    Attributes:
        target: Where the result will run.
        data: Samples, for passes that calibrate, for verification and for timing.
        dims: Sizes of named dynamic dimensions.
        seed: The root of every random choice.
        verify: Check answers after every step and at the end.
        time: Measure latency before and after.
        threads: Intra-op threads for timing; 0 is ONNX Runtime's choice.
        strict: Raise at the first wrong step instead of undoing it.
        reproduce: A folder for models on which a step was wrong.
        hooks: Called around every step.
        progress: Called as ``progress(stage, done, total)``.
    """

    target: Target = field(default_factory=Target)
    data: Data | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    verify: bool = True
    time: bool = False
    threads: int = 0
    strict: bool = False
    reproduce: Path | None = None
    hooks: Sequence[Hook] = ()
    progress: Progress = _silent


@dataclass(frozen=True)
class Outcome:
    """The compiled model, and everything there is to say about how it came about."""

    model: ir.Model
    report: Report


def compression(*, macs: float | None = None, quantize: str | None = None) -> Pipeline:
    """Pruning to the fraction ``macs``, then quantization by the scheme ``quantize``, if asked for.

    Raises:
        PipelineError: A value that the pass does not take.
    """
    pipeline = Pipeline()
    if macs is not None:
        pipeline += as_pipeline(f"fold-batch-norm,prune-channels{{macs={macs}}},cleanup")
    if quantize is not None:
        pipeline += as_pipeline(f"fold-batch-norm,insert-qdq{{scheme={quantize}}}")
    return pipeline


def compile_model(
    model: ir.Model,
    passes: str | Pipeline | Iterable[ir.passes.PassBase],
    settings: Settings | None = None,
) -> Outcome:
    """Run ``passes`` over a copy of ``model``, check it, time it, and report.

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
    verifier = _verifier(model, settings)
    manager = PassManager(
        pipeline,
        checker=verifier,
        hooks=settings.hooks,
        strict=settings.strict,
        reproduce=settings.reproduce,
    )
    run = manager.run(model, context)
    verified = _final_check(model, run, pipeline, settings, verifier)
    latency = _latency(model, run, settings)
    return Outcome(run.model, _report(model, run, pipeline, settings, verified, latency, started))
