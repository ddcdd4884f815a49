"""Arithmetic that other steps are built of: two tensors broadcast, and constants to go with one."""

from __future__ import annotations

import numpy as np

from tests.graph_building.builder import Dim, Scope, Tensor


def joined(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """The shape of ``a`` and ``b`` broadcast together, if they can be at any size."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    shape: list[Dim] = []
    for one, other in pairs:
        if one != other and 1 not in {one, other}:
            return None
        shape.append(other if one == 1 else one)
    return tuple(shape)


def combined(
    s: Scope, kind: str, a: Tensor, b: Tensor, bound: float | None = None, *, turn: bool = False
) -> Tensor:
    """``kind`` of ``a`` and ``b``, which can be broadcast; ``turn`` puts ``b`` first."""
    shape = joined(a.shape, b.shape)
    assert shape is not None
    if bound is None:
        bound = a.bound * b.bound if kind == "Mul" else a.bound + b.bound
    pair = [b, a] if turn else [a, b]
    return s.emit(kind, pair, [(a.dtype, shape)], bound=bound)[0]


def with_number(
    s: Scope, kind: str, x: Tensor, number: float, bound: float | None = None, *, turn: bool = False
) -> Tensor:
    """``kind`` of ``x`` and a constant of one element, without axes or with one or more."""
    shape = s.choices.of([(), (), (1,), (1,) * x.rank])
    constant = s.constant(np.full(shape, number), x.dtype)
    if bound is None and kind == "Div":
        bound = x.bound / abs(number or 1.0)
    return combined(s, kind, x, constant, bound, turn=turn)


def commuted(s: Scope, kind: str, a: Tensor, b: Tensor, bound: float | None = None) -> Tensor:
    """``kind``, whose order does not matter, of ``a`` and ``b`` in one of both orders."""
    return combined(s, kind, a, b, bound, turn=s.choices.flag())


def kept_aside(s: Scope, x: Tensor) -> None:
    """Now and then something else reads ``x`` as well, which keeps a rewrite from removing it."""
    if s.choices.below(6) == 1:
        s.add("Neg", [x], x)
