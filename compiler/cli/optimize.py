"""``onnxpress optimize``: run a pipeline, check it, time it, write the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from . import common
from .help import one_of
from .job import Job, start

Scheme: TypeAlias = Literal["int8"]


def optimize(
    model: common.SourceModel,
    output: common.Output,
    target: common.TargetOption = None,
    level: common.Level = None,
    passes: common.PassesOption = None,
    quantize: Annotated[
        Scheme | None,
        typer.Option(
            "--quantize",
            metavar=one_of(Scheme),
            help="Quantize weights and activations after optimizing; needs --data.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="With --quantize: fit the integer weights to the float model, layer by layer "
            "(default).",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="F",
            help="Prune to this fraction of the multiply-accumulates; needs --data.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="A TOML file with options; the command line goes before it.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    max_drop: common.MaxDrop = None,
    metric: common.MetricOption = None,
    labels: common.Labels = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    verify: common.Verify = None,
    time: common.Time = None,
    threads: common.Threads = 0,
    budget: common.Budget = None,
    strict: common.Strict = False,
    reproduce: common.Reproduce = None,
    report: common.Reports = None,
    provenance: common.Provenance = False,
    force: common.Force = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
    debug: common.Debug = False,
) -> None:
    """Make MODEL faster, check that its answers stay the same, and measure it.

    Examples:
        onnxpress optimize model.onnx -o model.opt.onnx
        onnxpress optimize model.onnx -o fastest.onnx -O 3 --budget 300
        onnxpress optimize model.onnx -o small.onnx --passes "fold-batch-norm,cleanup"
        onnxpress optimize model.onnx -o fast.onnx --quantize int8 --data samples.npz
    """
    del debug
    start(
        Job(
            models=(model,),
            output=output,
            target=target,
            level=level,
            passes=passes,
            recipe=recipe,
            max_drop=max_drop,
            metric=metric,
            labels=labels,
            data=data,
            dims=common.read_dims(dim),
            quantize=quantize,
            refit=refit,
            macs=common.read_macs(macs),
            verify=verify,
            time=time,
            threads=threads,
            budget=budget,
            seed=seed,
            reports=tuple(report or ()),
            provenance=provenance,
            strict=strict,
            reproduce=reproduce,
            json=json,
            force=force,
            volume=common.volume(quiet, verbose),
        )
    )
