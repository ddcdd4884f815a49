"""``onnxpress quantize``: lossless rewriting, then quantize-dequantize insertion."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from . import common


def quantize(
    model: common.Model,
    output: common.Output,
    data: common.DataOption = None,
    scheme: Annotated[
        Literal["int8"], typer.Option(help="How weights and activations are stored.")
    ] = "int8",
    method: Annotated[
        Literal["minmax"], typer.Option(help="How the ranges of activations are found.")
    ] = "minmax",
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
    """Quantize MODEL to 8-bit integers where the target has integer kernels.

    Needs a few hundred unlabelled samples, which only find the ranges of activations.

    [bold]Example[/]

    onnxpress quantize model.onnx -o model.int8.onnx --data samples.npz
    """
    del debug
    from .run import Job, run_job

    run_job(
        Job(
            model=model,
            output=output,
            extra=f"fold-batch-norm,insert-qdq{{scheme={scheme},method={method}}}",
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
