"""Ranks and channels of values that meet affine maps."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..graph import constant_tensor, is_op
from .affine import Affine
from .constants import resolve

_SAME: Final = frozenset({"BatchNormalization", "Clip", "Identity", "LeakyRelu", "Relu", "Sigmoid"})
"""Operators that are often near layers and answer in the sizes of their first input."""


class Sizes:
    """Facts of values, and what the weight of the layer that computes a value tells of it.

    The latter is all there is in the bodies of functions, whose inputs have no known sizes.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._model)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type of ``value``, if it is a tensor and known."""
        return self._facts.dtype(value)

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``, if its rank is known."""
        self._facts.follow_to(value)
        return self._facts.dims(value)

    def rank(self, value: ir.Value) -> int | None:
        """The number of axes of ``value``."""
        if (known := _from_weight(value)) is not None and known[0] is not None:
            return known[0]
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def least_rank(self, value: ir.Value) -> int | None:
        """How many axes ``value`` has at least."""
        if (rank := self.rank(value)) is not None:
            return rank
        return 1 if _from_weight(value) else None

    def size(self, value: ir.Value, axis: int) -> int | None:
        """The size of ``axis`` of ``value``, if it is fixed and known; counted from the end too."""
        if (known := _from_weight(value)) is not None:
            rank, where, size = known
            if axis == where or (rank is not None and axis + rank == where):
                return size
        dims = self.dims(value)
        if dims is None or not -len(dims) <= axis < len(dims):
            return None
        size_or_name = dims[axis]
        return size_or_name if isinstance(size_or_name, int) else None

    def axis(self, affine: Affine, value: ir.Value) -> int | None:
        """Where the channels of ``affine`` lie in ``value``, counted from the front."""
        if affine.axis >= 0:
            return affine.axis
        rank = self.rank(value)
        return None if rank is None else affine.axis + rank


def _from_weight(value: ir.Value) -> tuple[int | None, int, int] | None:
    """The rank of ``value``, an axis and its size, as the layer tells that computes ``value``."""
    node = value.producer()
    while is_op(node, *_SAME) and (source := node.inputs[0]) is not None:
        node = source.producer()
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    weight = constant_tensor(resolve(node.inputs[1]))
    if weight is None or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    shape = weight.shape.numpy()
    if node.op_type == "MatMul":
        return (None, -1, shape[1]) if len(shape) == 2 else None
    if node.op_type == "Gemm":
        return 2, 1, shape[0 if node.attributes.get_int("transB", 0) else 1]
    if node.op_type == "ConvTranspose":
        return len(shape), 1, shape[1] * node.attributes.get_int("group", 1)
    return len(shape), 1, shape[0]
