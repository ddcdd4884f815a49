"""Feed the members of an ensemble from one set of inputs, in the layout that each expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from ...backends.errors import UsageError
from .dims import ConflictError, Dim, Dims, Shape
from .members import Member

Layout: TypeAlias = tuple[int, ...]
"""The ``perm`` of the ``Transpose`` from a shared input to a member's; empty where none is."""


@dataclass(frozen=True)
class Link:
    """Which of the shared inputs a member's input is, and in which layout."""

    own: ir.Value
    shared: int
    layout: Layout


@dataclass(frozen=True)
class Alignment:
    """How the members' inputs and dimensions go together.

    Attributes:
        links: Per member, a link for each of its inputs.
        inputs: What the shared inputs are called, and the member's input that each is like.
        shapes: The shapes of the shared inputs.
        dims: Per member, what each of its symbolic dimensions becomes.
        notes: Sentences for the report: dimensions that had to be fixed.
    """

    links: list[list[Link]]
    inputs: list[tuple[str, ir.Value]]
    shapes: list[ir.Shape | None]
    dims: list[Mapping[str, int | str]]
    notes: list[str]


def align(
    members: Sequence[Member],
    given: Mapping[str, Mapping[str, str]] | None = None,
    *,
    apart: bool = False,
) -> Alignment:
    """Find for each member's input the first member's input that holds the same data.

    As ``given`` by member and input, else by name where both have it, the rest in order. A member
    that wants channels last where the first has them first, or the other way round, gets them so
    where nothing else fits as well. With ``apart``, an input that does not fit becomes one of its
    own, under ``member/input``.

    Raises:
        UsageError: An input does not fit; the message names the member and says why.
    """
    dims = Dims()
    first, given = members[0], given or {}
    _check_given(members, given)
    inputs = [(value.name or "", value) for value in first.inputs]
    shared = [dims.of(value, 0) for value in first.inputs]
    links: list[list[Link]] = []
    notes: list[str] = []
    for index, member in enumerate(members):
        if len(member.inputs) != len(first.inputs) and not apart:
            raise UsageError(
                f"member {member.name!r} takes the inputs {_names(member)}, "
                f"{first.name!r} takes {_names(first)}",
                hint="only models that take the same data can share their inputs; 'none' keeps "
                "apart what does not fit",
            )
        links.append([])
        renamed = given.get(member.name, {})
        own_names = [renamed.get(name, name) for name in _names(member)]
        for place, position in _places(_names(first), own_names):
            own, at = member.inputs[position], place or 0
            try:
                if place is None:
                    raise ConflictError(f"{first.name!r} has no such input")
                before = dims.copy()
                layout = _fit(dims, shared, at, own, index, first.inputs[at])
            except ConflictError as error:
                if not apart:
                    raise _misfit(own, member, first.inputs[at], first, error) from error
                dims = dims if place is None else before
                at, layout = len(shared), ()
                shared.append(dims.of(own, index))
                inputs.append((f"{member.prefix}/{own.name}", own))
                notes.append(
                    f"the input {own.name!r} of {member.name!r} is {inputs[-1][0]!r}, apart from "
                    f"the others: {error}"
                )
            links[index].append(Link(own, at, layout))
    names = dims.names(members)
    shapes = [_shape(dims, shape, names) for shape in shared]
    return Alignment(links, inputs, shapes, list(names), [*notes, *_fixed(members, names)])


def _places(first: Sequence[str], own: Sequence[str]) -> list[tuple[int | None, int]]:
    """Which of the first member's inputs each of ``own`` may be, if any."""
    if len(first) == len(own):
        return list(enumerate(paired(first, own)))
    found: list[tuple[int | None, int]] = [
        (first.index(name), position) for position, name in enumerate(own) if name in first
    ]
    taken = [position for _, position in found]
    free = iter([place for place, name in enumerate(first) if name not in own])
    return found + [(next(free, None), at) for at in range(len(own)) if at not in taken]


def _misfit(
    own: ir.Value, member: Member, other: ir.Value, first: Member, error: ConflictError
) -> UsageError:
    return UsageError(
        f"the input {described(own)} of member {member.name!r} does not fit "
        f"{described(other)} of {first.name!r}: {error}",
        hint="export both for the same input, or put a Transpose, Reshape or Cast "
        f"in front of {member.name!r}",
    )


