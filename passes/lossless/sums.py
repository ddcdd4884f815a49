"""Trees of additions: what they add up, and taking some of it away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from ..graph import graph_of, is_op, take_over

_ADDING = ("Add", "Sum", "Sub")


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in a sum: input ``index`` of ``node``, which is added or, if negative, subtracted."""

    node: ir.Node
    index: int
    negative: bool

    @property
    def value(self) -> ir.Value:
        """What stands there."""
        value = self.node.inputs[self.index]
        if value is None:
            raise ValueError(f"input {self.index} of {self.node.name} is taken")
        return value


@dataclass(frozen=True)
class SumTree:
    """Additions that nothing else reads, each after those that read it; ``nodes[0]`` is the sum."""

    nodes: tuple[ir.Node, ...]
    slots: tuple[Slot, ...]

    @property
    def root(self) -> ir.Node:
        """The node that answers with the whole sum."""
        return self.nodes[0]

    def stands_without(self, gone: Iterable[Slot]) -> bool:
        """Whether nothing that is subtracted loses all that it is subtracted from."""
        empty = {(slot.node, slot.index) for slot in gone}
        for node in reversed(self.nodes):
            sides = [(node, index) not in empty for index in range(len(node.inputs))]
            if node.op_type == "Sub" and sides == [False, True]:
                return False
            if not any(sides):
                empty |= {(use.node, use.idx) for use in node.outputs[0].uses()}
        return True

    def take_away(self, gone: Iterable[Slot]) -> None:
        """Let the slots ``gone`` be no part of the sum any more; one slot at least must stay.

        Additions with one summand left are removed.
        """
        empty = {(slot.node, slot.index) for slot in gone}
        for node in reversed(self.nodes):
            places = range(len(node.inputs))
            left = [index for index in places if (node, index) not in empty]
            if len(left) == len(node.inputs):
                continue
            values = [Slot(node, index, False).value for index in left]
            answer = node.outputs[0]
            if not values:
                empty |= {(use.node, use.idx) for use in answer.uses()}
            elif len(values) > 1:
                for index, value in enumerate(values):
                    node.replace_input_with(index, value)
                node.resize_inputs(len(values))
            elif node is self.root:
                values[0].shape = None  # it may come from an exporter who was wrong
                take_over(values[0], answer)
            else:
                answer.replace_all_uses_with(values[0])
        for node in self.nodes:
            if not (node.outputs[0].uses() or node.outputs[0].is_graph_output()):
                graph_of(node).remove(node, safe=True)


def sum_trees(graph: Iterable[ir.Node]) -> list[SumTree]:
    """All sums in ``graph``, as large as possible, in the order of their nodes."""
    adding = [node for node in graph if _adds(node)]
    inner = {node for node in adding if _is_inner(node)}
    return [_tree(node, inner) for node in adding if node not in inner]


def _adds(node: ir.Node) -> bool:
    return is_op(node, *_ADDING) and not node.attributes and None not in node.inputs


def _is_inner(node: ir.Node) -> bool:
    """Whether what ``node`` adds up is read by one addition in its graph, and nowhere else."""
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return False
    return uses[0].node.graph is node.graph and _adds(uses[0].node)


def _tree(root: ir.Node, inner: set[ir.Node]) -> SumTree:
    nodes, slots, waiting = [], [], [(root, False)]
    while waiting:
        node, negative = waiting.pop()
        nodes.append(node)
        for index, value in enumerate(node.inputs):
            minus = negative != (node.op_type == "Sub" and index == 1)
            below = None if value is None else value.producer()
            if below in inner:
                waiting.append((below, minus))
            else:
                slots.append(Slot(node, index, minus))
    return SumTree(tuple(nodes), tuple(slots))
