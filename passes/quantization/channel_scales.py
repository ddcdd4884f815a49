"""Factors per channel between one layer and the next: where they go in, and how much that changes.

All factors are powers of two, by which floats are multiplied exactly as long as nothing leaves
their range. So moving them changes no answer at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, constant, graph_of, is_op

LIMIT = 20
"""Factors lie between ``2**-20`` and ``2**20``."""


@dataclass(frozen=True)
class Side:
    """One constant of a node, and which of its axes runs along the channels.

    ``view`` gives the constant as ``[channel, …]``; ``scaled`` multiplies it by a factor for each.
    """

    node: ir.Node
    index: int
    view: Callable[[Array], Array]
    scaled: Callable[[Array, Array], Array]

    @property
    def array(self) -> Array:
        """The constant as it is stored now."""
        array = constant(self.node.inputs[self.index])
        if array is None:
            raise ValueError(f"input {self.index} of {self.node.name!r} is not constant any more")
        return array

    def largest(self) -> Array:
        """Per channel, the largest magnitude."""
        rows = self.view(self.array)
        return np.asarray(np.abs(rows).reshape(len(rows), -1).max(axis=1), np.float64)

    def times(self, factors: Array) -> Array | None:
        """The constant times ``factors``; ``None`` where a float cannot hold that exactly."""
        array = self.array
        with np.errstate(over="ignore", under="ignore"):
            new = self.scaled(array, factors.astype(array.dtype))
            back = self.scaled(new, (1 / factors).astype(array.dtype))
        return new if np.isfinite(new).all() and np.array_equal(back, array) else None

    def store(self, array: Array, names: Names) -> None:
        """Let the node read ``array`` instead; other readers and outputs keep the old constant."""
        value = self.node.inputs[self.index]
        if (
            value is not None
            and value.is_initializer()
            and not value.is_graph_output()
            and len(value.uses()) == 1
        ):
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
            return
        name = names.fresh(f"{value.name if value is not None else 'constant'}.scaled")
        new = add_initializer(graph_of(self.node), name, np.ascontiguousarray(array))
        self.node.replace_input_with(self.index, new)


def along(axis: int) -> tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]:
    """How to view and scale a constant whose channels run along ``axis``."""

    def scaled(array: Array, factors: Array) -> Array:
        shape = [1] * array.ndim
        shape[axis] = -1
        return np.asarray(array * factors.reshape(shape))

    return lambda array: np.moveaxis(array, axis, 0), scaled


def _grouped(groups: int) -> tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]:
    """The same for the input channels of a ``Conv`` weight ``[M, C / groups, …]``."""

    def split(array: Array) -> Array:
        return array.reshape(groups, len(array) // groups, *array.shape[1:])

    def view(array: Array) -> Array:
        parts = np.moveaxis(split(array), 2, 1)
        return parts.reshape(-1, *parts.shape[2:])

    def scaled(array: Array, factors: Array) -> Array:
        parts = split(array)
        shape = (groups, 1, parts.shape[2], *(1,) * (parts.ndim - 3))
        return np.asarray((parts * factors.reshape(shape)).reshape(array.shape))

    return view, scaled


def reads(node: ir.Node) -> Side | None:
    """The weight of ``node`` by the channels that it reads, if it is a constant float one."""
    if not _weighted(node):
        return None
    if is_op(node, "Conv"):
        return Side(node, 1, *_grouped(node.attributes.get_int("group", 1)))
    if node.attributes.get_int("transA", 0):
        return None
    return Side(node, 1, *along(1 if node.attributes.get_int("transB", 0) else 0))


def makes(node: ir.Node) -> list[Side] | None:
    """The weight and the bias of ``node`` by the channels that it makes, if both are constant."""
    if not _weighted(node):
        return None
    weight = constant(node.inputs[1])
    if is_op(node, "Conv"):
        axis, found = 0, [Side(node, 1, *along(0))]
    else:
        axis = 0 if node.attributes.get_int("transB", 0) else 1
        found = [Side(node, 1, *along(axis))]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant(node.inputs[2])
        if bias is None or weight is None or bias.size != weight.shape[axis]:
            return None
        if bias.shape[-1:] != (bias.size,):  # one for each row of a Gemm
            return None
        found.append(Side(node, 2, *along(bias.ndim - 1)))
    return found


def _weighted(node: ir.Node) -> bool:
    if not is_op(node, "Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype.kind != "f" or weight.size == 0:
        return False
    return weight.ndim >= 3 if is_op(node, "Conv") else weight.ndim == 2


def powers_of_two(wanted: Array) -> Array:
    """The power of two nearest to each of ``wanted``; 1 for what is no positive number."""
    good = np.isfinite(wanted) & (wanted > 0)
    exponents = np.rint(np.log2(np.where(good, wanted, 1.0)))
    return np.asarray(np.exp2(np.clip(exponents, -LIMIT, LIMIT)))


def move(sources: list[Side], readers: list[Side], factors: Array, names: Names) -> bool:
    """Divide ``sources`` and multiply ``readers`` by ``factors``; say whether that was exact.

    Where it would not be, nothing is changed.
    """
    new = [(side, side.times(1 / factors)) for side in sources]
    new += [(side, side.times(_repeated(factors, side))) for side in readers]
    if any(array is None for _, array in new):
        return False
    for side, array in new:
        if array is not None:
            side.store(array, names)
    return True


def _repeated(factors: Array, side: Side) -> Array:
    """For a reader behind a ``Flatten``, which has several inputs for each channel."""
    return np.repeat(factors, len(side.view(side.array)) // factors.size)
