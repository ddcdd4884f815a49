"""How the axes of a tensor lie in another one that has the same elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims
from ..base import Array
from .view_forms import Moves, shortest
from .views import Atom, NoViewError, View


@dataclass(frozen=True)
class Label:
    """A tensor as another one, its origin, with axes in another order, merged, or of size 1.

    ``Squeeze`` of axis 2 and ``Transpose`` by ``[2, 0, 1]`` make of an origin ``[N, 8, 1, 5]`` a
    tensor ``[5, N, 8]`` with the groups ``(3,), (0,), (1,)``.

    Attributes:
        groups: For each axis of the tensor the axes of the origin that it consists of, from the
            outer to the inner; none if it has the size 1.
        dims: The sizes of the origin.
    """

    groups: tuple[tuple[int, ...], ...]
    dims: Dims

    @staticmethod
    def plain(dims: Dims) -> Label:
        """A tensor that is its own origin. Raises ``NoViewError`` if it is empty."""
        if 0 in dims:
            raise NoViewError
        groups = tuple(() if size == 1 else (axis,) for axis, size in enumerate(dims))
        return Label(groups, dims)

    @property
    def rank(self) -> int:
        """The number of axes of the tensor."""
        return len(self.groups)

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is its origin."""
        return self == Label.plain(self.dims)

    def joined(self, other: Label) -> Label | None:
        """The label of what is broadcast from both, if their axes lie alike.

        An axis of size 1 lies wherever the same axis of the other one does.
        """
        if len(self.dims) != len(other.dims) or self.rank != other.rank:
            return None
        pairs = list(zip(self.groups, other.groups, strict=True))
        if any(one and two and one != two for one, two in pairs):
            return None
        groups = tuple(one or two for one, two in pairs)
        taken = [place for group in groups for place in group]
        if len(set(taken)) < len(taken):
            return None  # one axis of both origins lies in two places, as in a column minus a row
        dims = list(self.dims)
        for one, two in pairs:
            for place in () if one else two:
                dims[place] = other.dims[place]
        return Label(groups, tuple(dims))

    def then(self, node: ir.Node) -> Label:
        """The label of what ``node``, which moves elements, makes of the tensor.

        Raises ``NoViewError`` where axes of the origin are taken apart.
        """
        view, atoms = self._view()
        view.then(node)
        if any(atom.parts for atom in atoms):
            raise NoViewError
        groups = tuple(tuple(atoms[atom] for atom in axis) for axis in view.axes)
        return replace(self, groups=groups)

    def moves(self) -> Moves | None:
        """The fewest operators that make the tensor of its origin."""
        return shortest(self._view()[0])

    def _view(self) -> tuple[View, dict[Atom, int]]:
        axes = [[] if size == 1 else [Atom(size)] for size in self.dims]
        atoms = {atom: place for place, axis in enumerate(axes) for atom in axis}
        result = [[axes[place][0] for place in group] for group in self.groups]
        return View(axes, result), atoms

    def at(self, axis: int) -> int | None:
        """The axis of the origin that alone makes up ``axis``, if one does."""
        group = self.groups[axis % self.rank]
        return group[0] if len(group) == 1 else None

    def resized(self, dims: Dims | None) -> Label | None:
        """The label of a tensor of the sizes ``dims`` whose axes lie alike.

        An axis that got or lost the size 1 is not followed: it may lie elsewhere.
        """
        if dims is None or len(dims) != self.rank:
            return None
        sizes = list(self.dims)
        for group, size in zip(self.groups, dims, strict=True):
            if (size == 1) != (not group) or size == 0:
                return None
            if len(group) == 1:
                sizes[group[0]] = size
        return replace(self, dims=tuple(sizes))

    def without(self, axes: Sequence[int]) -> tuple[Label, list[int]] | None:
        """The label without ``axes``, and which axes of the origin they were."""
        gone = [self.at(axis) for axis in axes]
        places = [place for place in gone if place is not None]
        if len(places) < len(gone):
            return None
        left = [place for place in range(len(self.dims)) if place not in places]
        groups = tuple(
            tuple(left.index(place) for place in group)
            for axis, group in enumerate(self.groups)
            if axis not in axes
        )
        return Label(groups, tuple(self.dims[place] for place in left)), places

    def constant(self, array: Array) -> Array | None:
        """``array``, that is broadcast with the tensor, as it is broadcast with the origin.

        ``None`` where it repeats the tensor along an axis, or an axis of it cannot be taken apart.
        """
        if array.size == 1 and array.ndim <= self.rank:
            return array.reshape(())
        if array.ndim > self.rank:
            return None
        shape = (1,) * (self.rank - array.ndim) + array.shape
        taken: list[int] = []
        sizes: list[int] = []
        for group, size in zip(self.groups, shape, strict=True):
            if size == 1:
                continue
            inner = [size] if len(group) == 1 else [self.dims[place] for place in group]
            fixed = [one for one in inner if isinstance(one, int)]
            if not group or len(fixed) < len(inner) or np.prod(fixed) != size:
                return None
            taken += group
            sizes += fixed
        order = sorted(range(len(taken)), key=lambda place: taken[place])
        moved = array.reshape(sizes).transpose(order)
        full = [1] * len(self.dims)
        for place, axis in enumerate(order):
            full[taken[axis]] = moved.shape[place]
        first = next(axis for axis, size in enumerate(full) if size != 1)
        return np.ascontiguousarray(moved.reshape(full[first:]))
