"""Samples that the user brings, streamed: never all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .base import Feeds


class Data(Protocol):
    """Feeds that can be read more than once, always in the same order.

    Samples are counted along the first axis of every array. ``batches(n)`` yields feeds of at
    most ``n`` samples each; a source whose samples differ in shape yields them one at a time, and
    never stacks different shapes.
    """

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield all samples, at most ``size`` at a time."""
        ...
