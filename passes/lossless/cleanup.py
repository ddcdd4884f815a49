"""Tidy a graph: nothing unused, nothing twice, nothing that does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import (
    NameFixPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)

from ..base import Context, Pass, Result
from ..errors import PassError
from ..graph import (
    add_initializer,
    constant_tensor,
    graph_of,
    graphs_of,
    is_op,
    nodes_in,
    nodes_of,
    take_over,
)
from .constants import drop_unused
from .duplicates import merge_initializers, merge_nodes
from .noops import NoOps
from .order import has_duplicate_names, is_sorted
from .shortcuts import shorten
from .unused import leave_out_unused_outputs, remove_unused_initializers, remove_unused_nodes


@dataclass(frozen=True)
class Cleanup(Pass):
    """Tidy the graph and keep every answer.

    In this order: sort the nodes and give values names of their own where they are not; remove
    nodes, initializers, functions, operator sets and optional outputs that nothing needs; turn
    ``Constant`` nodes into initializers; take out nodes that repeat an input (``Identity``,
    ``Dropout``, and ``Cast``, ``Reshape``, ``Transpose``, ``Slice`` and the like where they change
    nothing); let nodes read past a ``Cast`` that loses nothing, an ``Expand`` to the size of
    another operand, and a ``Pad`` that they can do themselves; merge initializers that are equal
    and nodes that compute the same. In subgraphs as well, and in the bodies of functions what
    applies there. Inputs and outputs of the graph keep their names and order.
    """

    name: ClassVar[str] = "cleanup"
    summary: ClassVar[str] = "remove what is unused, repeated or without effect"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Tidy ``model``; ``details`` counts what was done, by kind."""
        del context
        result = Result(model)
        _put_in_order(model, result)
        _drop_unused(model, result)
        _lift_constants(model, result)
        _take_out_no_ops(model, result)
        for root in _roots(model):
            _count(result, "merged_initializers", merge_initializers(root))
        for root in _roots(model):
            _count(result, "merged_nodes", merge_nodes(root))
        return result


def _roots(model: ir.Model) -> list[ir.Graph]:
    return [model.graph, *(function.graph for function in model.functions.values())]


def _count(result: Result, what: str, names: Iterable[str]) -> None:
    for name in names:
        result.rewrote(name)
        result.details[what] = result.details.get(what, 0) + 1


def _put_in_order(model: ir.Model, result: Result) -> None:
    roots = _roots(model)
    if not all(map(is_sorted, roots)):
        try:
            TopologicalSortPass()(model)
        except ValueError as error:
            raise PassError(f"the nodes cannot be sorted: {error}") from error
        _count(result, "sorted", ["graph"])
    if any(map(has_duplicate_names, roots)):
        NameFixPass()(model)
        _count(result, "renamed", ["graph"])


def _drop_unused(model: ir.Model, result: Result) -> None:
    functions, opsets = len(model.functions), len(model.opset_imports)
    for root in _roots(model):
        _count(result, "unused_nodes", remove_unused_nodes(root))
    if model.functions:
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    for root in _roots(model):
        opset = root.opset_imports.get("", 0)
        for node in nodes_in(root):
            if leave_out_unused_outputs(node, opset):
                _count(result, "unused_outputs", [node.name or node.op_type])
    for graph in graphs_of(model):
        _count(result, "unused_initializers", remove_unused_initializers(graph))
    if len(model.opset_imports) > 1:
        RemoveUnusedOpsetsPass()(model)
    removed = {
        "unused_functions": functions - len(model.functions),
        "unused_opsets": opsets - len(model.opset_imports),
    }
    for what, number in removed.items():
        _count(result, what, [what] * number)


def _lift_constants(model: ir.Model, result: Result) -> None:
    """Turn ``Constant`` nodes into initializers, which ONNX Runtime can share and prepack.

    Not where they are an output of their graph, nor in the body of a function, which cannot hold
    initializers.
    """
    bodies = {function.graph for function in model.functions.values()}
    for node in nodes_of(model):
        if not is_op(node, "Constant") or node.graph in bodies or not node.outputs[0].name:
            continue
        old, tensor = node.outputs[0], constant_tensor(node.outputs[0])
        if tensor is None or old.is_graph_output():
            continue
        new = add_initializer(graph_of(node), old.name or "", tensor)
        new.doc_string = old.doc_string
        new.metadata_props.update(old.metadata_props)
        old.replace_all_uses_with(new)
        graph_of(node).remove(node, safe=True)
        _count(result, "lifted_constants", [node.name or new.name or ""])


def _take_out_no_ops(model: ir.Model, result: Result) -> None:
    no_ops = NoOps(model)
    taken_out: list[ir.Value] = []
    for node in nodes_of(model):
        before = node.inputs
        while shorten(no_ops, node):
            _count(result, "shortcuts", [node.name or node.op_type])
            taken_out += [value for value in before if value is not None]
        source = no_ops.repeated(node)
        if source is None:
            continue
        output = node.outputs[0]
        if output.is_graph_output():
            free = source.producer() is not None and source.graph is node.graph
            if not free or source.is_graph_output():
                if not is_op(node, "Identity"):
                    result.decline(node, because="an output of the graph needs a node of its own")
                continue
            take_over(source, output)
        else:
            output.replace_all_uses_with(source)
        _count(result, "no_ops", [node.name or node.op_type])
        taken_out.append(output)
    drop_unused(*taken_out)
