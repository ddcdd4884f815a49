"""Whether nodes stand after what they read, and whether names are used once."""

from __future__ import annotations

import onnx_ir as ir

from ..graph import subgraphs_of


def is_sorted(graph: ir.Graph) -> bool:
    """Whether every node of ``graph``, and inside it, stands after the nodes that it reads."""
    return _is_sorted(graph, set())


def _is_sorted(graph: ir.Graph, done: set[ir.Node]) -> bool:
    for node in graph:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in done:
                return False
        if not all(_is_sorted(subgraph, done) for subgraph in subgraphs_of(node)):
            return False
        done.add(node)
    return True


def has_duplicate_names(graph: ir.Graph) -> bool:
    """Whether two values that are in scope together, or two nodes of one graph, share a name."""
    return _has_duplicate_names(graph, set())


def _has_duplicate_names(graph: ir.Graph, outer: set[str]) -> bool:
    own: set[str] = set()
    nodes: set[str] = set()

    def is_taken(value: ir.Value) -> bool:
        name = value.name
        if not name:
            return False
        taken = name in outer
        outer.add(name)
        own.add(name)
        return taken

    inputs = dict.fromkeys((*graph.inputs, *graph.initializers.values()))
    if any(is_taken(value) for value in inputs):
        return True
    for node in graph:
        if node.name and node.name in nodes:
            return True
        nodes.add(node.name or "")
        if any(_has_duplicate_names(subgraph, outer) for subgraph in subgraphs_of(node)):
            return True
        if any(is_taken(output) for output in node.outputs):
            return True
    outer -= own
    return False
