"""``onnxpress merge``: several models, one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ...backends.errors import UsageError
from . import common
from .help import one_of
from .job import Combine, Job, Layout, start


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
            metavar="HOW",
            help="How the models' answers become one: mean (default), weighted, vote, "
            "softmax-mean, geometric, max, median, stack, logistic; detections, which puts boxes "
            "together; none, which keeps them all; or soup, which averages weights instead.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "mean",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W,W,...",
            help="One weight a model, for --combine weighted; without, they are fitted.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE.npy",
            help="What the samples of --data should be answered: class numbers, or answers. "
            "For stack, logistic, and for weighted without --weights.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also answer with the variance between the models and how many disagree.",
            rich_help_panel=common.REWRITING,
        ),
    ] = False,
    nms: Annotated[
        float | None,
        typer.Option(
            "--nms",
            metavar="IOU",
            help="For detections: of boxes of a class that overlap by more, keep the best.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    least_score: Annotated[
        float | None,
        typer.Option(
            "--least-score",
            metavar="S",
            help="With --nms: drop boxes whose score is not above this.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    boxes: Annotated[
        Literal["corners", "center"],
        typer.Option(
            "--boxes",
            metavar="corners|center",
            help="With --nms: two opposite corners (default), or center, width and height.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "corners",
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="MODEL:INPUT=SHARED",
            help="Which input of a model is which of the first model's; repeatable.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--share-tolerance",
            metavar="T",
            help="Store weights once that differ by at most this part of the largest; changes "
            "answers. 0 (default) shares equal ones alone.",
            rich_help_panel=common.REWRITING,
        ),
    ] = 0.0,
    soup: Annotated[
        Literal["uniform", "greedy"],
        typer.Option(
            "--soup",
            metavar="uniform|greedy",
            help="For --combine soup: all models (default), or those that make it better.",
            rich_help_panel=common.REWRITING,
        ),
    ] = "uniform",
    force_soup: Annotated[
        bool,
        typer.Option(
            "--force-soup",
            help="Write a soup that is worse than its members, or that nothing was measured of.",
            rich_help_panel=common.REWRITING,
        ),
    ] = False,
    layout: Annotated[
        Layout | None,
        typer.Option(
            "--layout",
            metavar=one_of(Layout),
            help="Models of one architecture as one network, or not; auto (default) times all.",
            rich_help_panel=common.REWRITING,
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(
            "--batch",
            metavar="N,N,...",
            help="The batch sizes to time layouts at.",
            rich_help_panel=common.MEASURING,
        ),
    ] = "1",
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
    provenance: common.Provenance = False,
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
        onnxpress merge a.onnx b.onnx -o one.onnx --combine soup --data x.npz --labels y.npy
        onnxpress merge a.onnx b.onnx -o c.onnx --combine stack --data x.npz --labels y.npy
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
            labels=labels,
            uncertainty=uncertainty,
            inputs=_read_map(mapped),
            tolerance=tolerance,
            nms=nms,
            least_score=least_score,
            boxes=boxes,
            soup=soup,
            force_soup=force_soup,
            layout=layout,
            batches=_read_batches(batch),
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
            provenance=provenance,
            strict=strict,
            reproduce=reproduce,
            json=json,
            force=force,
            volume=common.volume(quiet, verbose),
        )
    )


def _read_map(pairs: list[str] | None) -> dict[str, dict[str, str]]:
    """``["b:pixels=image"]`` as ``{"b": {"pixels": "image"}}``.

    Raises:
        UsageError: One is not ``MODEL:INPUT=SHARED``.
    """
    found: dict[str, dict[str, str]] = {}
    for pair in pairs or ():
        own, _, shared = pair.rpartition("=")
        model, _, name = own.partition(":")
        if not (model and name and shared):
            raise UsageError(f"--map {pair}: expected MODEL:INPUT=SHARED")
        found.setdefault(model, {})[name] = shared
    return found


def _read_batches(text: str) -> tuple[int, ...]:
    """``"1,32"`` as ``(1, 32)``.

    Raises:
        UsageError: Something between the commas is not a whole number above 0.
    """
    sizes = tuple(int(one) if one.strip().isdecimal() else 0 for one in text.split(","))
    if not all(sizes):
        raise UsageError(f"--batch {text}: expected whole numbers above 0 with commas between")
    return sizes
