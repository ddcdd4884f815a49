"""Symbolic dimensions of several models: which are the same, and what each is called in the end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from .members import Member, unused

Key: TypeAlias = tuple[int, str]
"""A symbolic dimension: the index of its member, and its name there."""

Dim: TypeAlias = int | Key | None
"""A dimension: its size, its key, or nothing known."""

Shape: TypeAlias = list[Dim] | None

_WORD = re.compile(r"[^\W\d][\w.]*(?!\s*\()(?![\w.])")
_OPERATOR = re.compile(r"[-+*/(),]")


class ConflictError(Exception):
    """Two sizes that would have to be one; the message names them."""


class Dims:
    """Which dimensions are equal (union-find), where a size counts as the dimension it fixes."""

    def __init__(self) -> None:
        self._known: set[Key] = set()
        self._same: dict[Key, int | Key] = {}

    def copy(self) -> Dims:
        """What is known now, to come back to."""
        other = Dims()
        other._known, other._same = set(self._known), dict(self._same)
        return other

    def of(self, value: ir.Value, index: int) -> Shape:
        """The shape of a value of the member at ``index``."""
        if value.shape is None:
            return None
        shape: list[Dim] = [
            dim if isinstance(dim, int) else None if dim.value is None else (index, dim.value)
            for dim in value.shape
        ]
        self._known.update(dim for dim in shape if isinstance(dim, tuple))
        return shape

    def resolve(self, dim: Dim) -> Dim:
        """What ``dim`` is known to be: a size, or the key that stands for all its equals."""
        while isinstance(dim, tuple) and dim in self._same:
            dim = self._same[dim]
        return dim

    def unify(self, one: Dim, other: Dim) -> Dim:
        """Take two dimensions for the same one.

        Raises:
            ConflictError: They have different sizes.
        """
        one, other = self.resolve(one), self.resolve(other)
        if one is None or other is None or one == other:
            return other if one is None else one
        if isinstance(one, tuple) and isinstance(other, tuple):
            one, other = min(one, other), max(one, other)
        elif isinstance(one, tuple):
            one, other = other, one
        if isinstance(other, int):
            raise ConflictError(f"{one} is not {other}")
        self._same[other] = one
        return one

    def fixed(self, shape: Shape, other: Shape) -> int | None:
        """How many dimensions become fixed where both shapes are one; ``None`` if they cannot be.

        Each dimension by itself: that two of one name get different sizes shows in ``unify``.
        """
        if shape is None or other is None:
            return 0
        if len(shape) != len(other):
            return None
        pairs = [(self.resolve(a), self.resolve(b)) for a, b in zip(shape, other, strict=True)]
        if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
            return None
        return sum(isinstance(a, int) != isinstance(b, int) for a, b in pairs)

    def names(self, members: Sequence[Member]) -> list[dict[str, int | str]]:
        """Per member, what each of its dimensions is called, or its size if it got fixed.

        Dimensions keep their name in the first member. Those that only later members have get the
        member's name in front, so that equal names never mean different things.
        """
        known: list[dict[str, int | str]] = []
        taken: set[str] = set()
        for index, member in enumerate(members):
            own: dict[str, int | str] = {}
            known.append(own)
            for name in sorted(self._names_in(member, index)):
                match self.resolve((index, name)):
                    case int(size):
                        own[name] = size
                    case (earlier, root) if (earlier, root) != (index, name):
                        own[name] = known[earlier][root]
                    case _:
                        wanted = f"{member.ident}.{name}" if index else name
                        own[name] = unused(wanted, taken, separator="_")
        return known

    def _names_in(self, member: Member, index: int) -> set[str]:
        names: set[str] = set()
        for value in member.values():
            for dim in value.shape or ():
                text = dim if isinstance(dim, int) else dim.value
                if not isinstance(text, str):
                    continue
                if (index, text) in self._known or not _OPERATOR.search(text):
                    names.add(text)
                else:
                    names.update(_WORD.findall(text))
        return names


def renamed(shape: ir.Shape | None, known: Mapping[str, int | str]) -> ir.Shape | None:
    """``shape`` with its dimensions under their new names, also in expressions (``2*n + 1``)."""
    if shape is None:
        return None
    denotations = [shape.get_denotation(axis) for axis in range(len(shape))]
    return ir.Shape([_renamed(dim, known) for dim in shape], denotations=denotations)


def _renamed(dim: int | ir.SymbolicDim, known: Mapping[str, int | str]) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in known:
        return known[dim.value]
    text = _WORD.sub(lambda word: str(known.get(word[0], word[0])), dim.value)
    return text if _WORD.search(text) else None
