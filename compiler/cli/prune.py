"""``onnxpress prune``: remove whole channels and re-solve what reads them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from . import common
from .help import one_of
from .job import Job, start

Criterion: TypeAlias = Literal["reconstruction", "l2", "l1", "random"]
Scope: TypeAlias = Literal["global", "uniform"]


def prune(
    model: common.SourceModel,
    output: common.Output,
    macs: Annotated[
        float,
        typer.Option(
            "--macs",
            metavar="F",
            help="The fraction of multiply-accumulates to keep, such as 0.5.",
            rich_help_panel=common.REWRITING,
        ),
    ],
    criterion: Annotated[
        Criterion | None,
        typer.Option(
            "--criterion",
            metavar=one_of(Criterion),
            help="What makes a channel important: how badly the layers that read it do without, "
            "fitted anew (default where there are samples), the norm of its weights, or chance.",
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
    """
    del debug
    options = f"macs={common.read_macs(macs)},criterion={criterion or 'auto'},scope={scope}"
    if not reconstruct:
        options += ",reconstruct=false"
    start(
        Job(
            models=(model,),
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
            provenance=provenance,
            strict=strict,
            reproduce=reproduce,
            json=json,
            force=force,
            volume=common.volume(quiet, verbose),
        )
    )
