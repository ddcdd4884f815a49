"""Where the elements of a tensor go in a row of transposes and reshapes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from ..analysis.partial import Dims
from .movement import axes_of, is_settled, numbers, permutation

VIEWS = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""The operators that only put elements in another order or give them another shape."""


class NoViewError(Exception):
    """Where the elements go cannot be told."""


@dataclass(eq=False)
class Atom:
    """A factor of an axis that is never taken apart, or into ``parts`` from the outer to the inner.

    Attributes:
        size: A number above 1, or the name of a size.
    """

    size: int | str
    parts: tuple[Atom, Atom] | None = None

    def leaves(self) -> list[Atom]:
        """The atoms that it is taken apart into."""
        if self.parts is None:
            return [self]
        return [leaf for part in self.parts for leaf in part.leaves()]

    def split(self, outer: int, inner: int) -> tuple[Atom, Atom]:
        """Take it apart into two."""
        self.parts = (Atom(outer), Atom(inner))
        return self.parts


Axis = list[Atom]
"""The factors of an axis, from the outer to the inner; none if it has the size 1."""


def leaves(axis: Axis) -> Axis:
    """The factors of ``axis``, with those that have been taken apart since."""
    return [leaf for atom in axis for leaf in atom.leaves()]


def size_of(axis: Axis) -> int | None:
    """The size of an axis, if it is a number."""
    sizes = [atom.size for atom in axis]
    fixed = [size for size in sizes if isinstance(size, int)]
    return math.prod(fixed) if len(fixed) == len(sizes) else None


@dataclass
class View:
    """A tensor as the elements of another one, in some order and shape.

    A tensor of sizes ``[N, 6, 4]`` that is reshaped to ``[N, 2, 12]`` and then transposed by
    ``[0, 2, 1]`` has the axes ``N``, ``3·4`` and ``2``, in terms of the atoms ``N``, ``2``, ``3``
    and ``4`` of the first one.

    Attributes:
        source: The axes of the other tensor.
        axes: The axes of this one, of the same atoms.
        fails_when_empty: Whether a step fails where a size with a name is 0.
    """

    source: list[Axis]
    axes: list[Axis]
    fails_when_empty: bool = field(default=False)

    @staticmethod
    def of(dims: Dims) -> View:
        """A tensor of the sizes ``dims`` as it is. Raises ``NoViewError`` if it is empty."""
        if 0 in dims:
            raise NoViewError
        axes = [[] if size == 1 else [Atom(size)] for size in dims]
        return View(axes, [list(axis) for axis in axes])

    def settled(self) -> tuple[list[Axis], list[Axis]]:
        """The axes before and after, in terms of atoms that have not been taken apart."""
        return [leaves(axis) for axis in self.source], [leaves(axis) for axis in self.axes]

    def then(self, node: ir.Node) -> None:
        """Go on with what ``node`` does. Raises ``NoViewError`` if that cannot be told."""
        if not is_settled(node):
            raise NoViewError
        rank = len(self.axes)
        if node.op_type == "Transpose":
            perm = permutation(node, rank)
            if perm is None or len(perm) != rank:
                raise NoViewError
            self.axes = [self.axes[axis] for axis in perm]
        elif node.op_type == "Reshape":
            self._reshape(node)
        elif node.op_type == "Flatten":
            first = node.attributes.get_int("axis", 1)
            if first < 0:
                first += rank
            parts = (self.axes[:first], self.axes[first:])
            self.axes = [[atom for axis in part for atom in axis] for part in parts]
        elif node.op_type == "Squeeze":
            self._squeeze(node)
        else:
            self._unsqueeze(node)

    def _squeeze(self, node: ir.Node) -> None:
        axes = axes_of(node, len(self.axes))
        if axes is None or any(self.axes[axis] for axis in axes):
            raise NoViewError  # of what has no known size, it may be 1
        self.axes = [axis for place, axis in enumerate(self.axes) if place not in axes]

    def _unsqueeze(self, node: ir.Node) -> None:
        given = numbers(node, 1, "axes")
        axes = None if given is None else axes_of(node, len(self.axes) + len(given))
        if axes is None or given is None or len(axes) != len(given):
            raise NoViewError
        for axis in axes:
            self.axes.insert(axis, [])

    def _reshape(self, node: ir.Node) -> None:
        target = numbers(node, 1, "shape")
        if target is None or (0 in target and node.attributes.get_int("allowzero", 0) != 0):
            raise NoViewError
        wanted: list[int | Axis] = []
        for place, size in enumerate(target):
            if size == 0 and place >= len(self.axes):
                raise NoViewError
            axis = leaves(self.axes[place]) if size == 0 else []
            fixed = size_of(axis) if size == 0 else size
            wanted.append(axis if fixed is None else fixed)
        if -1 in wanted and any(isinstance(size, list) for size in wanted):
            self.fails_when_empty = True
        left = [leaf for axis in self.axes for leaf in leaves(axis)]
        hole = wanted.index(-1) if -1 in wanted else len(wanted)
        front = [_take(left, size) for size in wanted[:hole]]
        back = [_take(left, size, last=True) for size in wanted[:hole:-1]][::-1]
        if hole == len(wanted) and left:
            raise NoViewError
        middle = [left] if hole < len(wanted) else []
        self.axes = [*front, *middle, *back]


def _take(left: Axis, wanted: int | Axis, *, last: bool = False) -> Axis:
    """Take an axis of a ``wanted`` size, or of the same sizes, away from an end of ``left``."""
    taken: Axis = []
    place = -1 if last else 0
    if isinstance(wanted, list):
        for atom in wanted[::-1] if last else wanted:
            if not left or left[place].size != atom.size:
                raise NoViewError
            taken.append(left.pop(place))
        return taken[::-1] if last else taken
    missing = wanted
    while missing != 1:
        size = left[place].size if left else None
        if not isinstance(size, int) or missing < 1:
            raise NoViewError
        if missing % size == 0:
            taken.append(left.pop(place))
            missing //= size
        elif size % missing == 0:
            atom = left.pop(place)
            if last:
                rest, part = atom.split(size // missing, missing)
                left.append(rest)
            else:
                part, rest = atom.split(missing, size // missing)
                left.insert(0, rest)
            taken.append(part)
            missing = 1
        else:
            raise NoViewError
    return taken[::-1] if last else taken
