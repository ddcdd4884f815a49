"""Put the bodies of functions in the place of their calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ..base import Context, Pass, Result
from ..graph import Names, nodes_of, subgraphs_of, values_in

_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Replace every call of one of the model's own functions by what the function computes.

    ONNX Runtime does the same when it loads a model, so nothing is lost; inlined, constants can
    be folded and nodes fused across the borders of the functions, with the attributes and shapes
    of each call. Declined for functions whose operators are of another version than the model's,
    for those that take graphs as attributes, and where functions call each other in a circle.
    """

    name: ClassVar[str] = "inline-functions"
    summary: ClassVar[str] = "replace calls of the model's functions by their bodies"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Inline every function that can be; ``details`` counts them."""
        del context
        result = Result(model)
        if not model.functions:
            return result
        kept = set()
        for key, function in model.functions.items():
            if reason := _refusal(function, model):
                kept.add(key)
                result.decline(f"{function.domain}::{function.name}", because=reason)
        calls = [node for node in nodes_of(model) if node.op_identifier() in model.functions]
        for node in calls:
            if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
                kept.add(node.op_identifier())
                result.decline(node, because="it passes a graph to the function")
        inline = InlinePass(lambda function: function.identifier() not in kept)
        try:
            inline.requires(model)
        except ir.passes.PreconditionError as error:
            result.decline("the model", because=str(error))
            return result
        before = len(model.functions)
        for node in calls:
            if node.op_identifier() not in kept:
                result.rewrote(node)
        inline.call(model)
        _name_apart(model.graph, [], Names(model))
        result.details["functions"] = before - len(model.functions)
        return result


def _refusal(function: ir.Function, model: ir.Model) -> str:
    """Why the calls of ``function`` have to stay; empty if they need not."""
    for domain, version in function.opset_imports.items():
        if model.opset_imports.get(domain, version) != version:
            return f"its operators are of version {version} of {domain or 'ai.onnx'}"
    outputs = set(function.outputs)
    if len(outputs) < len(function.outputs) or not outputs.isdisjoint(function.inputs):
        return "its outputs are not each computed by a node"
    return ""


def _name_apart(graph: ir.Graph, outer: list[set[str | None]], names: Names) -> None:
    """Rename what has, inside ``graph``, the name of a value around it.

    ``InlinePass`` makes names that are new among those of the graph with the call only.
    """
    for value in list(values_in(graph)) if outer else ():
        if any(value.name in scope for scope in outer):
            value.name = names.fresh(value.name or "value")
    scopes = [*outer, {value.name for value in values_in(graph)}]
    for node in graph:
        for inner in subgraphs_of(node):
            _name_apart(inner, scopes, names)
