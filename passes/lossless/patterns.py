"""Small trees of operators, and finding them in a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import is_op
from .constants import resolved_constant

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "And", "Or", "Xor", "Equal"})
"""Operators whose inputs a pattern finds in any order."""
_CLOSE = 4
"""A constant is the number looked for if it is off by as many units in its last place at most."""


@dataclass(frozen=True)
class Anything:
    """Any value, called ``name`` in the match; in two places it is one and the same value."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant with one element: the number ``value``, or any, called ``name`` in the match."""

    value: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Const:
    """Any constant, called ``name`` in the match."""

    name: str


@dataclass(frozen=True, eq=False)
class Op:
    """A node of a standard operator.

    ``inputs`` are patterns; those of :data:`COMMUTATIVE` operators are found in any order. Inputs
    that the node has beyond them have to be left out. ``attributes`` are compared with what the
    node holds; one that it lacks does not match. A node has one place in a tree for each time
    that its pattern object stands there: used twice, it is one node that is read twice.
    """

    op_type: str
    inputs: tuple[Pattern, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OneOf:
    """The first of ``choices`` that matches."""

    choices: tuple[Pattern, ...]


Pattern: TypeAlias = Anything | Number | Const | Op | OneOf


def op(op_type: str, *inputs: Pattern | float, **attributes: Any) -> Op:
    """A node pattern, in short; a number stands for itself as a constant."""
    trees = tuple(Number(float(one)) if isinstance(one, int | float) else one for one in inputs)
    return Op(op_type, trees, attributes)


def one_of(*choices: Pattern | float) -> OneOf:
    """Any of ``choices``, the first ones first."""
    return OneOf(
        tuple(Number(float(one)) if isinstance(one, int | float) else one for one in choices)
    )


@dataclass(frozen=True)
class Match:
    """Where a pattern was found.

    Attributes:
        root: The node that the pattern's root is.
        nodes: All nodes of the match by their patterns, the root first.
        values: What was bound to names.
        numbers: The constants with one element that were bound to names.
        rank: The most axes that a constant with one element has: the answer has at least as many.
    """

    root: ir.Node
    nodes: Mapping[Op, ir.Node]
    values: Mapping[str, ir.Value]
    numbers: Mapping[str, float]
    rank: int

    def __getitem__(self, name: str) -> ir.Value:
        return self.values[name]

    def array(self, name: str) -> Array:
        """The constant bound to ``name``. Raises ``KeyError`` if that is bound to none."""
        found = resolved_constant(self.values[name])
        if found is None:
            raise KeyError(name)
        return found

    def read_elsewhere(self) -> ir.Value | None:
        """A value inside of the match that something outside reads, if there is one."""
        inside = set(self.nodes.values())
        for node in inside - {self.root}:
            for value in node.outputs:
                if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                    return value
        return None


def match(pattern: Op, root: ir.Node) -> Match | None:
    """Where ``pattern`` is found with its root at ``root``, if it is.

    Nodes of a match stand in one graph. Values inside of it may be read elsewhere as well: see
    :meth:`Match.read_elsewhere`.
    """
    for bound in _node(pattern, root, _Bound(root)):
        return Match(root, bound.nodes, bound.values, bound.numbers, bound.rank)
    return None


@dataclass(frozen=True)
class _Bound:
    """What a part of a pattern is bound to; never changed, so that a search can go back."""

    root: ir.Node
    nodes: Mapping[Op, ir.Node] = field(default_factory=dict)
    values: Mapping[str, ir.Value] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0


def _value(pattern: Pattern, value: ir.Value | None, bound: _Bound) -> Iterator[_Bound]:
    if value is None:
        return
    if isinstance(pattern, OneOf):
        for choice in pattern.choices:
            yield from _value(choice, value, bound)
    elif isinstance(pattern, Op):
        producer = value.producer()
        if producer is not None and value.index() == 0:
            yield from _node(pattern, producer, bound)
    elif isinstance(pattern, Number):
        yield from _number(pattern, value, bound)
    elif bound.values.get(pattern.name, value) is value and (
        isinstance(pattern, Anything) or resolved_constant(value) is not None
    ):
        yield _with(bound, values={**bound.values, pattern.name: value})


def _node(pattern: Op, node: ir.Node, bound: _Bound) -> Iterator[_Bound]:
    if pattern in bound.nodes:
        if bound.nodes[pattern] is node:
            yield bound
        return
    if not is_op(node, pattern.op_type) or node.graph is not bound.root.graph:
        return
    count = len(pattern.inputs)
    if len(node.inputs) < count or any(value is not None for value in node.inputs[count:]):
        return
    if not all(_has(node, name, value) for name, value in pattern.attributes.items()):
        return
    bound = _with(bound, nodes={**bound.nodes, pattern: node})
    orders = permutations(pattern.inputs) if node.op_type in COMMUTATIVE else (pattern.inputs,)
    for order in orders:
        yield from _inputs(order, node.inputs, bound)


def _inputs(
    patterns: tuple[Pattern, ...], values: Any, bound: _Bound, index: int = 0
) -> Iterator[_Bound]:
    if index == len(patterns):
        yield bound
        return
    for found in _value(patterns[index], values[index], bound):
        yield from _inputs(patterns, values, found, index + 1)


def _number(pattern: Number, value: ir.Value, bound: _Bound) -> Iterator[_Bound]:
    array = resolved_constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiuV":
        return
    number = float(array.reshape(-1)[0])
    if pattern.value is not None and not _is_close(number, pattern.value, array.dtype):
        return
    numbers = {**bound.numbers, pattern.name: number} if pattern.name else bound.numbers
    if pattern.name and bound.numbers.get(pattern.name, number) != number:
        return
    yield _with(bound, numbers=numbers, rank=max(bound.rank, array.ndim))


def _is_close(number: float, wanted: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind in "iu":
        return number == wanted
    eps = float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    return abs(number - wanted) <= _CLOSE * eps * abs(wanted)


def _has(node: ir.Node, name: str, wanted: Any) -> bool:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return False
    held = attribute.value
    return bool(list(held) == list(wanted) if isinstance(held, list | tuple) else held == wanted)


def _with(bound: _Bound, **changes: Any) -> _Bound:
    old = {name: getattr(bound, name) for name in _Bound.__dataclass_fields__}
    return _Bound(**(old | changes))