def _check_given(members: Sequence[Member], given: Mapping[str, Mapping[str, str]]) -> None:
    first = _names(members[0])
    by_name = {member.name: member for member in members}
    for name, pairs in given.items():
        if name not in by_name:
            raise UsageError(
                f"no member is called {name!r}", hint=f"the members are {', '.join(by_name)}"
            )
        own = _names(by_name[name])
        for one, shared in pairs.items():
            for wanted, names, whose in ((one, own, name), (shared, first, members[0].name)):
                if wanted not in names:
                    raise UsageError(
                        f"member {whose!r} has no input {wanted!r}",
                        hint=f"its inputs are {', '.join(names)}",
                    )
        if len(set(pairs.values())) < len(pairs):
            raise UsageError(f"two inputs of member {name!r} are mapped to the same one")


def paired(first: Sequence[str], own: Sequence[str]) -> list[int]:
    """For each name of ``first`` its position in ``own``: the same name's, else in order."""
    by_name = {place: own.index(name) for place, name in enumerate(first) if name in own}
    left = iter([place for place in range(len(own)) if place not in by_name.values()])
    return [by_name[place] if place in by_name else next(left) for place in range(len(first))]


def described(value: ir.Value) -> str:
    """Name, type and shape of a value, for a message."""
    tensor = isinstance(value.type, ir.TensorType) and value.dtype is not None
    kind = value.dtype.name.lower() if tensor and value.dtype else str(value.type)
    return f"{value.name!r} {kind}{value.shape if value.shape is not None else ''}"


def _names(member: Member) -> list[str]:
    return [value.name or "" for value in member.inputs]


def _fit(
    dims: Dims, shared: list[Shape], place: int, own: ir.Value, index: int, first: ir.Value
) -> Layout:
    """Unify the shared shape at ``place`` with that of ``own``; the layout that fits best."""
    if own.type != first.type:
        raise ConflictError("they hold different types")
    known, wanted = shared[place], dims.of(own, index)
    if known is None or wanted is None:
        shared[place] = wanted if known is None else known
        return ()
    fixed = {
        layout: dims.fixed([known[axis] for axis in layout], wanted)
        for layout in _layouts([dims.resolve(dim) for dim in known])
    }
    possible = {layout: count for layout, count in fixed.items() if count is not None}
    if not possible:
        raise ConflictError("their shapes differ")
    best = [layout for layout, count in possible.items() if count == min(possible.values())]
    unchanged = tuple(range(len(known)))
    if unchanged not in best and len(best) > 1:
        raise ConflictError("it could be laid out in more than one way")
    layout = unchanged if unchanged in best else best[0]
    for axis, dim in zip(layout, wanted, strict=True):
        known[axis] = dims.unify(known[axis], dim)
    return () if layout == unchanged else layout


def _layouts(shape: Sequence[Dim]) -> list[Layout]:
    """As it is, and with the channels moved from the second to the last axis or back.

    Channels that are as many as another axis is long could as well be that axis: they stay.
    """
    axes = range(len(shape))
    layouts = [tuple(axes)]
    for channels, rest in ((1, axes[2:]), (len(shape) - 1, axes[1:-1])):
        if len(shape) > 2 and shape[channels] not in [shape[axis] for axis in rest]:
            layouts.append((0, *rest, 1) if channels == 1 else (0, channels, *rest))
    return list(dict.fromkeys(layouts))


def _shape(dims: Dims, shape: Shape, names: Sequence[Mapping[str, int | str]]) -> ir.Shape | None:
    if shape is None:
        return None
    resolved = [dims.resolve(dim) for dim in shape]
    return ir.Shape(names[d[0]][d[1]] if isinstance(d, tuple) else d for d in resolved)


def _fixed(members: Sequence[Member], names: Sequence[Mapping[str, int | str]]) -> list[str]:
    return [
        f"the dimension {name!r} of {member.name!r} is fixed to {size}, as another member needs it"
        for member, known in zip(members, names, strict=True)
        for name, size in known.items()
        if isinstance(size, int)
    ]
