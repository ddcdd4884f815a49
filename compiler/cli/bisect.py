"""``onnxpress bisect``: which pass changes the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, terminal


def bisect(
    model: common.Model,
    target: common.TargetOption = None,
    level: common.Level = None,
    passes: common.PassesOption = None,
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    reduce: Annotated[
        Path | None,
        typer.Option(
            "--reduce",
            metavar="FILE",
            help="Write a small model that still shows the fault, and its inputs beside it as "
            ".npz.",
            rich_help_panel=common.OUTPUT,
        ),
    ] = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("how many models were compared")] = False,
    debug: common.Debug = False,
) -> None:
    """Name the first pass after which MODEL no longer gives its answers.

    Examples:
        onnxpress bisect model.onnx
        onnxpress bisect model.onnx --passes "cleanup,mine:Pass" --reduce small.onnx
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    with terminal.progress(volume != "quiet" and not json) as progress:
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
            check_writable(reduce, protect=[model])
        progress(f"reading {model.name}", 0, None)
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
        terminal.print_json(found.to_json())
    elif volume != "quiet":
        render.bisection(terminal.stdout(), found, verbose=volume == "verbose")
