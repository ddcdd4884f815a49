"""Which runs of axes a Reshape merges or splits, and where labels lie once it has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from .channel_labels import Labels


@dataclass(frozen=True)
class Product:
    """The size of an axis that others were merged into: ``number`` times sizes with ``names``."""

    number: int
    names: tuple[str, ...]


Size: TypeAlias = int | str | Product | None


def blocks(before: Sequence[Size], after: Sequence[Size]) -> Iterator[tuple[list[int], list[int]]]:
    """The finest split of both shapes into runs of axes that hold the same elements.

    ``(N, 64, 5, 5)`` to ``(N, 1600)`` gives ``[0], [0]`` and ``[1, 2, 3], [1]``. Names count as
    prime numbers.
    """
    old, new = _products(before), _products(after)
    start = stop = 0
    for axis, product in enumerate(old[:-1]):
        if product in new[stop:-1]:
            end = new.index(product, stop) + 1
            yield list(range(start, axis + 1)), list(range(stop, end))
            start, stop = axis + 1, end
    yield list(range(start, len(before))), list(range(stop, len(after)))


def resolved(before: Sequence[Size], after: Sequence[Size]) -> tuple[Size, ...]:
    """``after`` with its one unknown size, if it has just one, worked out from ``before``.

    A size is unknown if it has no name, or one that ``before`` lacks.
    """
    known = {name for dim in before for name in _names(dim)}
    unknown = [
        axis
        for axis, dim in enumerate(after)
        if dim is None or (isinstance(dim, str) and dim not in known)
    ]
    if len(unknown) != 1:
        return tuple(after)
    (axis,) = unknown
    rest = [*after[:axis], *after[axis + 1 :]]
    numbers = [math.prod(map(_number, dims)) for dims in (before, rest)]
    names = [Counter(name for dim in dims for name in _names(dim)) for dims in (before, rest)]
    left = names[0] - names[1]
    if not numbers[1] or numbers[0] % numbers[1] or names[1] - names[0] or None in (*before, *rest):
        return tuple(after)
    number, remaining = numbers[0] // numbers[1], tuple(sorted(left.elements()))
    size: Size = Product(number, remaining)
    if not remaining:
        size = number
    elif len(remaining) == 1 and number == 1:
        size = remaining[0]
    return (*after[:axis], size, *after[axis + 1 :])


def regrouped(
    labels: Labels, at: int, old: Sequence[Size], new: Sequence[Size]
) -> tuple[int, Labels] | None:
    """Where the labels along axis ``at`` of a run of sizes ``old`` lie once it is ``new``.

    The place of the axis in ``new`` and the labels along it; ``None`` if that cannot be told or
    if they come to lie along more than one axis. Where sizes in front are not fixed, labels
    repeat: heads merged with a batch lie along it over and over.
    """
    tables = _tables(labels, at, old, new)
    for place, table in () if tables is None else tables:
        if (table == table[:, :1]).all():
            return place, table[:, 0]
    return None


def units(
    labels: Labels, at: int, old: Sequence[Size], new: Sequence[Size]
) -> list[tuple[int, Labels]]:
    """As :func:`regrouped`, for labels that would have to go together along one axis.

    For each axis of ``new`` with more than one index: its place, and for each of its indices the
    labels that would go together.
    """
    tables = _tables(labels, at, old, new)
    return [(place, table) for place, table in tables or () if len(table) > 1]


def _tables(
    labels: Labels, at: int, old: Sequence[Size], new: Sequence[Size]
) -> list[tuple[int, Labels]] | None:
    """For each axis at the end of ``new`` the labels at each of its indices, ``[index, …]``."""
    before, total = _tail(old, {at: len(labels)})
    if at not in before:
        return None
    after = _matching(new, total)
    if after is None or math.prod(after.values()) != total:
        return None
    along = labels.reshape([-1 if axis == at else 1 for axis in before])
    grid = np.broadcast_to(along, tuple(before.values())).reshape(tuple(after.values()))
    return [
        (axis, np.moveaxis(grid, place, 0).reshape(grid.shape[place], -1))
        for place, axis in enumerate(after)
    ]


def _tail(sizes: Sequence[Size], periods: dict[int, int]) -> tuple[dict[int, int], int]:
    """The last axes of fixed size, in order, one of ``periods`` in front of them, their product."""
    found: dict[int, int] = {}
    for axis in reversed(range(len(sizes))):
        size = sizes[axis]
        if isinstance(size, int):
            found[axis] = size
            continue
        if axis in periods:
            found[axis] = periods[axis]
        break
    ordered = dict(sorted(found.items()))
    return ordered, math.prod(ordered.values())


def _matching(sizes: Sequence[Size], total: int) -> dict[int, int] | None:
    """The last axes of ``sizes`` that hold ``total`` elements; the first one may hold them often.

    It may do so where nothing stands in front of it, because then it is a whole multiple.
    """
    found, _ = _tail(sizes, {})
    while found and math.prod(found.values()) > total:
        del found[min(found)]
    have = math.prod(found.values())
    front = min(found, default=len(sizes)) - 1
    if have != total and have and total % have == 0 and front == 0:
        if isinstance(sizes[0], int):
            return None
        found = {0: total // have, **found}
    return found


def _number(size: Size) -> int:
    return size if isinstance(size, int) else size.number if isinstance(size, Product) else 1


def _names(size: Size) -> tuple[str, ...]:
    if isinstance(size, Product):
        return size.names
    return (size,) if isinstance(size, str) else ()


def _products(dims: Sequence[Size]) -> list[tuple[int, Counter[str]]]:
    """The product of the first, of the first two, … sizes: a number and how often each name."""
    products = [(1, Counter[str]())]
    for axis, dim in enumerate(dims):
        number, names = products[-1]
        more = _names(dim) if dim is not None else (f"?{axis}",)
        products.append((number * _number(dim), names + Counter(more)))
    return products[1:]
