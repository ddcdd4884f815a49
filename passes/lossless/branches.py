"""Taking the one branch of an ``If`` whose condition is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..base import Result
from ..graph import constant, graph_of, graphs_of, is_op, nodes_of, take_over, values_in
from .constants import ConstantWriter, drop_unused, remove_node


def take_known_branches(
    model: ir.Model, result: Result, decided: Mapping[ir.Node, bool] | None = None
) -> bool:
    """Put in the place of each ``If`` with a known condition what its branch computes.

    Known are conditions that are constant, and those ``decided`` already. In functions and
    subgraphs as well. Once sizes are known, what stands in the other branch need not even be valid
    for them, and ONNX Runtime, which infers them, would not load the model.

    Returns:
        Whether there were any; ``result`` names them.
    """
    known: dict[ir.Node, bool] = {}
    for node in nodes_of(model):
        if is_op(node, "If"):
            condition = (decided or {}).get(node, known_condition(node))
            if condition is not None:
                known[node] = condition
    if known:
        mover = _Mover(model)
        for node, condition in reversed(known.items()):  # those inside others first
            result.rewrote(node)
            mover.replace(node, condition)
    return bool(known)


def known_condition(node: ir.Node) -> bool | None:
    """The condition of ``node``, an ``If``, where it is constant."""
    array = constant(node.inputs[0])
    return bool(array.item()) if array is not None and array.size == 1 else None


def _count(names: Iterable[str | None]) -> Counter[str]:
    return Counter(name for name in names if name)


@dataclass
class _Mover:
    """Moves the contents of branches of one model into the graphs around them."""

    model: ir.Model
    writer: ConstantWriter = field(init=False)
    values: Counter[str] = field(init=False)
    nodes: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.writer = ConstantWriter(self.model)
        graphs = list(graphs_of(self.model))
        self.values = _count(value.name for graph in graphs for value in values_in(graph))
        self.nodes = _count(node.name for graph in graphs for node in graph)

    def replace(self, node: ir.Node, condition: bool) -> None:
        """Put the branch that ``node`` takes under ``condition`` in its place."""
        names = ("then_branch", "else_branch")
        taken, other = names if condition else names[::-1]
        branch = node.attributes[taken].as_graph()
        self.forget(node.attributes[other].as_graph())
        answers: list[ir.Value] = list(branch.outputs)
        branch.outputs.clear()
        moved = self.move_constants(branch, node) | self.move_nodes(branch, node)
        for old, new in zip(node.outputs, answers, strict=True):
            self.answer(old, moved.get(new, new), node)
        drop_unused(*remove_node(node))

    def forget(self, branch: ir.Graph) -> None:
        """Give the names in ``branch`` back."""
        for graph in (branch, *branch.subgraphs()):
            self.values.subtract(_count(value.name for value in values_in(graph)))
            self.nodes.subtract(_count(node.name for node in graph))

    def move_constants(self, branch: ir.Graph, before: ir.Node) -> dict[ir.Value, ir.Value]:
        """Move the initializers of ``branch``; says what each has become."""
        moved: dict[ir.Value, ir.Value] = {}
        for name, value in list(branch.initializers.items()):
            if value.const_value is None:
                continue
            del branch.initializers[name]
            if self.values[name] == 1:
                self.writer.names.release(name)
            self.values[name] -= 1
            new = self.writer.add(graph_of(before), name, value.const_value, before)
            value.replace_all_uses_with(new)
            moved[value] = new
        return moved

    def move_nodes(self, branch: ir.Graph, before: ir.Node) -> dict[ir.Value, ir.Value]:
        """Move the nodes of ``branch``, under names that are free where they come to stand."""
        moved: dict[ir.Value, ir.Value] = {}
        for node in list(branch):
            branch.remove(node)
            if node.name and self.nodes[node.name] > 1:
                self.nodes[node.name] -= 1
                node.name = None
            for output in node.outputs:
                if output.name and self.values[output.name] > 1:
                    self.values[output.name] -= 1
                    output.name = self.writer.names.fresh(output.name)
                moved[output] = output
            graph_of(before).insert_before(before, node)
        return moved

    def answer(self, old: ir.Value, new: ir.Value, before: ir.Node) -> None:
        """Let ``new`` be what ``old``, an output of ``before``, was."""
        if not old.is_graph_output():
            new.type = new.type or old.type
            old.replace_all_uses_with(new)
            return
        if new.producer() is None or new.graph is not old.graph or new.is_graph_output():
            again = ir.Node("", "Identity", [new])
            graph_of(before).insert_before(before, again)
            new = again.outputs[0]
        take_over(new, old)
