"""Which part of a graph is constant, and which of its values are worth storing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from ..base import Array
from ..graph import constant_tensor, is_constant, is_op, nodes_in, subgraphs_of
from .evaluate import nbytes_of
from .foldable import captured, may_not_end, refusal

SMALLEST = 64
"""Values of up to this many bytes, a shape of eight sizes, take no more room than a node."""


@dataclass
class Region:
    """The nodes of a graph, subgraphs included, whose answers never change.

    Attributes:
        reads: Those nodes, sorted, each with all that it reads; nothing for one whose answers are
            known without evaluating it.
        refused: Nodes that read constants only and must not be evaluated, and why.
        owners: The node of ``reads`` in whose subgraphs a node stands.
    """

    reads: dict[ir.Node, Sequence[ir.Value]] = field(default_factory=dict)
    refused: dict[ir.Node, str] = field(default_factory=dict)
    owners: dict[ir.Node, ir.Node] = field(default_factory=dict)

    def is_read_outside(self, value: ir.Value) -> bool:
        """Whether ``value`` is an output, or read by a node that is not in the region."""
        return value.is_graph_output() or any(
            self.owners.get(use.node, use.node) not in self.reads for use in value.uses()
        )


def find_region(
    graph: ir.Graph, arrays: Mapping[ir.Value, Array], failures: Mapping[ir.Node, str]
) -> Region:
    """The constant region of ``graph``, given what is known already and what cannot be."""
    region = Region()
    constants: dict[ir.Value, bool] = {}

    def is_known(value: ir.Value) -> bool:
        if value not in constants:
            constants[value] = value in arrays or is_constant(value)
        return constants[value]

    for node in nodes_in(graph):
        if node in region.owners or is_op(node, "Constant"):
            continue
        named = [output for output in node.outputs if output.name]
        inputs = [value for value in node.inputs if value is not None]
        if all(map(is_known, inputs)) and all(map(is_known, outer := captured(node))):
            if why := failures.get(node) or refusal(node) or may_not_end(node):
                region.refused[node] = why
                continue
            region.reads[node] = [*inputs, *outer]
        elif named and all(output in arrays for output in named):
            region.reads[node] = ()
        else:
            continue
        constants.update(dict.fromkeys(named, True))
        for inner in subgraphs_of(node):
            region.owners.update(dict.fromkeys(inner.all_nodes(), node))
    return region


@dataclass
class Plan:
    """What to make of a region.

    Attributes:
        store: The nodes to replace, each with those of its outputs to store, last ones first.
        missing: The values that have to be evaluated before the plan is final.
        kept: Nodes whose values would take too much room.
    """

    store: dict[ir.Node, list[ir.Value]] = field(default_factory=dict)
    missing: list[ir.Value] = field(default_factory=list)
    kept: list[ir.Node] = field(default_factory=list)


Bytes: TypeAlias = Callable[[ir.Value], int | None]
"""The size of a value in bytes, if that is known before it is evaluated."""

Growth: TypeAlias = Callable[[ir.Value], int]
"""The bytes by which a value may exceed what it takes the place of."""


def plan_region(
    region: Region, arrays: Mapping[ir.Value, Array], nbytes: Bytes, growth: Growth
) -> Plan:
    """Choose the values to store so that none is much larger than what it takes the place of.

    Values take the place of the constants that they alone are computed from. A value that is
    more than its ``growth`` larger than what is left of those is not stored; its node stays, and
    what that node reads is looked at in its place.
    """
    shared: set[ir.Value] = set()
    while True:
        plan, needed = _plan(region, arrays, nbytes, growth, shared)
        stays = {value for value in needed if value.producer() not in region.reads} - shared
        if not stays:
            return plan
        # A constant that a kept node goes on reading frees no room: count again without it.
        shared |= stays


def _plan(
    region: Region,
    arrays: Mapping[ir.Value, Array],
    nbytes: Bytes,
    growth: Growth,
    shared: set[ir.Value],
) -> tuple[Plan, set[ir.Value]]:
    rooms = _Rooms(region, shared)
    plan = Plan()
    needed: set[ir.Value] = set()
    for node, inputs in reversed(region.reads.items()):
        outputs = [
            output
            for output in node.outputs
            if output.name and (output in needed or region.is_read_outside(output))
        ]
        if not outputs:
            continue
        size = sum(
            nbytes_of(arrays[output]) if output in arrays else nbytes(output) or 0
            for output in outputs
        )
        if size > max(rooms.left(node) + min(map(growth, outputs)), SMALLEST):
            plan.kept.append(node)
            needed.update(inputs)
            continue
        rooms.take(node, size)
        plan.store[node] = outputs
        plan.missing += [output for output in outputs if output not in arrays]
    return plan, needed


class _Rooms:
    """The bytes that become free with constants that nothing outside the region reads.

    Constants that are computed with one another share one room; small ones do not count, since
    one list of axes may serve a whole model.
    """

    def __init__(self, region: Region, shared: set[ir.Value]) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}
        self._free: dict[ir.Value, int] = {}
        self._room_of: dict[ir.Node, ir.Value] = {}
        for node, inputs in region.reads.items():
            rooms = []
            for value in inputs:
                producer = value.producer()
                if producer is not None and producer in region.reads:
                    if producer in self._room_of:
                        rooms.append(self._room_of[producer])
                elif value in self._parents:
                    rooms.append(value)
                elif (tensor := constant_tensor(value)) is not None and tensor.nbytes > SMALLEST:
                    stays = value in shared or region.is_read_outside(value)
                    self._parents[value] = value
                    self._free[value] = 0 if stays else tensor.nbytes
                    rooms.append(value)
            for room in rooms:
                self._room_of[node] = self._joined(self._room_of.get(node, room), room)

    def left(self, node: ir.Node) -> int:
        """The bytes that are free where ``node`` takes what it is computed from."""
        room = self._room_of.get(node)
        return 0 if room is None else self._free[self._root(room)]

    def take(self, node: ir.Node, size: int) -> None:
        """Fill ``size`` bytes of that."""
        if (room := self._room_of.get(node)) is not None:
            root = self._root(room)
            self._free[root] = max(0, self._free[root] - size)

    def _root(self, room: ir.Value) -> ir.Value:
        while (parent := self._parents[room]) is not room:
            self._parents[room] = room = self._parents[parent]
        return room

    def _joined(self, one: ir.Value, other: ir.Value) -> ir.Value:
        one, other = self._root(one), self._root(other)
        if one is not other:
            self._parents[other] = one
            self._free[one] += self._free.pop(other)
        return one
