"""What a ``Slice`` takes along one axis, and what two of them do together."""

from __future__ import annotations

from dataclasses import dataclass

from .movement import FURTHEST


@dataclass(frozen=True)
class Cut:
    """One axis of a ``Slice``, as it is written: negative numbers count from the end."""

    axis: int
    start: int
    stop: int
    step: int

    @property
    def to_end(self) -> int | None:
        """How many elements it leaves at the end of the axis, if that is what it says."""
        if self.stop >= FURTHEST:
            return 0
        return -self.stop if self.stop < 0 else None


def after(first: Cut, second: Cut) -> Cut | None:
    """Two cuts along one axis as one, if they are one whatever the length of the axis."""
    if min(first.step, second.step) < 1:
        return None
    start: int | None
    stop: int | None
    if min(first.start, first.stop, second.start, second.stop) >= 0:
        start = first.start + second.start * first.step
        stop = max(start, min(first.stop, first.start + second.stop * first.step))
    elif first.step == second.step == 1:
        start, stop = _start(first, second), _stop(first, second)
    else:
        return None
    if start is None or stop is None:
        return None
    step = first.step * second.step
    return Cut(first.axis, _bounded(start), _bounded(stop), step)


def _start(first: Cut, second: Cut) -> int | None:
    if second.start == 0:
        return first.start
    if second.start > 0:
        return None if first.start < 0 else first.start + second.start
    if first.to_end is None or first.start > 0:
        return None
    start = second.start - first.to_end
    return start if first.start == 0 else max(first.start, start)


def _stop(first: Cut, second: Cut) -> int | None:
    if second.to_end == 0:
        return first.stop
    if second.to_end is not None:
        return None if first.to_end is None else -first.to_end - second.to_end
    return first.start + second.stop if first.start >= 0 and first.to_end == 0 else None


def _bounded(number: int) -> int:
    return max(-FURTHEST, min(number, FURTHEST))
