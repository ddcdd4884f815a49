"""From options to a written model: what the commands that compile have in common."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...backends.data import open_data
from ...backends.environment import detect_target
from ...backends.errors import OutputError, PassError, UsageError
from ...backends.ort import check_provider, specs_of
from ...backends.targets import Target
from ...passes.ensembles.detections import Suppression
from ...passes.ensembles.merge import member_names
from ..compile import Outcome, compile_model, compression
from ..ensemble import merge_models, read_labels
from ..frontends import as_onnx, is_foreign
from ..layouts import Layout, choose_layout, choose_waiting, settled
from ..masks import write_masks
from ..model_io import check_writable, files_of, load, save
from ..pipeline import Pipeline, choose, parse
from ..provenance import stamp
from ..quality import Demand
from ..recipe import Recipe, read_recipe
from ..records import Progress
from ..report import Report
from ..session_file import session_path, write_session
from ..settings import BUDGET, Settings
from ..soups import Kitchen, cook
from ..write_report import FORMATS, write_report
from . import render, terminal
from .job import ARGUMENTS, Job


def run_job(job: Job, progress: Progress) -> Report:
    """Read, merge, compile and write. Everything that can be refused is refused first.

    Raises:
        OnnxpressError: Whatever is wrong with the models, the options, the data or the output.
    """
    job = _with_recipe(job)
    pipeline = _pipeline(job)
    target = detect_target(job.target or "cpu")
    check_provider(target.provider)
    check_destinations(job)
    if any(map(is_foreign, job.models)):
        progress("exporting to ONNX", 0, None)
    with as_onnx(job.models) as models:
        report = _compile(replace(job, models=models), pipeline, target, progress)
    report.input = ", ".join(map(str, job.models))
    return report


def _compile(job: Job, pipeline: Pipeline, target: Target, progress: Progress) -> Report:
    model, notes = _read(job, progress)
    settings = settings_of(job, target, model, progress)
    layout: dict[str, Any] = {}
    if len(job.models) > 1 and job.combine != "soup" and (wanted := _layout(job)) != "side-by-side":
        base, asked = choose(job.passes, job.level, target), _asked(job)
        chosen, layout = choose_layout(model, base, wanted, settings, job.batches)
        pipeline = chosen + asked
    outcome = compile_model(model, pipeline, settings)
    outcome.report.layout = settled(layout, outcome.report.passes) if layout else {}
    if layout and outcome.session is None and job.threads != 1 and settings.budget is None:
        session, outcome.report.session = choose_waiting(outcome.model, settings, job.batches)
        outcome = replace(outcome, session=session)
    _check_asked(outcome.report, job)
    outcome.report.warnings += notes
    progress(f"writing {job.output.name}", 0, None)
    finish(outcome, job)
    return outcome.report


def _read(job: Job, progress: Progress) -> tuple[ir.Model, list[str]]:
    """The model, merged if there are several, and what is to be said about the merging."""
    models = []
    for index, path in enumerate(job.models):
        progress(f"reading {path.name}", index, len(job.models) if job.models[1:] else None)
        models.append(load(path))
    if len(models) == 1:
        return models[0], []
    progress("merging", 0, None)
    if job.combine == "soup":
        _check_soup(job)
        data = None if job.data is None else open_data(job.data, specs_of(models[0]))
        labels = None if job.labels is None else read_labels(job.labels)
        kitchen = Kitchen(data, labels, job.force_soup)
        soup = cook(
            models,
            member_names(job.models),
            recipe=job.soup,
            weights=job.weights,
            kitchen=kitchen,
        )
        return soup.model, list(soup.details["notes"])
    merged = merge_models(
        models,
        member_names(job.models),
        combine=job.combine,
        weights=job.weights,
        data=job.data,
        labels=job.labels,
        uncertainty=job.uncertainty,
        inputs=job.inputs,
        tolerance=job.tolerance,
        suppression=_suppression(job),
        progress=progress,
    )
    return merged.model, list(merged.details["notes"])


def _check_soup(job: Job) -> None:
    """Refuse what would be ignored: a soup is one model, with the inputs and outputs of one."""
    given = {
        "--map": job.inputs,
        "--share-tolerance": job.tolerance,
        "--uncertainty": job.uncertainty,
        "--nms": job.nms is not None,
        "--layout": job.layout is not None,
    }
    if ignored := [name for name, one in given.items() if one]:
        raise UsageError(
            f"a soup is one model, for which {' and '.join(ignored)} would mean nothing",
            hint="leave that out, or choose another --combine",
        )


def _suppression(job: Job) -> Suppression | None:
    if job.nms is not None:
        return Suppression(job.nms, job.least_score, job.boxes == "center")
    if job.least_score is not None or job.boxes != "corners":
        raise UsageError("--least-score and --boxes belong to --nms", hint="add --nms 0.5")
    return None


def _layout(job: Job) -> Layout:
    """The layout that is asked for: ``auto``, unless the passes or level 0 say all."""
    if job.layout is not None:
        return job.layout
    return "side-by-side" if job.passes is not None or job.level == 0 else "auto"


def _check_asked(report: Report, job: Job) -> None:
    """Fail where the very thing that was asked for did not work, though the rest did.

    Raises:
        PassError: A pass that the command itself adds was undone.
    """
    asked = {step.name for step in (*parse(job.first).steps(), *_asked(job).steps())}
    for record in report.passes:
        if record.status == "quarantined" and not record.contract.exact and record.name in asked:
            raise PassError(
                f"{record.name} did not work: {record.reason}",
                hint="with --passes what works is kept, and the rest is reported",
            )


def _with_recipe(job: Job) -> Job:
    recipe = read_recipe(job.recipe) if job.recipe is not None else Recipe()
    merged = {
        name: getattr(recipe, name)
        for name in ("target", "quantize", "refit", "macs", "data", "seed", "verify", "time")
        if getattr(job, name) is None
    }
    if job.passes is None and job.level is None:
        merged |= {"passes": recipe.passes, "level": recipe.level}
    return replace(job, **merged, dims={**recipe.dims, **job.dims})


def _pipeline(job: Job) -> Pipeline:
    base = choose(job.passes, job.level, detect_target(job.target or "cpu"))
    return parse(job.first) + base + _asked(job)


def _asked(job: Job) -> Pipeline:
    """What a command or its options add to the level's pipeline."""
    return parse(job.extra) + compression(
        macs=job.macs, quantize=job.quantize, refit=job.refit is not False
    )


