"""``onnxpress compare``: how far two models' answers are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The reference.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    data: common.DataOption = None,
    dim: common.Dims = None,
    seed: common.Seed = None,
    json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Run A and B on the same inputs and show how far each output of B is from A's.

    Exits with 0 where all outputs are equal within the tolerance of their type, and with 8
    where they are not.

    [bold]Example[/]

    onnxpress compare model.onnx model.opt.onnx
    """
    del debug
    dims = common.read_dims(dim)
    from ...backends.data import open_data
    from ...backends.errors import VerificationError
    from ...backends.ort import specs_of
    from ..compare import compare as compare_models
    from ..model_io import load
    from . import render

    a, b = load(first), load(second)
    samples = open_data(data, specs_of(a)) if data is not None else None
    found = compare_models(a, b, data=samples, dims=dims, seed=seed or 0)
    if json:
        common.print_json(found.to_json())
    else:
        render.comparison(common.stdout(), found)
    if not found.equal:
        raise typer.Exit(VerificationError.exit_code)
