"""Compute before a branch or a loop what is the same in every branch or iteration."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import constant, constant_tensor, graph_of, graphs_of, is_op, subgraphs_of, take_over
from .constants import ConstantWriter, drop_unused, remove_node
from .duplicates import Contents, node_key
from .foldable import refusal
from .total import never_fails


@dataclass(frozen=True)
class HoistInvariants(Pass):
    """Move out of ``If``, ``Loop`` and ``Scan`` what does not depend on what they do.

    What both branches of an ``If`` compute of the same values is computed once, before it; an
    output that is the same in both is no output of the ``If`` any more, and one without outputs
    is gone. What an iteration computes of values from outside the loop alone is computed before
    the loop: where that is certain to run once at least, and for operators that cannot fail, also
    where it may not run. Nodes go with the constants that they read, inner ones first.

    Random and quantizing operators stay, and what is an answer of a body: it would need a node
    that repeats it.
    """

    name: ClassVar[str] = "hoist-invariants"
    summary: ClassVar[str] = "compute once, before If, Loop and Scan, what is the same each time"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Hoist all that can be."""
        del context
        result = Result(model)
        holders = [node for graph in graphs_of(model) for node in graph if subgraphs_of(node)]
        if holders:
            hoister = _Hoister(model, result)
            for node in reversed(holders):
                hoister.hoist(node)
        return result


class _Hoister:
    """Hoists nodes of one model."""

    def __init__(self, model: ir.Model, result: Result) -> None:
        self._result = result
        self._writer = ConstantWriter(model)
        self._facts = Facts(model)
        self._facts.follow_all()

    def hoist(self, node: ir.Node) -> None:
        """Move what can be out of the subgraphs of ``node``."""
        if is_op(node, "If"):
            self._hoist_common(node)
        elif is_op(node, "Loop", "Scan"):
            runs = _runs_once(node, self._facts)
            [body] = subgraphs_of(node)
            for inner in list(body):
                if not self._is_movable(inner, body) or refusal(inner):
                    continue
                if any(output.is_graph_output() for output in inner.outputs):
                    continue
                if runs or never_fails(inner, self._facts):
                    self._move(inner, node)
                    self._result.rewrote(inner)
                else:
                    why = f"the {node.op_type} around it may not run, and then it must not fail"
                    self._result.decline(inner, because=why)

    def _hoist_common(self, node: ir.Node) -> None:
        """Move what both branches of ``node``, an ``If``, compute before it."""
        first, second = (
            node.attributes[name].as_graph() for name in ("then_branch", "else_branch")
        )
        contents: Contents = {}
        waiting = {key: inner for inner in second if (key := self._key(inner, second, contents))}
        twins: list[ir.Node] = []
        same: dict[int, ir.Value] = {}
        for inner in list(first):
            key = self._key(inner, first, contents)
            twin = waiting.pop(key, None) if key is not None else None
            if twin is None or (places := _places(inner, first)) != _places(twin, second):
                continue
            self._result.rewrote(inner)
            same |= {place: inner.outputs[number] for place, number in places.items()}
            self._move(inner, node)
            twins.append(twin)
            for reader in _read_instead(inner, twin):
                key = self._key(reader, second, contents) if reader.graph is second else None
                if key is not None:
                    waiting.setdefault(key, reader)
        if same:
            self._drop_outputs(node, [first, second], same)
        for twin in reversed(twins):
            drop_unused(*remove_node(twin))

    def _key(self, node: ir.Node, graph: ir.Graph, contents: Contents) -> Hashable | None:
        return node_key(node, contents) if self._is_movable(node, graph) else None

    def _is_movable(self, node: ir.Node, graph: ir.Graph) -> bool:
        """Whether ``node`` has no subgraphs and reads nothing that ``graph`` computes."""
        if is_op(node, "Constant") or subgraphs_of(node):
            return False
        return all(
            value is None or value.graph is not graph or constant_tensor(value) is not None
            for value in node.inputs
        )

    def _move(self, node: ir.Node, holder: ir.Node) -> None:
        """Put ``node``, with the constants that it reads, before ``holder``."""
        inside, outside = graph_of(node), graph_of(holder)
        left: list[ir.Value | None] = []
        for index, value in enumerate(node.inputs):
            tensor = constant_tensor(value)
            if value is not None and value.graph is inside and tensor is not None:
                name = value.name or "constant"
                node.replace_input_with(index, self._writer.add(outside, name, tensor, holder))
                left.append(value)
        drop_unused(*left)
        inside.remove(node)
        node.name = None
        for output in node.outputs:
            output.name = self._writer.names.fresh(output.name) if output.name else output.name
        outside.insert_before(holder, node)

    def _drop_outputs(
        self, node: ir.Node, branches: list[ir.Graph], same: dict[int, ir.Value]
    ) -> None:
        """Take those outputs out of ``node``, an ``If``, that are the ``same`` in both branches."""
        for branch in branches:
            values = [value for place, value in enumerate(branch.outputs) if place not in same]
            branch.outputs.clear()
            branch.outputs.extend(values)
        for place, new in same.items():
            self._answer(node.outputs[place], new, node)
        left = [output for place, output in enumerate(node.outputs) if place not in same]
        if left:
            attributes = list(node.attributes.values())
            smaller = ir.Node("", "If", node.inputs, attributes, num_outputs=len(left))
            smaller.name, node.name = node.name, None
            graph_of(node).insert_before(node, smaller)
            for old, new in zip(left, smaller.outputs, strict=True):
                take_over(new, old)
            node.attributes.clear()
        drop_unused(*remove_node(node))

    def _answer(self, old: ir.Value, new: ir.Value, node: ir.Node) -> None:
        """Let ``new``, from before ``node``, be what its output ``old`` was."""
        if not old.is_graph_output():
            old.replace_all_uses_with(new)
        else:
            if new.graph is not old.graph or new.is_graph_output() or new.producer() is None:
                again = ir.Node("", "Identity", [new])
                graph_of(node).insert_before(node, again)
                new = again.outputs[0]
            take_over(new, old)


def _read_instead(new: ir.Node, old: ir.Node) -> list[ir.Node]:
    """Let all that reads the outputs of ``old`` read those of ``new``; gives the readers."""
    readers = []
    for one, other in zip(new.outputs, old.outputs, strict=True):
        for use in tuple(other.uses()):
            use.node.replace_input_with(use.idx, one)
            readers.append(use.node)
    return readers


def _places(node: ir.Node, graph: ir.Graph) -> dict[int, int]:
    """Which outputs of ``graph`` are which outputs of ``node``."""
    numbers = {output: number for number, output in enumerate(node.outputs)}
    return {
        place: numbers[answer] for place, answer in enumerate(graph.outputs) if answer in numbers
    }


def _runs_once(node: ir.Node, facts: Facts) -> bool:
    """Whether the body of ``node``, a ``Loop`` or ``Scan``, is certain to run."""
    if is_op(node, "Loop"):
        for value, least in zip(node.inputs[:2], (1, 1), strict=False):
            array = constant(value)
            if value is not None and (array is None or array.size != 1 or array.item() < least):
                return False
        return True
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    if not scanned or "scan_input_axes" in node.attributes:
        return False
    value = node.inputs[len(node.inputs) - scanned]
    dims = None if value is None else facts.dims(value)
    return dims is not None and bool(dims) and isinstance(dims[0], int) and dims[0] > 0
