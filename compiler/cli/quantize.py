"""``onnxpress quantize``: lossless rewriting, then quantize-dequantize insertion."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from ..schemes import Scheme, passes_of
from . import common
from .help import one_of
from .job import Job, start

Method: TypeAlias = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]


def quantize(
    model: common.SourceModel,
    output: common.Output,
    scheme: Annotated[
        Scheme,
        typer.Option(
            "--scheme",
            metavar=one_of(Scheme),
            help="How weights and activations are stored; int8-dynamic finds ranges in each run, "
            "int8-weights and int4 are of weights alone: these need no --data.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "int8",
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            metavar=one_of(Method),
            help="int8: how the range of an activation follows from the samples.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "minmax",
    refit: Annotated[
        bool,
        typer.Option(
            "--refit/--no-refit",
            help="int8: fit the integer weights to the float model, layer by layer (default).",
            rich_help_panel=common.REWRITING,
        ),
    ] = True,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Quantize only these: names of nodes or their outputs, operators, * for anything; "
            "repeatable.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave these in float, named alike; repeatable.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere",
            help="int8: also quantize what would take longer to convert than it saves.",
            rich_help_panel=common.REWRITING,
        ),
    ] = False,
    size_only: Annotated[
        bool,
        typer.Option(
            "--size-only",
            help="fp16, bf16: store weights in 16 bits and compute in float.",
            rich_help_panel=common.REWRITING,
        ),
    ] = False,
    target: common.TargetOption = None,
    level: common.Level = None,
    max_drop: common.MaxDrop = None,
    metric: common.MetricOption = None,
    labels: common.Labels = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    verify: common.Verify = None,
    time: common.Time = None,
    threads: common.Threads = 0,
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
    """Run MODEL on 8-bit integers, or store its weights in 4 or 8 bits.

    Optimizes first, as `onnxpress optimize` does. The scheme int8 needs --data: a few hundred
    unlabelled samples, which find the ranges of activations and what the integer weights are fitted
    to; what would take longer to convert than it saves stays in float. int4 is more accurate with
    --data.

    Examples:
        onnxpress quantize model.onnx -o model.int8.onnx --data samples.npz
        onnxpress quantize model.onnx -o model.int8.onnx --data samples.npz --exclude "/head/*"
        onnxpress quantize bert.onnx -o bert.int4.onnx --scheme int4 --data sentences
        onnxpress quantize model.onnx -o good.onnx --data samples.npz --max-drop 0.005
    """
    del debug
    options: dict[str, str | tuple[str, ...]] = {}
    if scheme == "int8":
        options |= {"method": method, "where": "everywhere" if everywhere else "pays"}
    if size_only:
        options["size_only"] = "true"
    left = "blocked" if scheme in {"fp16", "bf16"} else "exclude"
    options |= {"include": tuple(include or ()), left: tuple(exclude or ())}
    passes = passes_of(scheme, options, refit=refit)
    start(
        Job(
            models=(model,),
            output=output,
            extra=passes,
            max_drop=max_drop,
            metric=metric,
            labels=labels,
            data=data,
            target=target,
            level=level,
            dims=common.read_dims(dim),
            verify=verify,
            time=time,
            threads=threads,
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
