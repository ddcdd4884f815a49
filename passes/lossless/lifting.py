"""Families of values that are computed alike, and what joins them into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..graph import constant, constant_tensor, feeds_only
from .movement import Opsets, Place, is_settled
from .pieces import Piece, Pieces

Build: TypeAlias = Callable[[Place], ir.Value]
"""Writes the nodes that compute a family at once, and gives what they answer."""

Rule: TypeAlias = "Callable[[Step], Build]"
"""How an operator is done to all members at once. Raises ``NotLiftedError``."""

_DEEPEST = 100
"""Chains with more steps are not followed."""
_MOST_REPEATED_BYTES = 4096
"""How much one constant may grow if each member needs a copy of it."""


class NotLiftedError(Exception):
    """Why a family cannot be computed at once; a sentence."""


@dataclass(frozen=True)
class Family:
    """Values that are to be computed at once.

    Attributes:
        members: The values, in order.
        axis: Where in the result they lie one after the other.
        stacked: Whether that is an axis of its own, with one place for each; otherwise they have
            that axis themselves and are joined along it.
    """

    members: tuple[ir.Value, ...]
    axis: int
    stacked: bool


class Lifter:
    """Finds out how families are computed at once, without changing anything yet."""

    def __init__(self, facts: Facts, opsets: Opsets, rules: Mapping[str, Rule]) -> None:
        self.opsets = opsets
        self._rules = rules
        self._pieces = Pieces(facts)

    def lift_join(self, join: ir.Node) -> Build:
        """What computes the answer of a ``Concat`` without it. Raises ``NotLiftedError``."""
        members = tuple(value for value in join.inputs if value is not None)
        rank = self.rank(members[0])
        axis = join.attributes.get_int("axis", 0)
        return self.lift(Family(members, axis % rank, stacked=False), [join] * len(members))

    def dims(self, value: ir.Value) -> Dims:
        """The sizes of ``value``. Raises ``NotLiftedError`` where its rank is not known."""
        dims = self._pieces.dims(value)
        if dims is None:
            raise NotLiftedError("the number of axes of a slice is not known")
        return dims

    def rank(self, value: ir.Value) -> int:
        """The number of axes of ``value``. Raises ``NotLiftedError`` where it is not known."""
        return len(self.dims(value))

    def lift(self, family: Family, readers: Sequence[ir.Node], depth: int = 0) -> Build:
        """How to compute ``family``, which only ``readers`` read, at once.

        Raises:
            NotLiftedError: It cannot be.
        """
        if depth > _DEEPEST:
            raise NotLiftedError("the slices go through too many steps")
        found = self._constants(family) or self._slices(family)
        if found is not None:
            return found
        nodes = self._nodes(family, readers)
        rule = self._rules.get(nodes[0].op_type)
        if nodes[0].op_type in {"Slice", "Split"}:
            raise NotLiftedError("its inputs are not slices of one tensor, in their order")
        if rule is None:
            raise NotLiftedError(f"{nodes[0].op_type} is not known to treat slices alike")
        return rule(Step(self, nodes, family, depth))

    def _nodes(self, family: Family, readers: Sequence[ir.Node]) -> list[ir.Node]:
        """The nodes that compute the members, all alike and for ``readers`` alone."""
        nodes: list[ir.Node] = []
        for member, reader in zip(family.members, readers, strict=True):
            node = member.producer()
            if node is None or node.graph is not reader.graph:
                raise NotLiftedError("its inputs are not slices of one tensor")
            if not feeds_only(member, reader):
                raise NotLiftedError("something else reads what is computed of a slice")
            nodes.append(node)
        first = nodes[0]
        if not is_settled(first) or len(first.outputs) > 1:
            raise NotLiftedError(f"{first.op_type} is not known to treat slices alike")
        signature = _signature(first)
        if any(_signature(node) != signature for node in nodes[1:]):
            raise NotLiftedError("its inputs are not computed alike")
        return nodes

    def _constants(self, family: Family) -> Build | None:
        arrays = [constant(member) for member in family.members]
        known = [array for array in arrays if array is not None]
        if len(known) < len(arrays):
            return None
        if len({array.dtype for array in known}) > 1:
            raise NotLiftedError("its inputs are not computed alike")
        total = sum(array.nbytes for array in known)
        if total > _MOST_REPEATED_BYTES and len(set(family.members)) < len(known):
            raise NotLiftedError("a constant would be repeated for each slice")
        try:
            joined = (np.stack if family.stacked else np.concatenate)(known, family.axis)
        except ValueError:
            raise NotLiftedError("the constants of its inputs differ in shape") from None
        return lambda place: place.constant("joined", joined)

    def _slices(self, family: Family) -> Build | None:
        """How to compute slices, in their order, of one tensor: it is that tensor."""
        if not family.stacked:
            piece = self._pieces.joined([self._pieces.of(member) for member in family.members])
            matches = piece is not None and piece.axis == family.axis
            return self.part(piece) if piece is not None and matches else None
        found = [self._pieces.element(member) for member in family.members]
        piece = self._pieces.joined(found)
        if piece is None:
            return None
        whole, rank = self.part(piece), self.rank(piece.source)
        return lambda place: place.transpose(whole(place), moved(rank, piece.axis, family.axis))

    def cut_along(self, value: ir.Value) -> int:
        """The axis along which ``value`` is cut out of another tensor, or -1."""
        piece = self._pieces.of(value)
        return -1 if piece is None else piece.axis

    def part(self, piece: Piece) -> Build:
        """``piece`` cut out of its source, unless it is all of it."""
        if self._pieces.is_whole(piece):
            return lambda _: piece.source
        return lambda place: place.slice(piece.source, piece.axis, piece.start, piece.stop)


def moved(rank: int, source: int, target: int) -> list[int]:
    """The permutation that moves the axis ``source`` to the place ``target``."""
    perm = [axis for axis in range(rank) if axis != source]
    perm.insert(target, source)
    return perm


def _signature(node: ir.Node) -> object:
    """Equal for nodes with the same operator, attributes and number of inputs."""
    attributes = tuple(
        (name, tuple(a.value) if isinstance(a.value, (list, tuple)) else a.value)
        for name, a in sorted(node.attributes.items())
    )
    present = tuple(value is not None for value in node.inputs)
    return node.domain, node.op_type, attributes, present, len(node.outputs)


@dataclass(frozen=True)
class Step:
    """One operator, done to every member of a family.

    Attributes:
        lifter: Goes on with what the operator reads.
        nodes: The nodes, one for each member of the family.
        family: What they answer.
        depth: How many steps there are from here to where the members are joined.
    """

    lifter: Lifter
    nodes: Sequence[ir.Node]
    family: Family
    depth: int

    @property
    def node(self) -> ir.Node:
        """The first of the nodes, which are all alike."""
        return self.nodes[0]

    @property
    def axis(self) -> int:
        """Where the members lie one after the other in the result."""
        return self.family.axis

    @property
    def is_stacked(self) -> bool:
        """Whether they get an axis of their own there."""
        return self.family.stacked

    @property
    def opset(self) -> int:
        """The version of ONNX's operators here."""
        return self.lifter.opsets.of(self.node)

    @property
    def rank(self) -> int:
        """The number of axes that each answer has."""
        return self.lifter.rank(self.family.members[0])

    def inputs(self, index: int) -> tuple[ir.Value, ...]:
        """What the nodes read at ``index``."""
        values = tuple(node.inputs[index] for node in self.nodes)
        return tuple(value for value in values if value is not None)

    def has(self, index: int) -> bool:
        """Whether the nodes read something at ``index``."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def shared(self, index: int) -> ir.Value | None:
        """What all of the nodes read at ``index``, if it is the same for all."""
        first, *others = self.inputs(index)
        return first if all(_is_same(first, other) for other in others) else None

    def same(self, index: int, what: str) -> ir.Value:
        """As :meth:`shared`. Raises ``NotLiftedError`` where ``what`` it is differs."""
        value = self.shared(index)
        if value is None:
            raise NotLiftedError(f"the slices have different {what}")
        return value

    def cut_along(self) -> int:
        """The axis along which the first node's input is cut out of another tensor, or -1."""
        return self.lifter.cut_along(self.inputs(0)[0])

    def needs_one(self, *indices: int) -> None:
        """Raises ``NotLiftedError`` if the nodes read the same at all of ``indices``."""
        if all(self.shared(index) is not None for index in indices):
            raise NotLiftedError("it joins the same several times")

    def go_on(self, index: int, axis: int, *, stacked: bool) -> Build:
        """How to compute at once what the nodes read at ``index``."""
        family = Family(self.inputs(index), axis, stacked)
        ranks = {self.lifter.rank(value) for value in family.members}
        if len(ranks) > 1:
            raise NotLiftedError("the slices differ in their number of axes")
        return self.lifter.lift(family, self.nodes, self.depth + 1)

    def input_rank(self, index: int = 0) -> int:
        """The number of axes of what the first node reads at ``index``."""
        return self.lifter.rank(self.inputs(index)[0])


def _is_same(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values are one, or constants that hold the same."""
    if one is other:
        return True
    a, b = constant_tensor(one), constant_tensor(other)
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(np.array_equal(a.numpy(), b.numpy()))
