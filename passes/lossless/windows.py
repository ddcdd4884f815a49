"""Sliding windows over zero-padded tensors: how they are summed into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..base import Array
from .affine import Affine

Axes = tuple[int, ...]
"""One number per spatial axis."""


@dataclass(frozen=True)
class Frame:
    """Where a window reads.

    Tap ``t`` of place ``q`` reads ``x[q * stride + t * dilation - begin]``, and zero where ``x``
    has ended. With ``size`` places along an axis of ``x`` there come out
    ``(size - 1 + excess) // stride + 1``.
    """

    kernel: Axes
    strides: Axes
    dilations: Axes
    begins: Axes
    ends: Axes

    @property
    def lasts(self) -> Axes:
        """How far behind its place the last tap reads."""
        axes = zip(self.kernel, self.dilations, self.begins, strict=True)
        return tuple((taps - 1) * step - begin for taps, step, begin in axes)

    @property
    def excess(self) -> Axes:
        """How many places more come out than go in, at stride 1."""
        return tuple(end - last for end, last in zip(self.ends, self.lasts, strict=True))

    def places(self, sizes: Sequence[int]) -> Axes:
        """How many places come out of ``sizes``."""
        axes = zip(sizes, self.excess, self.strides, strict=True)
        return tuple((size - 1 + excess) // stride + 1 for size, excess, stride in axes)

    def joined(self, other: Frame) -> Frame:
        """The smallest frame that reads wherever this one and ``other`` do.

        As many places come out of it as of this one.
        """
        begins = tuple(map(max, self.begins, other.begins))
        lasts = tuple(map(max, self.lasts, other.lasts))
        steps = tuple(
            math.gcd(
                *(frame.dilations[axis] for frame in (self, other) if frame.kernel[axis] > 1),
                self.begins[axis] - other.begins[axis],
            )
            or 1
            for axis in range(len(begins))
        )
        return Frame(
            kernel=tuple((b + c) // s + 1 for b, c, s in zip(begins, lasts, steps, strict=True)),
            strides=self.strides,
            dilations=steps,
            begins=begins,
            ends=tuple(e + c for e, c in zip(self.excess, lasts, strict=True)),
        )

    def taps_of(self, other: Frame) -> tuple[slice, ...]:
        """Where in this frame's kernel the taps of ``other``, which fits into it, stand."""
        found = []
        for axis, taps in enumerate(other.kernel):
            start = (self.begins[axis] - other.begins[axis]) // self.dilations[axis]
            step = max(1, other.dilations[axis] // self.dilations[axis]) if taps > 1 else 1
            found.append(slice(start, start + (taps - 1) * step + 1, step))
        return tuple(found)


@dataclass(frozen=True)
class Window:
    """A linear map of what a window over ``x`` sees, plus a constant per channel.

    Attributes:
        frame: Where it reads.
        weight: ``[outputs, inputs / groups, *kernel]``, in float64.
        bias: One number per output channel, in float64.
        groups: How many groups the channels fall into.
    """

    frame: Frame
    weight: Array
    bias: Array
    groups: int

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return self.groups * int(self.weight.shape[1])

    @property
    def work(self) -> int:
        """The multiplications at each place."""
        return int(self.weight.size)

    def then(self, affine: Affine) -> Window:
        """This window, and a map per output channel on what it answers."""
        scale = affine.scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        bias = self.bias * affine.scale + affine.shift
        return replace(self, weight=self.weight * scale, bias=bias)

    def work_with(self, other: Window) -> int:
        """The multiplications at each place of one window that does what both do."""
        frame, groups = self.frame.joined(other.frame), math.gcd(self.groups, other.groups)
        return self.outputs * (self.inputs // groups) * math.prod(frame.kernel)

    def plus(self, other: Window) -> Window:
        """The sum of both, which read the same and answer with as many places, as one window."""
        frame, groups = self.frame.joined(other.frame), math.gcd(self.groups, other.groups)
        total = np.zeros((self.outputs, self.inputs // groups, *frame.kernel))
        for one in (self, other):
            total[:, :, *frame.taps_of(one.frame)] += one._in_groups(groups)
        return Window(frame, total, self.bias + other.bias, groups)

    def _in_groups(self, groups: int) -> Array:
        """The weight with ``groups``, a divisor of the own ones, and zeros between those."""
        if groups == self.groups:
            return self.weight
        ratio = self.groups // groups
        outputs, inputs, *kernel = self.weight.shape
        blocks = self.weight.reshape(groups, ratio, outputs // self.groups, inputs, *kernel)
        wide = np.zeros((groups, ratio, outputs // self.groups, ratio, inputs, *kernel))
        for block in range(ratio):
            wide[:, block, :, block] = blocks[:, block]
        return wide.reshape(outputs, ratio * inputs, *kernel)


def diagonal(channels: int, frame: Frame, value: float) -> Window:
    """The window that sums ``value`` times all it sees, in every channel by itself."""
    weight = np.full((channels, 1, *frame.kernel), value)
    return Window(frame, weight, np.zeros(channels), channels)


def pointwise(rank: int) -> Frame:
    """The frame of a window that reads its own place only."""
    ones, zeros = (1,) * rank, (0,) * rank
    return Frame(ones, ones, ones, zeros, zeros)
