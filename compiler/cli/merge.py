"""``onnxpress merge``: several models, one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import common


def merge(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODELS...", help="The models to merge, two or more.")
    ],
    output: common.Output,
    combine: Annotated[
        Literal["mean", "weighted", "vote", "none"],
        typer.Option(help="How the members' answers become one; none keeps them all."),
    ] = "mean",
    weights: Annotated[
        str | None,
        typer.Option(metavar="W,W,...", help="One weight a model, for --combine weighted."),
    ] = None,
    target: common.TargetOption = None,
    level: common.Level = None,
    passes: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A pipeline for the merged model instead of a level's."),
    ] = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    verify: common.Verify = None,
    time: common.Time = None,
    threads: common.Threads = 0,
    seed: common.Seed = None,
    report: common.Reports = None,
    strict: common.Strict = False,
    reproduce: common.SaveRepro = None,
    json: common.Json = False,
    force: common.Force = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
    debug: common.Debug = False,
) -> None:
    """Lay MODELS side by side over shared inputs and combine their answers in the graph.

    The merged model is then optimized like any other. Checking and timing compare the
    optimized model with the plain merged one.

    [bold]Examples[/]

    onnxpress merge a.onnx b.onnx c.onnx -o ensemble.onnx

    onnxpress merge a.onnx b.onnx -o ensemble.onnx --combine weighted --weights 0.7,0.3
    """
    del debug
    from .run import Job, merge_job

    merge_job(
        models,
        combine,
        common.read_weights(weights),
        Job(
            model=models[0],
            output=output,
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
        ),
    )
