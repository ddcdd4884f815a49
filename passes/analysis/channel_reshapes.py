"""Which runs of axes a Reshape merges or splits, and how to ask for its result again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..graph import constant

if TYPE_CHECKING:
    from .channel_labels import Labels
    from .channels import Dims


def blocks(before: Dims, after: Dims) -> Iterator[tuple[list[int], list[int]]]:
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


def resolved(before: Dims, after: Dims) -> Dims:
    """``after`` with its one unknown size, if it has just one, worked out from ``before``.

    A size is unknown if it has no name, or one that ``before`` lacks.
    """
    unknown = [a for a, dim in enumerate(after) if not isinstance(dim, int) and dim not in before]
    unknown += [a for a, dim in enumerate(after) if dim is None and a not in unknown]
    if len(unknown) != 1:
        return after
    (axis,) = unknown
    rest = after[:axis] + after[axis + 1 :]
    numbers = [math.prod(d for d in dims if isinstance(d, int)) for dims in (before, rest)]
    names = [Counter(str(d) for d in dims if not isinstance(d, int)) for dims in (before, rest)]
    left = names[0] - names[1]
    if not numbers[1] or numbers[0] % numbers[1] or names[1] - names[0]:
        return after
    size: int | str = numbers[0] // numbers[1]
    if left.total() == 1 and size == 1 and (name := next(iter(left))) != "None":
        size = name
    elif left:
        return after
    return (*after[:axis], size, *after[axis + 1 :])


def regrouped(
    labels: Labels, at: int, old: Sequence[int | str | None], new: Sequence[int | str | None]
) -> tuple[int, Labels] | None:
    """Where the labels along axis ``at`` of a run of sizes ``old`` lie once it is ``new``.

    The place of the axis in ``new`` and the labels along it; ``None`` if a size is not known or
    if they come to lie along more than one axis.
    """
    before = [size for size in old if isinstance(size, int)]
    after = [size for size in new if isinstance(size, int)]
    if len(before) < len(old) or len(after) < len(new):
        return None
    along = labels.reshape([-1 if axis == at else 1 for axis in range(len(before))])
    grid = np.broadcast_to(along, before).reshape(after)
    for place, size in enumerate(after):
        table = np.moveaxis(grid, place, 0).reshape(size, -1)
        if (table == table[:, :1]).all():
            return place, table[:, 0]
    return None


def reshape_request(node: ir.Node, before: Dims, after: Dims) -> tuple[int, ...] | None:
    """What the Reshape ``node`` may be given as shape: sizes, 0 to copy one, -1 to infer one.

    ``None`` if its result has more unknown sizes than can be asked for.
    """
    asked = constant(node.inputs[1])
    if asked is not None:
        request = [int(size) for size in asked]
    else:
        request = [dim if isinstance(dim, int) else -1 for dim in after]
        if request.count(-1) > 1:
            copied = [
                dim is not None and dim == old for dim, old in zip(after, before, strict=False)
            ]
            for axis, same in enumerate(copied):
                request[axis] = 0 if request[axis] == -1 and same else request[axis]
    if request.count(-1) > 1 or (0 in request and node.attributes.get_int("allowzero", 0) != 0):
        return None
    return tuple(request)


def _products(dims: Dims) -> list[tuple[int, Counter[str]]]:
    """The product of the first, of the first two, … sizes: a number and how often each name."""
    products = [(1, Counter[str]())]
    for axis, dim in enumerate(dims):
        number, names = products[-1]
        if isinstance(dim, int):
            products.append((number * dim, names))
        else:
            products.append((number, names + Counter([dim or f"?{axis}"])))
    return products[1:]
