"""``onnxpress prune``: remove whole channels and re-solve what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from ...backends.errors import UsageError
from . import common
from .help import one_of
from .job import Job, start

Criterion: TypeAlias = Literal[
    "reconstruction",
    "activation",
    "soft-threshold",
    "l2",
    "l1",
    "bn-scale",
    "geometric-median",
    "random",
]
Scope: TypeAlias = Literal["global", "uniform"]


def prune(
    model: common.SourceModel,
    output: common.Output,
    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="F",
            help="The fraction of multiply-accumulates to keep, such as 0.5.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    parameters: Annotated[
        float | None,
        typer.Option(
            "--parameters",
            metavar="F",
            help="The fraction of parameters to keep, in the place of --macs.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="X",
            min=0,
            help="Keep as little work as answers allow that get so much worse, by --metric, on "
            "samples held out; in the place of --macs.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    metric: common.MetricOption = None,
    labels: common.Labels = None,
    criterion: Annotated[
        Criterion | None,
        typer.Option(
            "--criterion",
            metavar="NAME",
            help="What makes a channel important: reconstruction, how badly layers that read it "
            "do without, fitted anew (default where there are samples); activation and "
            "soft-threshold, on samples as well; l2, l1 and geometric-median of its weights; "
            "bn-scale, the factor of its normalization; random.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            metavar=one_of(Scope),
            help="Take channels wherever they matter least (default), or evenly everywhere.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "global",
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct/--no-reconstruct",
            help="Fit the layers that lost inputs to what they gave before (default); "
            "needs --data.",
            rich_help_panel=common.REWRITING,
        ),
    ] = True,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="FILE",
            help="Write which channels of which weights were kept, as an .npz.",
            rich_help_panel=common.OUTPUT,
        ),
    ] = None,
    target: common.TargetOption = None,
    level: common.Level = None,
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
    """Remove whole channels of MODEL until a fraction of its work is left.

    Optimizes first, as `onnxpress optimize` does. Needs --data: a few hundred unlabelled samples,
    which the remaining weights are fitted to.

    Examples:
        onnxpress prune model.onnx -o model.half.onnx --macs 0.5 --data samples.npz
        onnxpress prune model.onnx -o small.onnx --max-drop 0.01 --data samples.npz
    """
    del debug
    chosen = [one for one in (macs, parameters, max_drop) if one is not None]
    if len(chosen) != 1:
        raise UsageError("say how much stays: by one of --macs, --parameters and --max-drop")
    counted = "macs" if parameters is None else "parameters"
    fraction = common.read_macs(macs if parameters is None else parameters, f"--{counted}")
    options = f"criterion={criterion or 'auto'},scope={scope}"
    if fraction is not None:
        options = f"{counted}={fraction},{options}"
    if not reconstruct:
        options += ",reconstruct=false"
    # Scales of normalizations are to be seen only while they are not folded.
    early = criterion == "bn-scale"
    fold = "" if early else "fold-batch-norm,"
    passes = f"{fold}prune-channels{{{options}}},cleanup"
    start(
        Job(
            models=(model,),
            output=output,
            masks=masks,
            first=f"fold-constants,cleanup,{passes}" if early else "",
            extra="" if early else passes,
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
