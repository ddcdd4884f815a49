"""``onnxpress bisect``: which pass changes the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common


def bisect(
    model: common.Model,
    passes: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The pipeline to look into, instead of a level's."),
    ] = None,
    level: common.Level = None,
    target: common.TargetOption = None,
    reduce: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a small model that still shows the fault, its inputs beside it as .npz.",
        ),
    ] = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Name the first pass after which MODEL no longer gives its answers.

    [bold]Examples[/]

    onnxpress bisect model.onnx

    onnxpress bisect model.onnx --passes "cleanup,mine:Pass" --reduce small.onnx
    """
    del debug
    dims = common.read_dims(dim)
    from ...backends.data import open_data
    from ...backends.environment import detect_target
    from ...backends.ort import check_provider, specs_of
    from ..bisect import bisect as find_guilty
    from ..model_io import check_writable, load
    from ..pipeline import choose
    from . import render

    machine = detect_target(target or "cpu")
    pipeline = choose(passes, level, machine)
    check_provider(machine.provider)
    if reduce is not None:
        check_writable(reduce, protect=[model], force=True)
    with common.progress_bar(not json) as progress:
        original = load(model)
        found = find_guilty(
            original,
            pipeline,
            target=machine,
            data=open_data(data, specs_of(original)) if data is not None else None,
            dims=dims,
            seed=seed or 0,
            reduce_to=reduce,
            progress=progress,
        )
    if json:
        common.print_json(found.to_json())
    else:
        render.bisection(common.stdout(), found)
