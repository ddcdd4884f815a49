"""Which branch an ``If`` takes in every run that ends well, where its condition does not say."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from ..analysis.partial import Partial, as_items
from ..analysis.values import Facts
from ..graph import graph_of, graphs_of, is_op, subgraphs_of
from .branches import known_condition

_STEPS: Final = 100
"""How many nodes are followed at most to see what becomes of one branch."""


def choose_branches(model: ir.Model, facts: Facts) -> dict[ir.Node, bool]:
    """The conditions that follow from what the rest of ``model`` needs, by ``If`` node.

    Exporters write ``x.squeeze(0)`` of a tensor of unknown sizes as
    ``If(size == 1, Squeeze(x), x)``. Its answer has one axis less, or not, and an operator further
    on often takes only one of the two: a run with the other fails. What is known under either
    condition is followed from the node on, through shapes that are computed and through other
    ``If`` nodes, to a node that runs whenever this one does and is certain to fail. The branch
    that leads there is never taken. If both do, or neither does, the condition stays open.

    Args:
        model: The model.
        facts: What is known of it, with all nodes followed.
    """
    chooser = _Chooser(model, facts)
    nodes = [node for graph in graphs_of(model) for node in graph if is_op(node, "If")]
    found = {node: chooser.choice(node) for node in nodes if known_condition(node) is None}
    return {node: condition for node, condition in found.items() if condition is not None}


class _Chooser:
    """Follows suppositions through one model."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self._facts = facts
        self._owners = {
            inner: node
            for graph in graphs_of(model)
            for node in graph
            for inner in subgraphs_of(node)
        }
        self._orders: dict[ir.Graph, dict[ir.Node, int]] = {}

    def choice(self, node: ir.Node) -> bool | None:
        """The condition under which ``node`` does not lead to a failure, if the other does."""
        if not self._may_differ(node):
            return None
        failing = [condition for condition in (True, False) if self._fails(node, condition)]
        return not failing[0] if len(failing) == 1 else None

    def _may_differ(self, node: ir.Node) -> bool:
        """Whether an output has another number of axes in one branch than in the other."""
        shapes = [[self._facts.dims(v) for v in graph.outputs] for graph in subgraphs_of(node)]
        return any(
            one is not None and other is not None and len(one) != len(other)
            for one, other in zip(*shapes, strict=True)
        )

    def _fails(self, start: ir.Node, condition: bool) -> bool:
        """Whether every run in which ``start`` meets ``condition`` fails."""
        world, graph = self._facts.fork(), graph_of(start)
        held = start.inputs[0]
        if held is None or (dims := world.dims(held)) is None or any(size != 1 for size in dims):
            return False
        items = as_items(int(condition)).reshape([1] * len(dims))
        world.suppose(held, dims, Partial(ir.DataType.BOOL, items))
        branch = start.attributes["then_branch" if condition else "else_branch"].as_graph()
        for output, answer in zip(start.outputs, branch.outputs, strict=True):
            world.suppose(output, world.dims(answer), world.partial(answer))
        return any(
            _fails(node, world) and self._is_needed(node)
            for node in self._followed([held, *start.outputs], start, graph, world)
        )

    def _followed(
        self, changed: list[ir.Value], start: ir.Node, graph: ir.Graph, world: Facts
    ) -> Iterator[ir.Node]:
        """The nodes of ``graph`` that ``changed`` leads to, in order, each once it is followed."""
        order = self._order(graph)
        waiting: list[tuple[int, ir.Node]] = []
        seen = {start}
        steps = 0
        while True:
            for value in changed:
                for reader in self._readers(value, graph):
                    if reader not in seen:
                        seen.add(reader)
                        heapq.heappush(waiting, (order[reader], reader))
            if not waiting or steps > _STEPS:
                return
            node = heapq.heappop(waiting)[1]
            for inner in subgraphs_of(node):
                steps += sum(1 for _ in inner.all_nodes())
                world.follow_graph(inner)
            steps += 1
            world.follow([node])
            yield node
            changed = [output for output in node.outputs if self._learned(output, world)]

    def _learned(self, value: ir.Value, world: Facts) -> bool:
        """Whether ``world`` knows of ``value`` what is not known otherwise."""
        if world.dims(value) != self._facts.dims(value):
            return True
        new, old = world.partial(value), self._facts.partial(value)
        if new is None or old is None:
            return new is not old
        return bool(new.items.shape != old.items.shape or (new.items != old.items).any())

    def _readers(self, value: ir.Value, graph: ir.Graph) -> Iterator[ir.Node]:
        """The nodes of ``graph`` that read ``value``, themselves or inside."""
        for use in value.uses():
            node: ir.Node | None = use.node
            while node is not None and node.graph is not graph:
                node = self._owners.get(graph_of(node))
            if node is not None:
                yield node

    def _is_needed(self, node: ir.Node) -> bool:
        """Whether an output of the graph of ``node`` is computed from it."""
        graph, waiting, seen = graph_of(node), [node], {node}
        while waiting:
            for output in waiting.pop().outputs:
                if output.is_graph_output():
                    return True
                new = {reader for reader in self._readers(output, graph) if reader not in seen}
                seen |= new
                waiting += new
        return False

    def _order(self, graph: ir.Graph) -> dict[ir.Node, int]:
        if graph not in self._orders:
            self._orders[graph] = {node: place for place, node in enumerate(graph)}
        return self._orders[graph]


def _fails(node: ir.Node, facts: Facts) -> bool:
    """Whether ``node``, a recurrent layer or a convolution, cannot read so many axes."""
    if not is_op(node, "GRU", "LSTM", "RNN", "Conv", "ConvTranspose"):
        return False
    first, weight = (None if v is None else facts.dims(v) for v in node.inputs[:2])
    return first is not None and weight is not None and len(first) != len(weight)
