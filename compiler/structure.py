"""The structural check after each pass: what a model must be before it is worth running."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ..backends.errors import PassError
from ..passes.graph import subgraphs_of
from ..passes.guards.finite import guarded


def check_structure(model: ir.Model, inputs: list[str], outputs: list[str]) -> None:
    """Check that ``model`` is well formed and still has the signature it came with.

    Well formed means: every value has a name of its own, nodes stand after what they read, and
    whatever is read exists. Takes time linear in the number of nodes.

    Args:
        model: The model as a pass left it.
        inputs: The names of the graph inputs that it must have, in order.
        outputs: The names of the graph outputs that it must have, in order; behind them guards
            may have added others.

    Raises:
        PassError: It is not; the message says what is wrong and where.
    """
    for what, wanted, values in (
        ("inputs", inputs, model.graph.inputs),
        ("outputs", outputs, model.graph.outputs),
    ):
        added = values[len(wanted) :] if what == "outputs" else []
        found = [value.name for value in values if not (value in added and guarded(value))]
        if found != wanted:
            raise PassError(f"the graph's {what} became {found}, they have to stay {wanted}")
    _check_scope(model.graph, (), set())
    for function in model.functions.values():
        _check_scope(function.graph, (), set())


def _check_scope(graph: ir.Graph, outer: Iterable[ir.Value], taken: set[str]) -> None:
    ready: set[ir.Value] = {*outer, *graph.inputs, *graph.initializers.values()}
    mine = {value.name for value in (*graph.inputs, *graph.initializers.values()) if value.name}
    names = taken | mine
    for node in graph:
        label = node.name or node.op_type
        for value in node.inputs:
            if value is not None and value not in ready:
                raise PassError(f"{label} reads {value.name!r}, which nothing before it computes")
        for subgraph in subgraphs_of(node):
            _check_scope(subgraph, ready, names)
        for output in node.outputs:
            ready.add(output)
            if not output.name:
                continue
            if output.name in names:
                raise PassError(f"two values are named {output.name!r}")
            names.add(output.name)
    for value in graph.outputs:
        if value not in ready:
            raise PassError(f"the output {value.name!r} is not computed")
