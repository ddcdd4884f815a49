"""The arithmetic of 8-bit affine quantization: ``real = scale * (quantized - zero_point)``.

Activations are asymmetric and by default unsigned, weights symmetric and by default signed
(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference").
Scales are float32, as ``QuantizeLinear`` wants them; everything before them is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import Array

QMAX = 255
"""The largest quantized activation."""

WMAX = 127
"""The largest quantized weight; -128 is not used, so that the range is symmetric."""

INT16_MAX = 32767
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""The least float32 with full precision."""

ACCUMULATOR_LIMIT = 2**30
"""A bias stays below this, which leaves the other half of the int32 accumulator to the products."""


@dataclass(frozen=True)
class Range:
    """The interval that a tensor's values were seen in; ``low > high`` says that none were."""

    low: float = np.inf
    high: float = -np.inf

    def joined(self, low: float, high: float) -> Range:
        """The smallest range that holds this one and ``[low, high]``."""
        return Range(min(self.low, low), max(self.high, high))

    @property
    def dead(self) -> bool:
        """Whether nothing but zero was seen: there is no scale to take from that."""
        return self.low > self.high or self.low == self.high == 0


@dataclass(frozen=True)
class Affine:
    """Scale and zero point of an 8-bit tensor; the zero point's type is that of the tensor."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


SHIFT = 128
"""How far unsigned 8-bit integers lie above signed ones."""


def affine(seen: Range, *, signed: bool = False, powers: bool = False) -> Affine:
    """The finest 8-bit grid that covers ``seen`` and holds zero exactly.

    Zero has to be on the grid because padding and ``Relu`` produce it. With ``powers`` the scale is
    a power of two.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    scale = np.float32(max((high - low) / QMAX, SMALLEST_SCALE))
    scale = np.float32(power_of_two(scale)) if powers else scale
    zero_point = np.clip(np.rint(-low / np.float64(scale)), 0, QMAX)
    return Affine(scale, np.int8(zero_point - SHIFT) if signed else np.uint8(zero_point))


def power_of_two(scale: Array | np.float32) -> Array:
    """The least power of two that is no smaller than ``scale``, in float32."""
    return np.exp2(np.ceil(np.log2(np.asarray(scale, np.float64)))).astype(np.float32)


def code(value: float, grid: Affine) -> int:
    """What ``value`` becomes on ``grid`` as an unsigned integer; half a step goes up."""
    zero = int(grid.zero_point) + (SHIFT if isinstance(grid.zero_point, np.int8) else 0)
    # Kernels divide in float32, where a little less than half may be half.
    return int(np.clip(np.floor(value / np.float64(grid.scale) + 0.501) + zero, 0, QMAX))


@dataclass(frozen=True)
class Weight:
    """A quantized weight; ``scale`` has one entry per channel along ``axis``, or is a scalar."""

    values: Array
    scale: Array
    axis: int | None


def quantize_weight(
    weight: Array,
    axis: int | None,
    *,
    bias: Array | None = None,
    input_scale: np.float32,
    powers: bool = False,
) -> Weight:
    """Quantize ``weight`` symmetrically to int8, per channel along ``axis``.

    The scale of a channel is the smallest with which

    - its largest weight fits, ``|w| <= 127``;
    - its bias, which is stored with the scale ``input_scale * scale``, fits the accumulator,
      and that scale does not vanish.

    A channel that asks for nothing, being all zero, gets the scale 1.

    Args:
        weight: Any shape.
        axis: The axis of the output channels, or ``None`` for one scale in all.
        bias: Per channel, the float bias.
        input_scale: The scale of the activation that the weight is multiplied with.
        powers: Whether scales are powers of two, no smaller than they would be else.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    needed = np.abs(weight).max(axis=others).astype(np.float64) / WMAX
    if bias is not None:
        smallest = np.abs(bias.astype(np.float64)) / (ACCUMULATOR_LIMIT * np.float64(input_scale))
        needed = np.maximum(needed, smallest if axis is not None else smallest.max())
    scale = np.where(needed > 0, needed, 1.0)
    # The product of both scales has to stay a normal number: a bias is divided by it.
    floor = max(SMALLEST_SCALE, float(np.finfo(np.float32).tiny) * 2 / float(input_scale))
    scale = np.maximum(scale, floor).astype(np.float32)
    scale = power_of_two(scale) if powers else scale

    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    steps = weight.astype(np.float64) / scale.reshape(shape).astype(np.float64)
    values = np.clip(np.rint(steps), -WMAX, WMAX).astype(np.int8)
    return Weight(values, scale, axis)


def quantize_bias(bias: Array, input_scale: np.float32, weight_scale: Array) -> tuple[Array, Array]:
    """``bias`` in int32, and its scale, which is exactly ``input_scale * weight_scale``.

    ONNX Runtime adds the integers to the accumulator and never looks at the scale
    (``QLinearConv`` and ``QGemm``), so any other scale would be a wrong answer.
    """
    scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
    scale = np.broadcast_to(scale, bias.shape)
    values = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return values.astype(np.int32), np.ascontiguousarray(scale)


def shifted(integers: Array) -> Array:
    """Signed 8-bit ``integers`` as unsigned ones."""
    return (integers.astype(np.int16) + SHIFT).astype(np.uint8)
