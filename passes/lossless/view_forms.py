"""The fewest transposes and reshapes that make one tensor of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from .movement import Place
from .views import Atom, Axis, View, size_of


@dataclass(frozen=True)
class Move:
    """One operator: ``kind`` and its permutation, its axes or its target."""

    kind: str
    numbers: tuple[int, ...]

    def write(self, place: Place, x: ir.Value) -> ir.Value:
        """Do it to ``x``."""
        if self.kind == "Transpose":
            return place.transpose(x, self.numbers)
        if self.kind == "Reshape":
            return place.reshape(x, self.numbers)
        return place.with_axes(self.kind, x, self.numbers)


Moves: TypeAlias = tuple[Move, ...]


def shortest(view: View) -> Moves | None:
    """The fewest operators that do what ``view`` does, if they can be written with constants."""
    source, result = view.settled()
    found = [moves for moves in _candidates(source, result, view) if moves is not None]
    return min(found, key=_cost) if found else None


def _cost(moves: Moves) -> tuple[int, int]:
    """How many operators there are, and over how many axes those go that copy."""
    return len(moves), sum(len(move.numbers) for move in moves if move.kind == "Transpose")


def _candidates(source: list[Axis], result: list[Axis], view: View) -> Iterator[Moves | None]:
    order = [atom for axis in source for atom in axis]
    if order == [atom for axis in result for atom in axis]:
        yield _reshaped(source, result, view)
        return
    yield _turned(source, result, result, view)
    places = {atom: place for place, atom in enumerate(order)}
    for grouped in (result, _runs(result, places)):
        before = _in_order(grouped, places)
        if before is None:
            continue
        first = _reshaped(source, before, view)
        rest = _turned(before, grouped, result, view)
        yield None if first is None or rest is None else (*first, *rest)


def _turned(source: list[Axis], order: list[Axis], result: list[Axis], view: View) -> Moves | None:
    """A transpose to the order of ``order``, and what makes ``result`` of that."""
    found = _transposed(source, order)
    rest = None if found is None else _reshaped(found[1], result, view)
    return None if found is None or rest is None else (found[0], *rest)


def _runs(result: list[Axis], places: dict[Atom, int]) -> list[Axis]:
    """The atoms of ``result`` in the longest runs that also lie together at the start."""
    runs: list[Axis] = []
    for atom in (atom for axis in result for atom in axis):
        if runs and places[runs[-1][-1]] + 1 == places[atom]:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    return runs


def _in_order(axes: list[Axis], places: dict[Atom, int]) -> list[Axis] | None:
    """``axes`` in the order in which their atoms lie at the start, if each lies together."""
    for axis in axes:
        start = places[axis[0]] if axis else 0
        if [places[atom] for atom in axis] != list(range(start, start + len(axis))):
            return None
    ranked, last = [], -1
    for axis in axes:
        last = places[axis[0]] if axis else last
        ranked.append((last, axis))
    return [axis for _, axis in sorted(ranked, key=lambda pair: pair[0])]


def _transposed(source: list[Axis], result: list[Axis]) -> tuple[Move, list[Axis]] | None:
    """The transpose that brings whole axes of ``source`` into the order of ``result``.

    Axes of size 1 go where ``result`` has some, as far as there are any, the others to the end.
    """
    unused = [place for place, axis in enumerate(source) if not axis]
    starts = {axis[0]: place for place, axis in enumerate(source) if axis}
    perm: list[int] = []
    for axis in result:
        if not axis and unused:
            perm.append(unused.pop(0))
        left = list(axis)
        while left:
            place = starts.get(left[0])
            if place is None or source[place] != left[: len(source[place])]:
                return None
            perm.append(place)
            del left[: len(source[place])]
    perm += unused
    return Move("Transpose", tuple(perm)), [source[place] for place in perm]


def _reshaped(source: list[Axis], result: list[Axis], view: View) -> Moves | None:
    """What turns ``source`` into ``result``, whose atoms are in the same order."""
    if source == result:
        return ()
    kept, others = [axis for axis in source if axis], [axis for axis in result if axis]
    if kept == others:
        if (axes := _inserted(result, source)) is not None:
            return (Move("Squeeze", axes),)
        if (axes := _inserted(source, result)) is not None:
            return (Move("Unsqueeze", axes),)
    target = _target(source, result, view)
    if target is not None:
        return (Move("Reshape", target),)
    if kept == others:
        ones = [tuple(p for p, axis in enumerate(axes) if not axis) for axes in (source, result)]
        return (Move("Squeeze", ones[0]), Move("Unsqueeze", ones[1]))
    return None


def _inserted(fewer: list[Axis], more: list[Axis]) -> tuple[int, ...] | None:
    """Which axes of size 1 ``more`` has besides those of ``fewer``, if it differs in no more."""
    places: list[int] = []
    for place, axis in enumerate(more):
        at = place - len(places)
        if at < len(fewer) and fewer[at] == axis:
            continue
        if axis:
            return None
        places.append(place)
    return tuple(places) if len(more) - len(places) == len(fewer) else None


def _target(source: Sequence[Axis], result: Sequence[Axis], view: View) -> tuple[int, ...] | None:
    """A constant target for ``Reshape``.

    A size with a name is copied from the same place by 0, or left over as -1. Both at once fail
    where such a size is 0, so that is only for what failed then before.
    """
    target: list[int] = []
    for place, axis in enumerate(result):
        fixed = size_of(axis)
        if fixed is not None:
            target.append(fixed)
        elif place < len(source) and [a.size for a in source[place]] == [a.size for a in axis]:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1 or (-1 in target and 0 in target and not view.fails_when_empty):
        return None
    return tuple(target)
