"""Constant targets for ``Reshape`` and ``Expand`` where the sizes need not be computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..analysis.partial import Dims, Item
from ..base import Array


def reshape_target(target: Sequence[Item], source: Dims | None, *, allow_zero: bool) -> Array | str:
    """A constant that means the same as ``target`` to ``Reshape``, or why there is none.

    One unknown size may be left to ``Reshape`` as -1 if all others are known and not zero: then
    it is the only one that fits. A size that the same axis of ``source`` has may be copied by 0.
    """
    sizes = list(target)
    unknown = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    if len(unknown) == 1 and -1 not in sizes and _fixed(sizes, source, allow_zero):
        sizes[unknown[0]] = -1
        unknown = []
    for axis in unknown:
        if allow_zero or source is None or axis >= len(source) or source[axis] != sizes[axis]:
            return "more than one size of its target is not known"
        sizes[axis] = 0
    return np.array(sizes, np.int64)


def _fixed(sizes: Sequence[Item], source: Dims | None, allow_zero: bool) -> bool:
    """Whether the known ones of ``sizes`` are sizes other than zero for certain."""
    for axis, size in enumerate(sizes):
        if size == 0:
            copied = source[axis] if source is not None and axis < len(source) else None
            if allow_zero or not isinstance(copied, int) or copied == 0:
                return False
    return True


def expand_target(target: Sequence[Item], source: Dims | None) -> Array | str:
    """A constant that means the same as ``target`` to ``Expand``, or why there is none.

    A size that ``source`` has on that axis already may be 1, which leaves it as it is.
    """
    sizes = list(target)
    for place, size in enumerate(sizes):
        if isinstance(size, int):
            continue
        axis = place - len(sizes) + (len(source) if source is not None else 0)
        if source is None or axis < 0 or size is None or source[axis] != size:
            return "a size of its target is not known"
        sizes[place] = 1
    return np.array(sizes, np.int64)
