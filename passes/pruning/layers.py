"""Conv, Gemm and MatMul as the matrix products that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from ..base import Array
from ..graph import constant, is_op

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

ROWS = 256
"""Rows that one sample contributes at most: more places of one image hardly tell more."""


class Layer(Protocol):
    """A node that computes ``inputs @ weight + bias``, separately in each of its groups.

    As matrices, its weight is ``[group, input, output]``, its inputs ``[group, row, input]`` and
    its results ``[group, row, output]``.
    """

    @property
    def node(self) -> ir.Node:
        """The node itself; its input 1 is the weight."""
        ...

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of the stored weight that go with inputs and with outputs."""
        ...

    @property
    def result_axis(self) -> int:
        """The axis of the node's result that goes with outputs."""
        ...

    @property
    def depthwise(self) -> bool:
        """Whether each input channel has outputs of its own, so that it goes with them."""
        ...

    def weight(self) -> Array:
        """The weight as matrices."""
        ...

    def stored(self, weight: Array) -> Array:
        """The inverse of :meth:`weight`: matrices in the layout and type that the node takes."""
        ...

    def choose(self, y: Array, rng: np.random.Generator, most: int = ROWS) -> Rows:
        """Some rows, at most ``most`` per sample, of the node's result ``y``."""
        ...

    def inputs(self, x: Array, rows: Rows) -> Array:
        """The chosen rows of the node's input ``x`` as matrices."""
        ...

    def results(self, y: Array, rows: Rows) -> Array:
        """The chosen rows of the node's result ``y`` as matrices."""
        ...


