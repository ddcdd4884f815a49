"""Writing what is left of an affine map as nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import graph_of, is_op
from .affine import Affine
from .affine_sizes import Sizes
from .affine_steps import Chain
from .layers import LayerWriter

_BLOCKED: Final = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "GlobalAveragePool",
        "GlobalMaxPool", "HardSigmoid", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "Relu",
        "Resize", "Sigmoid", "Tanh",
    }
)  # fmt: skip
"""Operators that ONNX Runtime runs in the layout that its convolutions have on a CPU."""

_NEAR: Final = 8


@dataclass(frozen=True)
class MapWriter:
    """Writes affine maps in front of nodes, in as few nodes as there can be."""

    writer: LayerWriter
    sizes: Sizes

    def dtype(self, chain: Chain) -> ir.DataType | None:
        """The type that ``chain`` computes in."""
        return self.sizes.dtype(chain.source) or self.sizes.dtype(chain.output)

    def can_write(self, chain: Chain, affine: Affine) -> bool:
        """Whether ``affine`` can be written as ``Mul`` and ``Add`` in the type of ``chain``."""
        dtype = self.dtype(chain)
        placed = affine.uniform or affine.axis < 0 or self.sizes.rank(chain.source) is not None
        return dtype is not None and placed and fits(affine, dtype)

    def write(self, chain: Chain, source: ir.Value, affine: Affine) -> ir.Value:
        """Put ``affine`` of ``source`` as ``Mul`` and ``Add`` in front of ``chain``."""
        dtype = self.dtype(chain) or ir.DataType.FLOAT
        if affine.scales:
            factors = self._constant(chain, affine, affine.scale, "scale", dtype)
            source = self._node(chain, "Mul", [source, factors], dtype)
        if affine.shifts:
            summands = self._constant(chain, affine, affine.shift, "shift", dtype)
            source = self._node(chain, "Add", [source, summands], dtype)
        return source

    def is_image(self, chain: Chain) -> bool:
        """Whether one normalization does all of ``chain`` better.

        ONNX Runtime computes a ``BatchNormalization`` among convolutions in the layout that they
        have, which other arithmetic with constants makes it leave; elsewhere it is as fast as one
        ``Add``.
        """
        affine, dtype = chain.affine, self.dtype(chain)
        channels = self.sizes.size(chain.source, 1)
        if dtype != ir.DataType.FLOAT or channels is None or affine.spread:
            return False
        if self.sizes.rank(chain.source) != 4 or not fits(affine, dtype):
            return False
        if not (affine.uniform or affine.axis in {1, -3}):
            return False
        sides = _comes_from_convolution(chain), _goes_to_convolution(chain)
        if len(chain.nodes) == 1:
            return all(sides)
        return any(sides) or any(is_op(node, "BatchNormalization") for node in chain.nodes)

    def write_norm(self, chain: Chain) -> ir.Value:
        """Put what ``chain`` does as one ``BatchNormalization`` in front of it."""
        channels = self.sizes.size(chain.source, 1) or 0
        affine = chain.affine.for_channels(channels) or chain.affine
        ones, zeros = np.ones(channels), np.zeros(channels)
        roles = {"scale": affine.scale, "shift": affine.shift, "mean": zeros, "variance": ones}
        inputs = [chain.source]
        for role, numbers in roles.items():
            array = numbers.astype(np.float32)
            inputs.append(self._add(chain, f"{chain.output.name}.{role}", array))
        epsilon = {"epsilon": ir.AttrFloat32("epsilon", 0.0)}
        return self._node(chain, "BatchNormalization", inputs, ir.DataType.FLOAT, epsilon)

    def _constant(
        self, chain: Chain, affine: Affine, numbers: Array, role: str, dtype: ir.DataType
    ) -> ir.Value:
        """``numbers`` as a constant that meets the right axis of what ``chain`` reads."""
        shape: tuple[int, ...] = ()
        if not affine.uniform:
            axis, rank = affine.axis, self.sizes.rank(chain.source)
            after = -axis - 1 if rank is None else rank - axis % rank - 1
            shape = (-1, *[1] * after)
        array = numbers.reshape(shape).astype(dtype.numpy())
        return self._add(chain, f"{chain.output.name}.{role}", array)

    def _add(self, chain: Chain, wanted: str, array: Array) -> ir.Value:
        first = chain.nodes[0]
        return self.writer.constants.add(graph_of(first), wanted, array, first)

    def _node(
        self,
        chain: Chain,
        kind: str,
        inputs: list[ir.Value],
        dtype: ir.DataType,
        attributes: dict[str, ir.Attr] | None = None,
    ) -> ir.Value:
        name = self.writer.constants.names.fresh(f"{chain.output.name}.{kind.lower()}")
        output = ir.Value(name=name, type=ir.TensorType(dtype))
        node = ir.Node("", kind, inputs, attributes=(attributes or {}).values(), outputs=[output])
        graph_of(chain.nodes[0]).insert_before(chain.nodes[0], node)
        return output


def fits(affine: Affine, dtype: ir.DataType) -> bool:
    """Whether numbers of type ``dtype`` hold ``affine`` with full precision."""
    limits = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    factors, summands = np.abs(affine.scale), np.abs(affine.shift)
    small = (factors > 0) & (factors < float(limits.smallest_normal))
    largest = max(factors.max(initial=0), summands.max(initial=0))
    return bool(largest <= float(limits.max)) and not small.any()


def _goes_to_convolution(chain: Chain) -> bool:
    return any(is_op(node, "Conv") for node in chain.output.consumers())


def _comes_from_convolution(chain: Chain) -> bool:
    """Whether a convolution is near before ``chain``, with nothing between that it cannot be in."""
    waiting, seen = [chain.source.producer()], 0
    while waiting and seen < _NEAR:
        node, seen = waiting.pop(), seen + 1
        if is_op(node, "Conv"):
            return True
        if node is not None and is_op(node, *_BLOCKED):
            waiting.extend(value.producer() for value in node.inputs if value is not None)
    return False
