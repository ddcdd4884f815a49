"""``onnxpress optimize``: run a pipeline, check it, time it, write the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import common


def optimize(
    model: common.Model,
    output: common.Output,
    target: common.TargetOption = None,
    level: common.Level = None,
    passes: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A pipeline of your own instead of a level's."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A TOML file that holds these options.")
    ] = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="Quantize weights and activations after optimizing; needs --data."),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(metavar="F", help="Prune to this fraction of the MACs; needs --data."),
    ] = None,
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
    """Make MODEL faster, check that its answers stay the same, and measure the gain.

    [bold]Examples[/]

    onnxpress optimize model.onnx -o model.opt.onnx

    onnxpress optimize model.onnx -o small.onnx --passes "fold-batch-norm,cleanup"

    onnxpress optimize model.onnx -o model.int8.onnx --quantize int8 --data samples.npz
    """
    del debug
    from .run import Job, run_job

    run_job(
        Job(
            model=model,
            output=output,
            target=target,
            level=level,
            passes=passes,
            recipe=recipe,
            data=data,
            dims=common.read_dims(dim),
            quantize=quantize,
            macs=macs,
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
