"""Per-channel affine maps, and what they make of the weights of linear layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..base import Array


@dataclass(frozen=True)
class Affine:
    """``y = x * scale + shift`` with one factor and one summand per channel, in float64.

    Attributes:
        scale: One factor per channel, or one for all.
        shift: As many summands.
        axis: The axis that holds the channels, counted from the end where negative; where there
            is one factor for all it says nothing.
        spread: Whether each channel has become several in a row, all of one number, as behind a
            ``Flatten`` of sizes that are not known.
    """

    scale: Array
    shift: Array
    axis: int = 1
    spread: bool = False

    @property
    def uniform(self) -> bool:
        """Whether it does the same everywhere, whatever the axes are."""
        return self.scale.size == 1 and not self.spread

    @property
    def scales(self) -> bool:
        """Whether a factor differs from 1."""
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        """Whether a summand differs from 0."""
        return bool(self.shift.any())

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    def then(self, other: Affine) -> Affine:
        """This map first, ``other``, along the same axis, on its answer."""
        axis = other.axis if self.uniform else self.axis
        scale = self.scale * other.scale
        return Affine(scale, self.shift * other.scale + other.shift, axis)

    def along(self, axis: int) -> Affine:
        """The same map where the channels have come to lie along ``axis``."""
        return replace(self, axis=axis)

    def scaling(self) -> Affine:
        """What this map multiplies by."""
        return replace(self, shift=np.zeros_like(self.shift))

    def shifting(self) -> Affine:
        """What this map adds, after it has multiplied."""
        return replace(self, scale=np.ones_like(self.scale))

    def for_channels(self, channels: int) -> Affine | None:
        """One factor and one summand for each of ``channels``, if there can be."""
        size = self.scale.size
        if size == channels:
            return replace(self, spread=False)
        if size == 1:
            full = np.ones(channels)
            return Affine(self.scale * full, self.shift * full, self.axis)
        if self.spread and channels % size == 0:
            times = channels // size
            return Affine(self.scale.repeat(times), self.shift.repeat(times))
        return None


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
        weight = self.weight
        if affine.scales:
            weight = self._scaled(affine.scale.reshape(self.groups, -1, 1, 1))
        return weight, self.bias * affine.scale + affine.shift

    def preceded_by(self, affine: Affine) -> tuple[Array, Array]:
        """The weight and bias, in float64, of one layer that does ``affine`` to its input first.

        Right where every output sees the whole kernel, or where ``affine`` shifts nothing.
        """
        weight, shift = self.weight, self.bias
        if affine.shifts:
            canonical = self._canonical(self.weight.astype(np.float64))
            inputs = affine.shift.reshape(self.groups, -1)
            shift = shift + self.alpha * np.einsum("goit,gi->go", canonical, inputs).reshape(-1)
        if affine.scales:
            weight = self._scaled(affine.scale.reshape(self.groups, 1, -1, 1))
        return weight, shift

    def rounded(self, weight: Array, bias: Array) -> tuple[Array, Array] | str:
        """``weight`` and ``bias`` in the layer's own type, or why they do not fit it.

        The layer's own weight comes back as it is.
        """
        dtype = self.weight.dtype
        if weight is self.weight:
            with np.errstate(over="ignore"):
                fitting = np.asarray(bias, dtype)
            if not np.isfinite(fitting).all():
                return f"the folded bias is too large for {dtype.name}"
            return weight, fitting
        view = self._canonical(weight)
        peak = np.maximum(view.max(axis=(2, 3), initial=0), -view.min(axis=(2, 3), initial=0))
        with np.errstate(over="ignore"):
            extremes = peak.astype(dtype), np.asarray(bias, dtype)
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
