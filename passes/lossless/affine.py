"""Per-channel affine maps, and what they make of the weights of linear layers."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..base import Array


@dataclass(frozen=True)
class Affine:
    """``y[n, c, ...] = x[n, c, ...] * scale[c] + shift[c]``, both in float64."""

    scale: Array
    shift: Array

    def then(self, other: Affine) -> Affine:
        """This map first, ``other`` on its answer."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)

    def repeated(self, times: int) -> Affine:
        """The same map once the ``times`` positions of each channel are channels themselves."""
        return Affine(self.scale.repeat(times), self.shift.repeat(times))


@dataclass(frozen=True)
class Layer:
    """``y = alpha * W x + bias``: a linear operator whose parameters are constant.

    Attributes:
        node: A ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``.
        add: The ``Add`` of a constant per output channel after it, if that is part of the layer.
        weight: The weight as it is stored.
        bias: All that is added, in float64; its last axis holds the output channels.
        groups: How many groups the channels fall into.
        swapped: Whether the weight is stored with the input channels before the output channels.
        alpha: The factor on the product.
    """

    node: ir.Node
    add: ir.Node | None
    weight: Array
    bias: Array
    groups: int
    swapped: bool
    alpha: float

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return self.groups * int(self._canonical(self.weight).shape[1])

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return self.groups * int(self._canonical(self.weight).shape[2])

    def followed_by(self, affine: Affine) -> tuple[Array, Array]:
        """The weight and bias, in float64, of one layer that does ``affine`` as well."""
        scale = affine.scale.reshape(self.groups, -1, 1, 1)
        return self._scaled(scale), self.bias * affine.scale + affine.shift

    def preceded_by(self, affine: Affine) -> tuple[Array, Array]:
        """The weight and bias, in float64, of one layer that does ``affine`` to its input first.

        Right where every output sees the whole kernel, or where ``affine`` shifts nothing.
        """
        scale, shift = affine.scale.reshape(self.groups, 1, -1, 1), self.bias
        if affine.shift.any():
            weight = self._canonical(self.weight.astype(np.float64))
            inputs = affine.shift.reshape(self.groups, -1)
            shift = shift + self.alpha * np.einsum("goit,gi->go", weight, inputs).reshape(-1)
        return self._scaled(scale), shift

    def rounded(self, weight: Array, bias: Array) -> tuple[Array, Array] | str:
        """``weight`` and ``bias`` in the layer's own type, or why they do not fit it."""
        dtype = self.weight.dtype
        view = self._canonical(weight)
        peak = np.maximum(view.max(axis=(2, 3), initial=0), -view.min(axis=(2, 3), initial=0))
        with np.errstate(over="ignore"):
            extremes = peak.astype(dtype), bias.astype(dtype)
        if not all(np.isfinite(part).all() for part in extremes):
            return f"the folded weights are too large for {dtype.name}"
        smallest = float(ml_dtypes.finfo(dtype).smallest_normal)  # type: ignore[no-untyped-call]
        if ((peak > 0) & (peak < smallest)).any():
            return f"the folded weights are too small for {dtype.name}"
        return weight.astype(dtype), extremes[1]

    def _scaled(self, scale: Array) -> Array:
        return self._stored(np.multiply(self._canonical(self.weight), scale, dtype=np.float64))

    def _canonical(self, stored: Array) -> Array:
        """``stored``, laid out as the weight, as ``[groups, outputs, inputs, taps]``."""
        first, second, *kernel = stored.shape
        taps = int(np.prod(kernel))
        if self.swapped:
            view = stored.reshape(self.groups, first // self.groups, second, taps)
            return view.swapaxes(1, 2)
        return stored.reshape(self.groups, first // self.groups, second, taps)

    def _stored(self, canonical: Array) -> Array:
        view = canonical.swapaxes(1, 2) if self.swapped else canonical
        return view.reshape(self.weight.shape)
