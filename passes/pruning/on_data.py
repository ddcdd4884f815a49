"""How much each channel of a group matters, judged by samples as well as weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...backends.data import Data
from ..analysis.channels import ChannelGroup
from ..base import Array, Context
from .importance import Criterion, Scores, importance, norms, relative
from .least_squares import Moments
from .readers import Gatherer, Read, reads_of
from .replay import Replay

THRESHOLDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Soft thresholds to choose from, in units of the root mean square of each weight."""

PART = 2
"""A threshold is judged by what layers lose with one of so many channels gone."""


def scores_on_data(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    criterion: Criterion,
    context: Context,
    data: Data,
    samples: int,
) -> list[Scores]:
    """The importance of channels of ``groups``, by ``activation`` or ``soft-threshold``.

    ``activation`` is the mean square of a channel where layers read it. ``soft-threshold`` is the
    norm of what soft thresholding leaves of a channel's weights (Donoho 1995): channels of many
    tiny weights count for nothing. The threshold is that of a grid by whose order the layers that
    read the group lose least, unfitted, with half of the channels gone. Groups that no layer reads
    are judged by ``l2``.

    Raises:
        DataError: There are no samples.
        BackendError: The model does not run on the samples.
    """
    gatherer = Gatherer(Replay(model, data, samples, context), context.seed)
    rng = np.random.default_rng(context.seed)
    found = []
    for number, (group, reads) in enumerate(
        zip(groups, reads_of(model.graph, groups), strict=True)
    ):
        context.progress("measure groups", number, len(groups))
        known = [(read, gatherer.moments(read.layer)) for read in reads]
        known = [(read, own) for read, own in known if np.isfinite(own.gram).all()]
        if not known:
            found.append(importance(group, "l2", rng))
        elif criterion == "activation":
            found.append(relative(np.sum([_power(read, own) for read, own in known], axis=0)))
        else:
            found.append(_thresholded(group, known))
    return found


def _power(read: Read, moments: Moments) -> Scores:
    """The mean square of what each channel brings, in units of the mean over all channels."""
    variance = np.diagonal(moments.gram, axis1=1, axis2=2) / max(moments.rows, 1)
    squares: Array = (variance + np.square(moments.input[:, 0])).mean(axis=0)
    return relative(squares[read.blocks].sum(axis=1))


def _thresholded(group: ChannelGroup, known: Sequence[tuple[Read, Moments]]) -> Scores:
    candidates = [norms(group, 2, threshold) for threshold in THRESHOLDS]

    def lost(scores: Scores) -> float:
        gone = np.argsort(scores, kind="stable")[: group.size // PART]
        return sum(_lost(read, moments, gone) for read, moments in known)

    return relative(np.sqrt(min(candidates, key=lost)))


def _lost(read: Read, moments: Moments, gone: Array) -> float:
    """The part of the variance of a layer's results that goes with the channels ``gone``."""
    weight = read.layer.weight().astype(np.float64)
    inputs = read.blocks[gone].ravel()
    change = weight[:, inputs]
    gram = moments.gram[:, inputs[:, np.newaxis], inputs]
    power = float((weight * (moments.gram @ weight)).sum())
    return float((change * (gram @ change)).sum()) / (power or 1.0)
