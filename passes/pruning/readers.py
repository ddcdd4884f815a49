"""The layers that read the channels of a group, and the moments of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...backends.errors import DataError
from ..analysis.channel_labels import Labels
from ..analysis.channels import ChannelGroup, Member
from ..graph import is_op
from .layers import Layer, layer_of
from .least_squares import Gathering, Moments
from .replay import Replay

WIDEST = 4608
"""A layer with more inputs has no say: the inverse of twice as many takes a minute."""

ROWS = 48
"""Rows that one sample contributes at most: the choice needs fewer than the fit."""

ROOM = 512 << 20
"""Bytes of moments that are kept for layers that read several groups."""


@dataclass(frozen=True)
class Read:
    """A layer that reads a group; ``blocks[channel]`` are the inputs that belong to a channel."""

    layer: Layer
    blocks: Labels


def reads_of(graph: ir.Graph, groups: Sequence[ChannelGroup]) -> list[list[Read]]:
    """For each group the layers of ``graph`` whose inputs it is, if moments of them can be had."""
    layers: dict[ir.Value | None, Layer] = {}
    for node in graph:
        candidate = layer_of(node) if is_op(node, "Conv", "Gemm", "MatMul") else ""
        if not isinstance(candidate, str) and not candidate.depthwise:
            layers[node.inputs[1]] = candidate
    found: list[list[Read]] = []
    for group in groups:
        own = []
        for member in group.members:
            layer = layers.get(member.value)
            if layer is None or member.axis != layer.axes[0] % 2:
                continue
            if layer.weight().shape[1] <= WIDEST:
                blocks = _blocks(member, group.size, layer)
                if blocks is not None:
                    own.append(Read(layer, blocks))
        found.append(own)
    return found


def _blocks(member: Member, channels: int, layer: Layer) -> Labels | None:
    """The inputs of the layer for each channel, if they are equally many for all."""
    counts = np.bincount(member.channels, minlength=channels)
    if (counts != counts[0]).any():
        return None
    order = np.argsort(member.channels, kind="stable")
    places = member.positions[order].reshape(channels, -1, 1)
    kernel = layer.weight().shape[1] // member.size
    blocks: Labels = (places * kernel + np.arange(kernel)).reshape(channels, -1)
    return blocks


@dataclass
class Gatherer:
    """Gathers the moments of what layers read, streamed over all samples."""

    replay: Replay
    seed: int
    _kept: dict[ir.Node, Moments] = field(default_factory=dict)

    def moments(self, layer: Layer) -> Moments:
        """Those of the inputs of ``layer``; of its results, the first one alone.

        Raises:
            DataError: There are no samples.
            BackendError: The model does not run on the samples.
        """
        node, x = layer.node, layer.node.inputs[0]
        if node not in self._kept and x is not None:
            rng = np.random.default_rng(self.seed)
            gathering = Gathering()
            batches = (self.replay.batches(value) for value in (x, node.outputs[0]))
            for before, after in zip(*batches, strict=True):
                rows = layer.choose(after, rng, ROWS)
                results = layer.results(after, rows)[..., :1]
                gathering.add(layer.inputs(before, rows), results)
            total = gathering.moments()
            if total is None:
                raise DataError("there is no sample to judge channels on")
            self._keep(node, total)
        return self._kept[node]

    def _keep(self, node: ir.Node, moments: Moments) -> None:
        self._kept[node] = moments
        while len(self._kept) > 1 and sum(one.gram.nbytes for one in self._kept.values()) > ROOM:
            del self._kept[next(iter(self._kept))]
