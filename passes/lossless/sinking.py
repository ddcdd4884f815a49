"""Moving transposes and reshapes behind what comes after them, where they cancel there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..base import Result
from ..graph import feeds_only, graphs_of, is_constant, is_op
from .constants import drop_unused
from .labels import Label
from .movement import Opsets, Place, Places, is_settled, permutation
from .view_forms import Moves
from .views import VIEWS, NoViewError

Write: TypeAlias = Callable[[Place, ir.Value, Sequence[ir.Value | None]], ir.Value]
"""Writes a node anew, on the origin of the first of its inputs and those of the others."""


@dataclass(frozen=True)
class Sunk:
    """What becomes of a node: its answer is moved in the way of ``label`` from what is written."""

    label: Label
    write: Write


@dataclass
class Sinker:
    """Finds in one graph what transposes and reshapes can be moved behind, and moves them.

    Attributes:
        facts: What is known of the tensors.
        places: Where to write.
        opsets: The versions of the operators.
        rules: How operators are done to the origins of what they read.
    """

    facts: Facts
    places: Places
    opsets: Opsets
    rules: Mapping[str, Rule]
    labels: dict[ir.Value, Label] = field(default_factory=dict)
    plans: dict[ir.Node, Sunk] = field(default_factory=dict)
    exposed: set[ir.Node] = field(default_factory=set)

    def sink(self, graph: ir.Graph, result: Result) -> None:
        """Move what is worth it."""
        for node in graph:
            plan = self._plan(node)
            if plan is not None:
                self.plans[node] = plan
                self.labels[node.outputs[0]] = plan.label
                if self._exposes(node):
                    self.exposed.add(node)
        for nodes in self._regions():
            self._move(nodes, result)

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``, if its rank is known."""
        self.facts.follow_to(value)
        return self.facts.dims(value)

    def label(self, value: ir.Value | None, reader: ir.Node) -> Label | None:
        """How ``value`` lies in its origin, if that is another tensor that ``reader`` can read."""
        found = None if value is None else self.labels.get(value)
        if value is None or found is None or found.is_plain:
            return None
        producer = value.producer()
        return found if producer is not None and producer.graph is reader.graph else None

    def _plan(self, node: ir.Node) -> Sunk | None:
        if not is_settled(node) or len(node.outputs) != 1 or not any(node.inputs[:1]):
            return None
        if is_op(node, *VIEWS):
            return self._view(node)
        rule = self.rules.get(node.op_type)
        if rule is None or not any(self.label(value, node) for value in node.inputs):
            return None
        return rule(self, node)

    def _view(self, node: ir.Node) -> Sunk | None:
        source = node.inputs[0]
        if source is None:
            return None
        label = self.label(source, node)
        try:
            if label is None:
                dims = self.dims(source)
                if dims is None and (perm := permutation(node)) is not None:
                    dims = tuple(f"{source.name}:{axis}" for axis in range(len(perm)))
                if dims is None:
                    return None
                label = Label.plain(dims)
            return Sunk(label.then(node), lambda _, x, __: x)
        except NoViewError:
            return None

    def _regions(self) -> Iterator[list[ir.Node]]:
        """Nodes that hang together, without those behind which nothing would be gained."""
        useful: set[ir.Node] = set()
        for node in reversed(self.plans):
            readers = {use.node for use in node.outputs[0].uses()}
            if self._gains(node) or readers & useful:
                useful.add(node)
        region: dict[ir.Node, list[ir.Node]] = {}
        for node in self.plans:
            if node not in useful:
                continue
            joined = [node]
            for value in node.inputs:
                before = value.producer() if self.label(value, node) and value else None
                if before is None or region[before] is joined:
                    continue
                longer, shorter = region[before], joined
                if len(longer) < len(shorter):
                    longer, shorter = shorter, longer
                longer += shorter
                region.update(dict.fromkeys(shorter, longer))
                joined = longer
            region[node] = joined
        order = {node: place for place, node in enumerate(self.plans)}
        for nodes in {id(nodes): nodes for nodes in region.values()}.values():
            yield sorted(nodes, key=order.__getitem__)

    def _gains(self, node: ir.Node) -> bool:
        """Whether it may pay to move something as far as ``node``."""
        moved = {value for value in node.inputs if self.label(value, node)}
        return len(moved) > 1 or node in self.exposed or (is_op(node, *VIEWS) and bool(moved))

    def _exposes(self, node: ir.Node) -> bool:
        """Whether ``node`` would come to stand where ``Conv`` takes it in."""
        if node.op_type not in {"Add", "Clip", "Mul", "Relu", "Sub"}:
            return False
        for value in node.inputs:
            if value is None or self.label(value, node) is None or not feeds_only(value, node):
                continue
            before = value.producer()
            while is_op(before, *VIEWS) and before.inputs[0] is not None:
                if not feeds_only(before.inputs[0], before):
                    return False
                before = before.inputs[0].producer()
            return is_op(before, "Conv", "ConvTranspose") or before in self.exposed
        return False

    def _move(self, nodes: list[ir.Node], result: Result) -> None:
        inside = set(nodes)
        before = sum(is_op(node, *VIEWS) for node in nodes)
        needed: dict[ir.Node, Moves] = {}
        for node in nodes:
            output = node.outputs[0]
            if not output.is_graph_output() and all(use.node in inside for use in output.uses()):
                continue
            moves = self.plans[node].label.moves()
            if moves is None:
                return
            needed[node] = moves
        after = sum(map(len, needed.values()))
        exposed = any(node in self.exposed for node in nodes)
        if after > before or (after == before and not exposed) or _touches_quantization(nodes):
            return
        if all(is_op(node, *VIEWS) for node in nodes):
            return  # rows of these alone are written shorter elsewhere
        self._write(nodes, needed, result)

    def _write(self, nodes: list[ir.Node], needed: Mapping[ir.Node, Moves], result: Result) -> None:
        origins: dict[ir.Value, ir.Value] = {}
        replaced: list[tuple[ir.Node, Place, ir.Value]] = []
        for node in nodes:
            place = self.places.before(node)
            first, *others = (value and origins.get(value, value) for value in node.inputs)
            if first is None:
                continue
            origin = self.plans[node].write(place, first, others)
            origins[node.outputs[0]] = origin
            if is_op(node, *VIEWS):
                result.rewrote(node)
            if node in needed:
                value = origin
                for move in needed[node]:
                    value = move.write(place, value)
                replaced.append((node, place, value))
        for _, place, value in replaced:
            place.answer(value)
        drop_unused(*(node.outputs[0] for node in reversed(nodes)))


Rule: TypeAlias = Callable[[Sinker, ir.Node], Sunk | None]
"""How a node is written on the origins of what it reads, if it can be."""


def _touches_quantization(nodes: Sequence[ir.Node]) -> bool:
    """Whether a node stands in a group that ONNX Runtime would run in integers."""
    read = (value.producer() for node in nodes for value in node.inputs if value is not None)
    readers = (use.node for node in nodes for use in node.outputs[0].uses())
    return any(is_op(node, "DequantizeLinear") for node in read) or any(
        is_op(node, "QuantizeLinear") for node in readers
    )


def sink_all(model: ir.Model, facts: Facts, rules: Mapping[str, Rule], result: Result) -> None:
    """Move transposes and reshapes in every graph of ``model`` to where they cancel."""
    places, opsets = Places(model), Opsets(model)
    for graph in graphs_of(model):
        if any(is_op(node, *VIEWS) for node in graph):
            Sinker(facts, places, opsets, rules).sink(graph, result)


def has_constants(node: ir.Node, *indices: int) -> bool:
    """Whether what ``node`` reads at ``indices``, if anything, is constant."""
    return all(
        node.inputs[index] is None or is_constant(node.inputs[index])
        for index in indices
        if index < len(node.inputs)
    )
