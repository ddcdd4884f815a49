"""``onnxpress compare``: how far two models' answers are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, terminal


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The reference.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("the sizes and sessions that were run")] = False,
    debug: common.Debug = False,
) -> None:
    """Show how far the answers of B are from those of A.

    Exits with 0 if all outputs are equal within the tolerance of their type, and with 8 if they
    are not.

    Examples:
        onnxpress compare model.onnx model.opt.onnx
        onnxpress compare model.onnx model.int8.onnx --data samples.npz
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    with terminal.progress(volume != "quiet" and not json) as progress:
        from ...backends.data import open_data
        from ...backends.errors import VerificationError
        from ...backends.ort import specs_of
        from ..compare import compare as compare_models
        from ..model_io import load
        from . import render

        progress("reading", 0, None)
        a, b = load(first), load(second)
        samples = open_data(data, specs_of(a)) if data is not None else None
        progress("running both", 0, None)
        found = compare_models(a, b, data=samples, dims=dims, seed=seed or 0)
    if json:
        terminal.print_json(found.to_json())
    elif volume != "quiet":
        render.comparison(terminal.stdout(), found, verbose=volume == "verbose")
    if not found.equal:
        raise typer.Exit(VerificationError.exit_code)
