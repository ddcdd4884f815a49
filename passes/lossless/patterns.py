"""Small trees of operators, and finding them in a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array
from ..graph import constant_tensor, is_op
from .constants import resolve, resolved_constant

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "And", "Or", "Xor", "Equal"})
"""Operators whose inputs a pattern finds in any order."""
_CLOSE = {2: 1, 4: 4, 8: 4}
"""A constant is the number looked for if it is off by as many units in its last place at most, by
bytes: the short types have few places, and every number that is meant is rounded to them once."""


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
class Computed:
    """To be written only: a constant, made of a match and of what is known of sizes."""

    make: Callable[[Match, Facts], Array]


@dataclass(frozen=True, eq=False)
class Op:
    """A node of a standard operator.

    ``inputs`` are patterns; those of :data:`COMMUTATIVE` operators are found in any order. ``None``
    stands for an input that is left out, as inputs have to be that the node has beyond them.
    ``attributes`` are compared with what the node holds; one that it lacks does not match, and a
    :class:`Number` binds it. A node has one place in a tree for each time that its pattern object
    stands there: used twice, it is one node that is read twice. ``domain`` is for writing a tree
    only: nothing but standard operators is found.
    """

    op_type: str
    inputs: tuple[Pattern | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True, eq=False)
class OneOf:
    """The first of ``choices`` that matches."""

    choices: tuple[Pattern, ...]


Pattern: TypeAlias = Anything | Number | Const | Computed | Op | OneOf


def op(op_type: str, *inputs: Pattern | float | None, **attributes: Any) -> Op:
    """A node pattern, in short; a number stands for itself as a constant."""
    return Op(op_type, tuple(None if one is None else _tree(one) for one in inputs), attributes)


def one_of(*choices: Pattern | float) -> OneOf:
    """Any of ``choices``, the first ones first."""
    return OneOf(tuple(map(_tree, choices)))


def product(*factors: Pattern | float) -> OneOf:
    """The product of two or more ``factors``, in any order and however it is put in brackets."""
    first, rest = factors[0], factors[1:]
    ways = []
    for chosen in range(2 ** len(rest) - 1):
        left = [one for place, one in enumerate(rest) if chosen >> place & 1]
        right = [one for place, one in enumerate(rest) if not chosen >> place & 1]
        sides = [product(*side) if len(side) > 1 else side[0] for side in ([first, *left], right)]
        ways.append(op("Mul", *sides))
    return OneOf(tuple(ways))


def _tree(one: Pattern | float) -> Pattern:
    return Number(float(one)) if isinstance(one, int | float) else one


def needed(pattern: Pattern | None) -> frozenset[str]:
    """The operators without which ``pattern`` is nowhere."""
    if isinstance(pattern, OneOf):
        return frozenset.intersection(*map(needed, pattern.choices))
    if isinstance(pattern, Op):
        return frozenset({pattern.op_type}).union(*map(needed, pattern.inputs))
    return frozenset()


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


def _value(pattern: Pattern | None, value: ir.Value | None, bound: _Bound) -> Iterator[_Bound]:
    if value is None or pattern is None:
        if value is None and pattern is None:
            yield bound
    elif isinstance(pattern, OneOf):
        for choice in pattern.choices:
            yield from _value(choice, value, bound)
    elif isinstance(pattern, Op):
        producer = value.producer()
        if producer is not None and value.index() == 0:
            yield from _node(pattern, producer, bound)
    elif isinstance(pattern, Number):
        yield from _number(pattern, value, bound)
    elif (
        isinstance(pattern, Anything | Const)
        and bound.values.get(pattern.name, value) is value
        and (isinstance(pattern, Anything) or resolved_constant(value) is not None)
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
    numbers = dict(bound.numbers)
    for name, wanted in pattern.attributes.items():
        if not _has(node, name, wanted, numbers):
            return
    bound = _with(bound, nodes={**bound.nodes, pattern: node}, numbers=numbers)
    orders = permutations(pattern.inputs) if node.op_type in COMMUTATIVE else (pattern.inputs,)
    for order in orders:
        yield from _inputs(order, node.inputs, bound)


def _inputs(
    patterns: tuple[Pattern | None, ...], values: Any, bound: _Bound, index: int = 0
) -> Iterator[_Bound]:
    if index == len(patterns):
        yield bound
        return
    for found in _value(patterns[index], values[index], bound):
        yield from _inputs(patterns, values, found, index + 1)


def _number(pattern: Number, value: ir.Value, bound: _Bound) -> Iterator[_Bound]:
    tensor = constant_tensor(resolve(value))
    if tensor is None or tensor.size != 1:
        return
    array = tensor.numpy()
    if array.dtype.kind not in "fiuV":
        return
    number = float(array.reshape(-1)[0])
    if pattern.value is not None and not _is_close(number, pattern.value, array.dtype):
        return
    numbers = {**bound.numbers, pattern.name: number} if pattern.name else bound.numbers
    if pattern.name and bound.numbers.get(pattern.name, number) != number:
        return
    yield _with(bound, numbers=numbers, rank=max(bound.rank, array.ndim))


def _is_close(number: float, wanted: float, dtype: np.dtype[Any]) -> bool:
    if number == wanted or dtype.kind in "iu":
        return number == wanted
    eps = float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    return abs(number - wanted) <= _CLOSE.get(dtype.itemsize, 0) * eps * abs(wanted)


def _has(node: ir.Node, name: str, wanted: Any, numbers: dict[str, float]) -> bool:
    """Whether attribute ``name`` is as wanted; if that is a name, ``numbers`` gets it."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return False
    held = attribute.value
    if isinstance(wanted, Number):
        return numbers.setdefault(wanted.name, float(held)) == float(held)
    if isinstance(wanted, float):
        return bool(np.float32(wanted) == np.float32(held))
    return bool(list(held) == list(wanted) if isinstance(held, list | tuple) else held == wanted)


def _with(bound: _Bound, **changes: Any) -> _Bound:
    old = {name: getattr(bound, name) for name in _Bound.__dataclass_fields__}
    return _Bound(**(old | changes))
