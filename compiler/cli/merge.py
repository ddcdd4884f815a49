"""``onnxpress merge``: several models, one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from ...backends.errors import UsageError
from . import common
from .help import one_of
from .job import Job, start

Combine: TypeAlias = Literal["mean", "weighted", "vote", "none"]


def merge(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="The ONNX models to merge, two or more."),
    ],
    output: common.Output,
    combine: Annotated[
        Combine,
        typer.Option(
            "--combine",
            metavar=one_of(Combine),
            help="How the models' answers become one (default mean); none keeps them all.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "mean",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W,W,...",
            help="One weight a model, for --combine weighted.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    target: common.TargetOption = None,
    level: common.Level = None,
    passes: common.PassesOption = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    verify: common.Verify = None,
    time: common.Time = None,
    threads: common.Threads = 0,
    strict: common.Strict = False,
    reproduce: common.Reproduce = None,
    report: common.Reports = None,
    force: common.Force = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
    debug: common.Debug = False,
) -> None:
    """Make one graph of several models, with shared inputs and one answer.

    The merged model is then optimized like any other. Checking and timing compare the
    optimized model with the plain merged one.

    Examples:
        onnxpress merge a.onnx b.onnx c.onnx -o ensemble.onnx
        onnxpress merge a.onnx b.onnx -o both.onnx --combine weighted --weights 0.7,0.3
    """
    del debug
    if len(models) < 2:
        raise UsageError("merge takes two models or more")
    start(
        Job(
            models=tuple(models),
            output=output,
            combine=combine,
            weights=common.read_weights(weights),
            target=target,
            level=level,
            passes=passes,
            data=data,
            dims=common.read_dims(dim),
            verify=verify,
            time=time,
            threads=threads,
            seed=seed,
            reports=tuple(report or ()),
            strict=strict,
            reproduce=reproduce,
            json=json,
            force=force,
            volume=common.volume(quiet, verbose),
        )
    )