def layer_of(node: ir.Node) -> Layer | str:
    """``node`` as a layer, or why it is none."""
    parameters = [value for value in node.inputs[1:] if value is not None]
    arrays = [array for value in parameters if (array := constant(value)) is not None]
    if not parameters or len(arrays) < len(parameters):
        return "its weight or its bias is not constant"
    if is_op(node, "Conv"):
        return ConvLayer(node)
    if arrays[0].ndim != 2 or (len(arrays) > 1 and arrays[1].ndim > 1 and len(arrays[1]) > 1):
        return "its weight is not a matrix or its bias not a vector"
    return MatrixLayer(node)


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of any rank: the inputs are the patches that the kernel sees (``im2col``).

    A row is a place in the result of one sample.
    """

    node: ir.Node
    axes: tuple[int, int] = (1, 0)
    result_axis: int = 1

    @property
    def _groups(self) -> int:
        return self.node.attributes.get_int("group", 1)

    @property
    def depthwise(self) -> bool:
        """See :class:`Layer`."""
        return self._groups > 1 and _constant(self.node).shape[1] == 1

    def weight(self) -> Array:
        """``[M, C / groups, kernel…]`` as matrices; the kernel runs fastest along the inputs."""
        stored = _float(_constant(self.node))
        return stored.reshape(self._groups, len(stored) // self._groups, -1).swapaxes(1, 2)

    def stored(self, weight: Array) -> Array:
        """Matrices as ``[M, C / groups, kernel…]``."""
        old = _constant(self.node)
        return np.ascontiguousarray(weight.swapaxes(1, 2).reshape(old.shape).astype(old.dtype))

    def choose(self, y: Array, rng: np.random.Generator, most: int = ROWS) -> Rows:
        """Places of the result ``y[N, M, …]``, the same in all samples."""
        return _some(math.prod(y.shape[2:]), most, rng)

    def inputs(self, x: Array, rows: Rows) -> Array:
        """Patches of ``x[N, C, …]``."""
        kernel = _constant(self.node).shape[2:]
        strides, dilations = self._spatial("strides", kernel), self._spatial("dilations", kernel)
        reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        x = np.pad(_float(x), [(0, 0), (0, 0), *self._pads(x.shape[2:], reach, strides)])
        windows = sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))
        steps = [slice(None, None, step) for step in (*strides, *dilations)]
        every = slice(None), slice(None)
        windows = windows[(*every, *steps)]
        places: tuple[Any, ...] = np.unravel_index(rows, windows.shape[2 : x.ndim])
        patches = windows[(*every, *places)]
        samples, channels, count = patches.shape[:3]
        grouped = patches.reshape(samples, self._groups, channels // self._groups, count, -1)
        matrices = grouped.transpose(1, 0, 3, 2, 4)
        return matrices.reshape(self._groups, samples * count, -1)

    def results(self, y: Array, rows: Rows) -> Array:
        """Places of ``y[N, M, …]``."""
        samples, channels = y.shape[:2]
        flat = _float(y).reshape(samples, self._groups, channels // self._groups, -1)[..., rows]
        return flat.transpose(1, 0, 3, 2).reshape(self._groups, samples * len(rows), -1)

    def _spatial(self, name: str, kernel: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.node.attributes.get_ints(name, (1,) * len(kernel)))

    def _pads(
        self, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
    ) -> list[tuple[int, int]]:
        """What is added before and after each spatial axis."""
        rank, auto = len(sizes), self.node.attributes.get_string("auto_pad", "NOTSET")
        if auto == "NOTSET":
            pads = self.node.attributes.get_ints("pads", (0,) * (2 * rank))
            return list(zip(pads[:rank], pads[rank:], strict=True))
        if auto == "VALID":
            return [(0, 0)] * rank
        totals = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, step, span in zip(sizes, strides, reach, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if auto == "SAME_UPPER" else [(after, before) for before, after in halves]


@dataclass(frozen=True)
class MatrixLayer:
    """A Gemm, or a MatMul by one matrix: a row is a row, and there is one group."""

    node: ir.Node
    result_axis: int = -1
    depthwise: bool = False

    @property
    def axes(self) -> tuple[int, int]:
        """See :class:`Layer`."""
        return (1, 0) if self._flag("transB") else (0, 1)

    def weight(self) -> Array:
        """``alpha`` is part of it."""
        stored = _float(_constant(self.node)) * self.node.attributes.get_float("alpha", 1.0)
        return (stored.T if self._flag("transB") else stored)[np.newaxis]

    def stored(self, weight: Array) -> Array:
        """For an ``alpha`` of 1."""
        matrix = weight[0].T if self._flag("transB") else weight[0]
        return np.ascontiguousarray(matrix.astype(_constant(self.node).dtype))

    def choose(self, y: Array, rng: np.random.Generator, most: int = ROWS) -> Rows:
        """Rows of ``y[…, row, output]``, counted through all leading axes."""
        return _some(math.prod(y.shape[:-1]), most * len(y), rng)

    def inputs(self, x: Array, rows: Rows) -> Array:
        """Rows of ``x[…, row, input]``."""
        x = x.T if self._flag("transA") else x
        return _float(x).reshape(1, -1, x.shape[-1])[:, rows]

    def results(self, y: Array, rows: Rows) -> Array:
        """Rows of ``y[…, row, output]``."""
        return _float(y).reshape(1, -1, y.shape[-1])[:, rows]

    def _flag(self, name: str) -> bool:
        return self.node.attributes.get_int(name, 0) != 0


def bias_of(layer: Layer) -> Array:
    """What ``layer`` adds, ``[group, 1, output]``; what an Add after it adds is not part of it."""
    node, weight = layer.node, layer.weight()
    added = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = np.zeros(1) if added is None else added.astype(np.float64)
    if is_op(node, "Gemm"):
        bias = bias * node.attributes.get_float("beta", 1.0)
    groups, _, makes = weight.shape
    return np.broadcast_to(bias.ravel(), (groups * makes,)).reshape(groups, 1, makes)


def _constant(node: ir.Node) -> Array:
    array = constant(node.inputs[1])
    if array is None:
        raise ValueError(f"the weight of {node.name!r} is not constant any more")
    return array


def _float(array: Array) -> Array:
    """``array`` in float32 at least, which sums of products need."""
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _some(count: int, most: int, rng: np.random.Generator) -> Rows:
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
