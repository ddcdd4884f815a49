"""``onnxpress inspect``: what is in a model."""

from __future__ import annotations

from . import common


def inspect(
    model: common.Model,
    dim: common.Dims = None,
    json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Show size, cost, inputs, outputs and operators of MODEL, and what is odd about it.

    [bold]Example[/]

    onnxpress inspect model.onnx
    """
    del debug
    dims = common.read_dims(dim)
    from ..inspect import inspect as facts_of
    from ..model_io import load

    facts = facts_of(load(model), model, dims=dims)
    if json:
        common.print_json(facts)
        return
    from . import render

    render.facts(common.stdout(), facts)
