"""Which channels go, found by how well the layers that read them do without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds
from ...backends.data import Data
from ..analysis.channels import ChannelGroup
from ..base import Context
from .allocate import Ranked
from .eliminate import Elimination, Reader, eliminate
from .importance import importance
from .least_squares import Moments
from .readers import Gatherer, Read, reads_of
from .replay import BATCH, Replay
from .sensitivity import Curve, Examiner

PENALTY = 0.01
"""On changes of weights while channels are chosen, relative to the variance of the inputs."""

LEVELS = 6
"""At so many numbers of channels left the loss of a group is measured."""

EFFORT = 2e12
"""Multiply-accumulates that all measuring may take: fewer samples where models are large."""

RUNS = 32
"""So many runs measure one loss at most, where samples come one at a time."""

HELD = 4
"""One of so many batches is held out to measure losses on."""


@dataclass(frozen=True)
class Part:
    """The batches of ``data`` that are held out, or the others; all where there are too few."""

    data: Data
    samples: int
    held: bool

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield those of this part."""
        read = 0
        for number, feeds in enumerate(self.data.batches(size)):
            if (number % HELD == HELD - 1) == self.held:
                yield feeds
            read += max((len(array) for array in feeds.values() if array.ndim), default=1)
            if self.samples and read >= self.samples:
                return


def rank(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    steps: Sequence[int],
    least: int,
    context: Context,
    data: Data,
    samples: int,
    macs: int,
    *,
    measured: bool,
) -> list[Ranked]:
    """For each of ``groups`` the order in which its channels go, and what that costs.

    The order is that of backward elimination on the layers that read the group, with the moments
    of the dense model; the cost is what the answers lose by pruning that group alone, its readers
    fitted, on samples held out, or nothing unless ``measured``.

    Raises:
        DataError: There are no samples.
        BackendError: The model does not run on the samples.
    """
    known, held = (Part(data, samples, held) for held in (False, True))
    if next(iter(held.batches(BATCH)), None) is None:
        known = held = Part(data, samples, held=False)
    gatherer = Gatherer(Replay(model, known, 0, context), context.seed)
    runs = max(1, LEVELS * len(groups))
    count = max(1, int(EFFORT / max(macs, 1) / runs / BATCH))
    feeds = list(_some(held, BATCH if count > 1 else 8, min(count, HELD)))
    examiner = Examiner(model, feeds, context) if measured else None
    ranked = []
    reads = reads_of(model.graph, groups)
    for number, (group, own, step) in enumerate(zip(groups, reads, steps, strict=True)):
        context.progress("measure groups", number, len(groups))
        ranked.append(_ranked(group, own, step, least, gatherer, examiner, context))
    context.progress("measure groups", len(groups), len(groups))
    return ranked


def _some(data: Data, size: int, batches: int) -> Iterator[Feeds]:
    """The samples of so many ``batches`` of so many samples, however many come at a time."""
    read = 0
    for feeds in islice(data.batches(size), RUNS):
        yield feeds
        read += max((len(array) for array in feeds.values() if array.ndim), default=1)
        if read >= size * batches:
            return


def _ranked(
    group: ChannelGroup,
    reads: Sequence[Read],
    step: int,
    least: int,
    gatherer: Gatherer,
    examiner: Examiner | None,
    context: Context,
) -> Ranked:
    moments: Sequence[Moments] = [gatherer.moments(read.layer) for read in reads]
    if not all(np.isfinite(own.gram).all() for own in moments):
        reads = moments = ()
    levels = _levels(group.size, step, least)
    if reads:
        readers = [
            Reader.of(own.gram, read.layer.weight(), read.blocks, PENALTY)
            for read, own in zip(reads, moments, strict=True)
        ]
        found = eliminate(readers, group.size, levels)
    else:
        scores = importance(group, "l2", np.random.default_rng(context.seed))
        order = np.argsort(scores, kind="stable")
        found = Elimination(order, np.zeros(group.size), {left: [] for left in levels})
    losses = [
        examiner.loss(group, found, left, reads, moments) if examiner else 0.0 for left in levels
    ]
    rising = np.maximum.accumulate([0.0, *losses]).tolist()
    return Ranked(found.order, Curve([group.size, *levels], rising), step)


def _levels(size: int, step: int, least: int) -> list[int]:
    """Numbers of channels left to measure at, falling, evenly over all that there are."""
    step = max(1, min(step, size // LEVELS))
    counts = list(range(size - (size % step or step), max(least, step) - 1, -step))
    if len(counts) > LEVELS:
        places = np.unique(np.linspace(0, len(counts) - 1, LEVELS).round().astype(int))
        counts = [counts[place] for place in places]
    if least < size and (not counts or counts[-1] > least):
        counts.append(least)
    return counts
