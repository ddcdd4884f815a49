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
    def spans(self) -> Axes:
        """How far the last tap reads behind the first one."""
        axes = zip(self.kernel, self.dilations, strict=True)
        return tuple((taps - 1) * step for taps, step in axes)

    @property
    def lasts(self) -> Axes:
        """How far behind its place the last tap reads."""
        return tuple(span - begin for span, begin in zip(self.spans, self.begins, strict=True))

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

    def after(self, first: Frame) -> Frame:
        """Where this frame, over what comes out of ``first``, reads in what that reads."""
        axes = range(len(self.kernel))
        steps = tuple(
            math.gcd(
                self.dilations[axis] * first.strides[axis] if self.kernel[axis] > 1 else 0,
                first.dilations[axis] if first.kernel[axis] > 1 else 0,
            )
            or 1
            for axis in axes
        )
        spans = [self.spans[axis] * first.strides[axis] + first.spans[axis] for axis in axes]

        def both(mine: Axes, inner: Axes) -> Axes:
            return tuple(mine[axis] * first.strides[axis] + inner[axis] for axis in axes)

        return Frame(
            kernel=tuple(span // step + 1 for span, step in zip(spans, steps, strict=True)),
            strides=both(self.strides, (0,) * len(self.strides)),
            dilations=steps,
            begins=both(self.begins, first.begins),
            ends=both(self.ends, first.ends),
        )

    def taps_of(self, other: Frame) -> tuple[slice, ...]:
        """Where in this frame's kernel the taps of ``other``, which fits into it, stand."""
        found = []
        for axis, taps in enumerate(other.kernel):
            start = (self.begins[axis] - other.begins[axis]) // self.dilations[axis]
            step = max(1, other.dilations[axis] // self.dilations[axis]) if taps > 1 else 1
            found.append(slice(start, start + (taps - 1) * step + 1, step))
        return tuple(found)

    def landing(self, tap: Axes, first: Frame, whole: Frame) -> tuple[slice, ...]:
        """The taps of ``whole``, this frame after ``first``, that ``tap`` of this frame reads."""
        found = []
        for axis, count in enumerate(first.kernel):
            grid = whole.dilations[axis]
            start = tap[axis] * self.dilations[axis] * first.strides[axis] // grid
            step = max(1, first.dilations[axis] // grid) if count > 1 else 1
            found.append(slice(start, start + (count - 1) * step + 1, step))
        return tuple(found)


@dataclass(frozen=True)
class Window:
    """A linear map of what a window over ``x`` sees, plus a constant per channel.

    Attributes:
        frame: Where it reads.
        weight: ``[outputs, inputs / groups, *kernel]``, of any type; sums are in float64.
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
        return replace(self, weight=self.weight.astype(np.float64) * scale, bias=bias)

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

    def work_after(self, first: Window) -> int:
        """The multiplications at each place of one window that does both, ``first`` first."""
        frame, groups = self.frame.after(first.frame), math.gcd(self.groups, first.groups)
        return self.outputs * (first.inputs // groups) * math.prod(frame.kernel)

    def after(self, first: Window) -> Window:
        """This window over what ``first`` answers, as one over what ``first`` reads.

        Right where this window sees nothing past the borders of that answer, or where the formula
        of ``first`` gives zero there.
        """
        frame, groups = self.frame.after(first.frame), math.gcd(self.groups, first.groups)
        inner = first._in_groups(groups).reshape(groups, first.outputs // groups, -1)
        outer = self._in_groups(groups).reshape(
            groups, self.outputs // groups, first.outputs // groups, *self.frame.kernel
        )
        total = np.zeros((self.outputs, first.inputs // groups, *frame.kernel))
        for tap in np.ndindex(*self.frame.kernel):
            part = outer[(..., *tap)] @ inner
            place = self.frame.landing(tap, first.frame, frame)
            total[:, :, *place] += part.reshape(*total.shape[:2], *first.frame.kernel)
        sums = outer.reshape(*outer.shape[:3], -1).sum(axis=3)
        bias = self.bias + (sums @ first.bias.reshape(groups, -1, 1)).reshape(-1)
        return Window(frame, total, bias, groups)

    def _in_groups(self, groups: int) -> Array:
        """The weight in float64 with fewer ``groups``, and zeros between the own ones."""
        weight = self.weight.astype(np.float64, copy=False)
        if groups == self.groups:
            return weight
        ratio = self.groups // groups
        outputs, inputs, *kernel = weight.shape
        blocks = weight.reshape(groups, ratio, outputs // self.groups, inputs, *kernel)
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
