"""Values inside the bodies of ``If``, ``Loop`` and ``Scan``, as the main graph can give them out.

A session answers with values of the main graph alone. So what is computed inside is handed out
step by step: as one more output of the node that holds the graph, which another branch fills with
something neutral, and which a loop stacks, one entry for each turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..graph import Names, graphs_of, is_op, nodes_in, subgraphs_of

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def holders_of(model: ir.Model) -> dict[ir.Graph, ir.Node]:
    """The node that holds each graph inside the main graph."""
    return {inner: node for node in nodes_in(model.graph) for inner in subgraphs_of(node)}


def hidden(graph: ir.Graph, holders: dict[ir.Graph, ir.Node]) -> str:
    """Why values of ``graph`` cannot be handed out; empty if they can."""
    holder = holders.get(graph)
    while holder is not None:
        if not is_op(holder, "If", "Loop", "Scan"):
            return f"it stands in a body of {holder.op_type}, which calibration cannot see into"
        holder = holders.get(holder.graph) if isinstance(holder.graph, ir.Graph) else None
    return ""


def name_apart(model: ir.Model, graphs: Iterable[ir.Graph]) -> bool:
    """Give values inside ``graphs`` names that nothing else has; say whether any was renamed.

    Branches may use the same names, and then a name does not tell which value is meant.
    """
    inner = set(graphs)
    taken: set[str | None] = set()
    doubles: list[ir.Value] = []
    # Outer graphs first: their names stay.
    for graph in sorted(graphs_of(model), key=lambda one: one in inner):
        for value in _defined(graph):
            if value.name in taken and graph in inner:
                doubles.append(value)
            taken.add(value.name)
    names = Names(model)
    for value in doubles:
        value.name = names.fresh(value.name or "value")
    return bool(doubles)


def _defined(graph: ir.Graph) -> list[ir.Value]:
    values = [*graph.inputs, *graph.initializers.values()]
    values += [output for node in graph for output in node.outputs if output.name]
    return list(dict.fromkeys(values))


@dataclass
class Lift:
    """Hands values of one model's inner graphs out of its main graph; the model changes."""

    model: ir.Model
    names: Names
    _holders: dict[ir.Graph, ir.Node] = field(init=False)

    def __post_init__(self) -> None:
        self._holders = holders_of(self.model)

    def in_loop(self, graph: ir.Graph | None) -> bool:
        """Whether ``graph`` runs several times."""
        while graph is not None and (holder := self._holders.get(graph)) is not None:
            if not is_op(holder, "If"):
                return True
            graph = holder.graph if isinstance(holder.graph, ir.Graph) else None
        return False

    def number(self, value: ir.Value, reduce: str, neutral: float) -> str:
        """A number, computed in some graph, in the main graph.

        Args:
            value: A float scalar.
            reduce: The operator that makes one number of those of all turns.
            neutral: What stands for a branch that is not taken.
        """
        graph = value.graph
        while graph is not None and (holder := self._holders.get(graph)) is not None:
            value = self._handed_out(value, graph, holder, np.array(neutral, np.float32))
            graph = holder.graph if isinstance(holder.graph, ir.Graph) else None
            if graph is not None and not is_op(holder, "If"):
                node = ir.node(reduce, [value], {"keepdims": 0})
                graph.insert_after(holder, node)
                value = self._named(node.outputs[0], value.name or "turns")
        return value.name or ""

    def elements(self, value: ir.Value) -> str:
        """All elements of ``value``, which is not in a loop, as a vector in the main graph."""
        graph = value.graph
        if graph is None or graph not in self._holders:
            return value.name or ""
        shape = ir.node("Constant", [], {"value_ints": [-1]})
        flat = ir.node("Reshape", [value, shape.outputs[0]])
        self._named(shape.outputs[0], "flat.shape").type = ir.TensorType(ir.DataType.INT64)
        graph.extend([shape, flat])
        value = self._named(flat.outputs[0], f"{value.name}.flat")
        while graph is not None and (holder := self._holders.get(graph)) is not None:
            value = self._handed_out(value, graph, holder, np.zeros(0, np.float32))
            graph = holder.graph if isinstance(holder.graph, ir.Graph) else None
        return value.name or ""

    def _handed_out(
        self, value: ir.Value, graph: ir.Graph, holder: ir.Node, neutral: np.ndarray
    ) -> ir.Value:
        """``value`` of ``graph`` as one more output of ``holder``."""
        for branch in subgraphs_of(holder):
            if branch is graph:
                branch.outputs.append(value)
                continue
            none = ir.node("Constant", [], {"value": ir.tensor(neutral)})
            branch.append(none)
            branch.outputs.append(self._named(none.outputs[0], "not.taken"))
        if is_op(holder, "Scan"):
            for name in ("scan_output_axes", "scan_output_directions"):
                if (given := holder.attributes.get(name)) is not None:
                    longer = [*given.as_ints(), 0]
                    holder.attributes[name] = ir.AttrInt64s(name, longer)
        holder.resize_outputs(len(holder.outputs) + 1)
        return self._named(holder.outputs[-1], f"{value.name}.outside")

    def _named(self, value: ir.Value, name: str) -> ir.Value:
        value.name, value.type = self.names.fresh(name), FLOAT
        return value
