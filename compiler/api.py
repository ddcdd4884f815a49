"""The Python front door: what the command line does, from live objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from ..backends.data import Data, open_data
from ..backends.environment import detect_target
from ..backends.ort import check_provider, specs_of
from ..backends.targets import Target
from .compile import Outcome, compile_model
from .manager import Hook
from .model_io import load, load_proto
from .pipeline import Pipeline, preset
from .records import Progress
from .settings import BUDGET, Settings

ModelLike: TypeAlias = ir.Model | onnx.ModelProto | str | Path


def as_model(model: ModelLike) -> ir.Model:
    """``model`` as the IR: a file is read, a ``ModelProto`` is converted, an IR model is itself.

    Raises:
        ModelError: The file cannot be read or is not valid ONNX.
    """
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        return load_proto(model)
    return load(Path(model))


def optimize(
    model: ModelLike,
    passes: str | Pipeline | Iterable[ir.passes.PassBase] | None = None,
    *,
    level: int = 2,
    target: str | Target = "cpu",
    data: str | Path | Data | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    verify: bool = True,
    time: bool | None = None,
    threads: int = 0,
    budget: float | None = None,
    strict: bool = False,
    reproduce: Path | None = None,
    hooks: Sequence[Hook] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Compile ``model`` and check the result; the model given stays as it is.

    Args:
        model: An ``onnx_ir`` model, a ``ModelProto`` or a file.
        passes: Pipeline text, passes in order, or a pipeline; ``None`` takes the preset of
            ``level``.
        level: 0 nothing, 1 lossless with standard operators, 2 lossless for the target, 3 as 2
            with what it leaves open settled by measuring.
        target: ``portable``, ``cpu``, ``cuda``, or a :class:`Target` with the CPU features of
            another machine.
        data: Samples, for passes that calibrate, for checking and timing: what ``--data`` takes,
            or an object with ``batches(size)``.
        dims: Sizes of named dynamic dimensions.
        seed: The root of every random choice.
        verify: Check the answers after every pass and at the end.
        time: Measure latency before and after, and withdraw the passes that make the result
            slower; takes a few seconds. By default where ``budget`` is to be used.
        threads: Threads for timing; 0 is ONNX Runtime's choice.
        budget: Seconds for settling by measuring what passes and sessions leave open; 120 at level
            3, and nothing is settled at others.
        strict: Raise at the first wrong pass instead of undoing it.
        reproduce: A folder for models on which a pass was wrong.
        hooks: Called around every pass.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        The compiled model and the report.

    Raises:
        ModelError: The model cannot be read.
        PipelineError: ``passes`` is text that is not well formed.
        DataError: The data does not fit the model.
        PassError: A pass lacks what it needs.
        ProviderUnavailableError: The target cannot be used on this machine.
        VerificationError: The result does not give the original's answers.
    """
    original = as_model(model)
    machine = detect_target(target) if isinstance(target, str) else target
    check_provider(machine.provider)
    samples = open_data(str(data), specs_of(original)) if isinstance(data, str | Path) else data
    if budget is None and passes is None and level == 3:
        budget = BUDGET
    settings = Settings(
        target=machine,
        data=samples,
        dims=dims or {},
        seed=seed,
        verify=verify,
        time=budget is not None if time is None else time,
        threads=threads,
        budget=budget,
        strict=strict,
        reproduce=reproduce,
        hooks=hooks,
    )
    if progress is not None:
        settings = replace(settings, progress=progress)
    return compile_model(original, preset(level, machine) if passes is None else passes, settings)
