"""``onnxpress inspect``: what is in a model."""

from __future__ import annotations

from typing import Annotated

import typer

from . import common, terminal


def inspect(
    model: common.Model,
    dim: common.Dims = None,
    security: Annotated[
        bool,
        typer.Option(
            "--security",
            help="Also say what to know before the model is trusted: hashes, custom operators, "
            "weights that are no numbers, endless loops, tensors that take all memory.",
            rich_help_panel=common.MEASURING,
        ),
    ] = False,
    quantization: Annotated[
        bool,
        typer.Option(
            "--quantization",
            help="Say which operators between Q and DQ become integer kernels, and why others not.",
            rich_help_panel=common.MEASURING,
        ),
    ] = False,
    target: common.TargetOption = None,
    data: common.DataOption = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: Annotated[bool, common.verbose("opsets and metadata")] = False,
    debug: common.Debug = False,
) -> None:
    """Show what is in MODEL: size, cost, inputs, outputs, operators, oddities.

    Multiply-accumulates (MACs) are counted at the sizes that --dim gives, and at the smallest
    ones otherwise. With --quantization, --data also tells what saturation costs on the target.
    --target cuda tells which nodes would run on the CPU and why, without a GPU.

    Examples:
        onnxpress inspect model.onnx
        onnxpress inspect model.onnx --dim batch=8
        onnxpress inspect model.onnx --security
        onnxpress inspect model.onnx --target cuda
        onnxpress inspect model.int8.onnx --quantization --target cpu:haswell
    """
    del debug
    volume = common.volume(quiet, verbose)
    dims = common.read_dims(dim)
    with terminal.progress(volume != "quiet" and not json) as progress:
        from ..inspect import inspect as facts_of
        from ..model_io import load
        from . import render, render_placement, render_quantization

        progress(f"reading {model.name}", 0, None)
        read = load(model)
        progress("counting", 0, None)
        facts = facts_of(read, model, dims=dims)
        if security:
            from ..security import screen

            progress("screening", 0, None)
            facts["security"] = screen(read, model)
        if (target or "").partition(":")[0] == "cuda":
            from ...passes.analysis.placement import cuda_placement

            progress("looking for kernels", 0, None)
            facts["placement"] = cuda_placement(read)
        if quantization:
            from ...backends.data import open_data
            from ...backends.environment import detect_target
            from ...backends.ort import specs_of
            from ..inspect_quantization import inspect_quantization

            progress("looking for integer kernels", 0, None)
            machine = detect_target(target or "cpu")
            samples = open_data(data, specs_of(read)) if data is not None else None
            facts["quantization"] = inspect_quantization(read, machine, samples)
    if json:
        terminal.print_json(facts)
        return
    if volume != "quiet":
        render.facts(terminal.stdout(), facts, verbose=volume == "verbose")
        if "placement" in facts:
            render_placement.placement(terminal.stdout(), facts["placement"])
        if quantization:
            found = facts["quantization"]
            render_quantization.kernels(terminal.stdout(), found, verbose=volume == "verbose")
    terminal.warn(facts["warnings"])
