"""``onnxpress prune``: remove whole channels and re-solve what reads them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from . import common


def prune(
    model: common.Model,
    output: common.Output,
    macs: Annotated[
        float, typer.Option(metavar="F", help="The fraction of multiply-accumulates to keep.")
    ],
    data: common.DataOption = None,
    criterion: Annotated[
        Literal["l2", "l1", "random"], typer.Option(help="What makes a channel important.")
    ] = "l2",
    scope: Annotated[
        Literal["global", "uniform"],
        typer.Option(help="Take channels wherever they matter least, or evenly from all groups."),
    ] = "global",
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct/--no-reconstruct",
            help="Re-solve the layers that read pruned channels by least squares; needs --data.",
        ),
    ] = True,
    target: common.TargetOption = None,
    level: common.Level = None,
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
    """Remove whole channels of MODEL until the given fraction of its work is left.

    Needs a few hundred unlabelled samples, which the remaining weights are fitted to.

    [bold]Example[/]

    onnxpress prune model.onnx -o model.half.onnx --data samples.npz --macs 0.5
    """
    del debug
    from .run import Job, run_job

    options = f"macs={macs},criterion={criterion},scope={scope}"
    if not reconstruct:
        options += ",reconstruct=false"
    run_job(
        Job(
            model=model,
            output=output,
            extra=f"fold-batch-norm,prune-channels{{{options}}},cleanup",
            data=data,
            target=target,
            level=level,
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
