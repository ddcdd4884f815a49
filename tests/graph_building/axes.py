"""Choosing axes, and writing them as each version of an operator takes them."""

from __future__ import annotations

from typing import Any

from tests.graph_building.builder import Scope, Tensor


def an_axis(s: Scope, x: Tensor) -> tuple[int, int]:
    """An axis of ``x``, counted from the front, and how it is written."""
    axis = x.rank - 1 - s.choices.below(x.rank)
    negative = s.style.opset >= 11 and s.choices.flag()
    return axis, axis - x.rank if negative else axis


def fixed_axis(s: Scope, x: Tensor, least: int = 1) -> tuple[int, int] | None:
    """An axis of ``x`` with a fixed size of at least ``least``, and the size."""
    found = [
        (axis, size) for axis, size in enumerate(x.shape) if isinstance(size, int) and size >= least
    ]
    return s.choices.of(found[::-1]) if found else None


def axes_of(s: Scope, kind: str, axes: list[int]) -> tuple[list[Tensor], dict[str, Any]]:
    """``axes`` as this version of the operator ``kind`` takes them: inputs, attributes."""
    since = 13 if kind in {"Squeeze", "Unsqueeze", "ReduceSum"} else 18
    return ([s.ints(*axes)], {}) if s.style.opset >= since else ([], {"axes": axes})
