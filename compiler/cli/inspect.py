"""``onnxpress inspect``: what is in a model."""

from __future__ import annotations

from typing import Annotated

from . import common, terminal


def inspect(
    model: common.Model,
    dim: common.Dims = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("opsets and metadata")] = False,
    debug: common.Debug = False,
) -> None:
    """Show what is in MODEL: size, cost, inputs, outputs, operators, oddities.

    Multiply-accumulates (MACs) are counted at the sizes that --dim gives, and at the smallest
    ones otherwise.

    Examples:
        onnxpress inspect model.onnx
        onnxpress inspect model.onnx --dim batch=8
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    with terminal.progress(volume != "quiet" and not json) as progress:
        from ..inspect import inspect as facts_of
        from ..model_io import load
        from . import render

        progress(f"reading {model.name}", 0, None)
        read = load(model)
        progress("counting", 0, None)
        facts = facts_of(read, model, dims=dims)
    if json:
        terminal.print_json(facts)
        return
    if volume != "quiet":
        render.facts(terminal.stdout(), facts, verbose=volume == "verbose")
    terminal.warn(facts["warnings"])