def check_destinations(job: Job) -> None:
    """Refuse early what could not be written at the end.

    Raises:
        OutputError: The model or a report cannot be written where it was asked for.
        UsageError: A report's format is not known.
    """
    check_writable(job.output, protect=job.models, force=job.force)
    if job.masks is not None:
        check_writable(job.masks, force=job.force)
    for report in job.reports:
        if report.suffix not in FORMATS:
            raise UsageError(f"--report {report}: expected a name that ends in .json, .md or .html")
        if not report.parent.is_dir():
            raise OutputError(
                f"the folder {report.parent} of the report {report.name} does not exist",
                hint="create it first",
            )


def settings_of(job: Job, target: Target, model: ir.Model, progress: Progress) -> Settings:
    """The compiler's settings for ``job``.

    Raises:
        DataError: The data does not fit the inputs of ``model``.
    """
    return Settings(
        target=target,
        data=None if job.data is None else open_data(job.data, specs_of(model)),
        dims=job.dims,
        seed=job.seed or 0,
        verify=job.verify is not False,
        time=job.time is not False,
        profile=job.time is not False and bool(job.reports),
        threads=job.threads,
        demand=demand_of(job),
        budget=BUDGET if job.budget is None and job.level == 3 else job.budget,
        strict=job.strict,
        reproduce=job.reproduce,
        progress=progress,
    )


def demand_of(job: Job) -> Demand | None:
    """What ``--max-drop``, ``--metric`` and ``--labels`` ask for.

    Raises:
        UsageError: They do not go together.
        DataError: The labels cannot be read.
    """
    if job.max_drop is None:
        if job.metric is not None or (job.labels is not None and len(job.models) == 1):
            raise UsageError("--metric and --labels need --max-drop")
        return None
    if job.macs is not None and job.quantize is None:
        raise UsageError(
            "--macs says how much stays, and --max-drop looks for that: only one can be",
            hint="with --quantize, --max-drop is about what 8 bits change, and goes with --macs",
        )
    labels = None if job.labels is None else read_labels(job.labels)
    metric = job.metric or ("top1-agreement" if labels is None else "accuracy")
    return Demand(job.max_drop, metric, labels)


def finish(outcome: Outcome, job: Job) -> None:
    """Write the model and the reports, and complete the report with what only files tell.

    Raises:
        OutputError: Something could not be written; an existing result is left whole.
    """
    report = outcome.report
    report.input = ", ".join(map(str, job.models))
    report.output = str(job.output)
    report.command = shlex.join(("onnxpress", *ARGUMENTS.get()))
    before = _bytes(job.models)
    if job.provenance:
        stamp(outcome.model, report, [file for path in job.models for file in files_of(path)])
    save(outcome.model, job.output, protect=job.models, force=job.force)
    file = session_path(job.output)
    if outcome.session is not None:
        write_session(file, outcome.session, report)
        report.session["file"] = str(file)
    elif file.exists():
        report.warnings.append(f"{file} is of an earlier result; `-O 3` measures its options again")
    report.bytes = [before, _bytes([job.output])]
    if job.masks is not None:
        write_masks(report, job.masks)
    for path in job.reports:
        write_report(report, path)


def _bytes(paths: Sequence[Path]) -> int:
    return sum(file.stat().st_size for path in paths for file in files_of(path))


def show(report: Report, job: Job) -> None:
    """Print the report as the options ask for it."""
    if job.json:
        terminal.print_json(report.to_json())
        return
    if job.volume != "quiet":
        render.report(terminal.stdout(), report, job)
    terminal.warn(report.warnings)
