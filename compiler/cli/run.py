"""From options to a written model: what ``optimize``, ``quantize`` and ``prune`` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from ...backends.data import Data, open_data
from ...backends.environment import detect_target
from ...backends.errors import OutputError, UsageError
from ...backends.ort import check_provider, specs_of
from ...backends.targets import Target, TargetName
from ...passes.ensembles.merge import member_names, merge
from ..compile import Outcome, Progress, Settings, compile_model, compression
from ..model_io import check_writable, files_of, load, save
from ..pipeline import Pipeline, choose, parse
from ..recipe import Recipe, read_recipe
from ..report import Report
from ..write_report import write_report
from . import common, render
from .common import Volume


@dataclass(frozen=True)
class Job:
    """One compilation as the command line asks for it; the fields are the options' names.

    ``extra`` is pipeline text that a command adds after the level's pipeline. What is ``None``
    comes from the recipe, or has the default that :func:`run_job` fills in.
    """

    model: Path
    output: Path
    target: TargetName | None = None
    level: int | None = None
    passes: str | None = None
    extra: str = ""
    recipe: Path | None = None
    data: str | None = None
    dims: dict[str, int] = field(default_factory=dict)
    quantize: str | None = None
    macs: float | None = None
    verify: bool | None = None
    time: bool | None = None
    threads: int = 0
    seed: int | None = None
    reports: tuple[Path, ...] = ()
    strict: bool = False
    reproduce: Path | None = None
    json: bool = False
    force: bool = False
    volume: Volume = "normal"


def run_job(job: Job) -> None:
    """Read, compile, write and report. Everything that can be refused is refused first.

    Raises:
        OnnxpressError: Whatever is wrong with the model, the options, the data or the output.
    """
    job = _with_recipe(job)
    target = detect_target(job.target or "cpu")
    pipeline = _pipeline(job)
    check_provider(target.provider)
    check_destinations(job.output, [job.model], job.reports, force=job.force)
    with common.progress_bar(job.volume != "quiet" and not job.json) as progress:
        progress("reading", 0, None)
        model = load(job.model)
        outcome = compile_model(model, pipeline, settings_of(job, model, progress))
        progress("writing", 0, None)
        finish(outcome, job, inputs=[job.model])
    show(outcome.report, job)


def merge_job(
    models: Sequence[Path],
    combine: Literal["mean", "weighted", "vote", "none"],
    weights: tuple[float, ...] | None,
    job: Job,
) -> None:
    """Read several models, merge them, compile the whole as :func:`run_job` does one.

    Raises:
        OnnxpressError: Whatever is wrong; a message about one of the models names it.
    """
    if len(models) < 2:
        raise UsageError("merge takes two models or more")
    target = detect_target(job.target or "cpu")
    pipeline = _pipeline(job)
    check_provider(target.provider)
    check_destinations(job.output, models, job.reports, force=job.force)
    with common.progress_bar(job.volume != "quiet" and not job.json) as progress:
        members = []
        for index, path in enumerate(models):
            progress(f"reading {path.name}", index, len(models))
            members.append(load(path))
        merged = merge(members, names=member_names(models), combine=combine, weights=weights)
        outcome = compile_model(merged.model, pipeline, settings_of(job, merged.model, progress))
        outcome.report.warnings += merged.details["notes"]
        progress("writing", 0, None)
        finish(outcome, job, inputs=models)
    show(outcome.report, job)


def _with_recipe(job: Job) -> Job:
    recipe = read_recipe(job.recipe) if job.recipe is not None else Recipe()
    merged = {
        name: getattr(recipe, name)
        for name in ("target", "quantize", "macs", "data", "seed", "verify", "time")
        if getattr(job, name) is None
    }
    if job.passes is None and job.level is None:
        merged |= {"passes": recipe.passes, "level": recipe.level}
    return replace(job, **merged, dims={**recipe.dims, **job.dims})


def _pipeline(job: Job) -> Pipeline:
    base = choose(job.passes, job.level, Target(job.target or "cpu"))
    return base + parse(job.extra) + compression(macs=job.macs, quantize=job.quantize)


def check_destinations(
    output: Path, inputs: Sequence[Path], reports: Sequence[Path], *, force: bool
) -> None:
    """Refuse early what could not be written at the end.

    Raises:
        OutputError: The model or a report cannot be written where it was asked for.
        UsageError: A report's format is not known.
    """
    check_writable(output, protect=inputs, force=force)
    for report in reports:
        if report.suffix not in {".json", ".md", ".html"}:
            raise UsageError(f"--report {report}: expected a name that ends in .json, .md or .html")
        if not report.parent.is_dir():
            raise OutputError(f"the folder {report.parent} of the report {report.name} is missing")


def settings_of(job: Job, model: ir.Model, progress: Progress) -> Settings:
    """The compiler's settings for ``job``.

    Raises:
        DataError: The data does not fit the inputs of ``model``.
    """
    data: Data | None = None
    if job.data is not None:
        data = open_data(job.data, specs_of(model))
    return Settings(
        target=detect_target(job.target or "cpu"),
        data=data,
        dims=job.dims,
        seed=job.seed or 0,
        verify=job.verify is not False,
        time=job.time is not False,
        threads=job.threads,
        strict=job.strict,
        reproduce=job.reproduce,
        progress=progress,
    )


def finish(outcome: Outcome, job: Job, inputs: Sequence[Path]) -> None:
    """Write the model and the reports, and complete the report with what only files tell.

    Raises:
        OutputError: Something could not be written; an existing result is left whole.
    """
    report = outcome.report
    report.input = ", ".join(map(str, inputs))
    report.output = str(job.output)
    before = sum(file.stat().st_size for path in inputs for file in files_of(path))
    save(outcome.model, job.output, protect=inputs, force=job.force)
    report.bytes = [before, sum(file.stat().st_size for file in files_of(job.output))]
    for path in job.reports:
        write_report(report, path)


def show(report: Report, job: Job) -> None:
    """Print the report as the options ask for it."""
    if job.json:
        common.print_json(report.to_json())
        return
    render.warnings(common.stderr(), report)
    if job.volume != "quiet":
        render.report(common.stdout(), report, verbose=job.volume == "verbose")
