"""What a model loses by pruning one group alone, measured on its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds
from ..analysis.channels import ChannelGroup
from ..base import Array, Context
from ..graph import Names, add_initializer, constant
from .eliminate import Elimination
from .layers import bias_of
from .least_squares import Moments, Solution
from .readers import Read
from .reconstruct import apply
from .slice import cuts_of


@dataclass(frozen=True)
class Curve:
    """How much of the answers' variance is lost with ``left[i]`` channels of a group left.

    ``left`` falls, ``loss`` does not fall.
    """

    left: Sequence[int]
    loss: Sequence[float]

    def at(self, left: int) -> float:
        """The loss with ``left`` channels, between those that were measured on a straight line."""
        return float(np.interp(-left, [-one for one in self.left], self.loss))


@dataclass
class Examiner:
    """Compares the answers of changed clones of a model with its own, on samples held out."""

    model: ir.Model
    feeds: Sequence[Feeds]
    context: Context

    def __post_init__(self) -> None:
        self._names = [value.name or "" for value in self.model.graph.outputs]
        self._expected = self._answers(self.model)

    def loss(
        self,
        group: ChannelGroup,
        found: Elimination,
        left: int,
        reads: Sequence[Read],
        moments: Sequence[Moments],
    ) -> float:
        """The loss with ``left`` channels of ``group``, its readers fitted."""
        twin = self.model.clone()
        values = ir.convenience.create_value_mapping(twin.graph)
        mask = np.ones(group.size, dtype=np.bool_)
        mask[found.order[: group.size - left]] = False
        for value, axes in cuts_of([group], [mask]).items():
            array = constant(value)
            if array is None:
                continue
            array = array.copy()
            for axis, stays in axes.items():
                np.moveaxis(array, axis, 0)[~stays] = 0
            zeroed = add_initializer(twin.graph, f"{value.name}.zeroed", array)
            values[value.name or ""].replace_all_uses_with(zeroed)
        names = Names(twin)
        nodes = {node.outputs[0].name: node for node in twin.graph}
        for read, own, weight in zip(reads, moments, found.weights[left], strict=True):
            layer = read.layer
            before = layer.weight()
            # The results' means stay: the bias makes up for those of the inputs that are gone.
            bias = bias_of(layer) + own.input @ (before - weight)
            apply(layer, nodes[layer.node.outputs[0].name], Solution(weight, bias, 0, 0), names)
        return self._difference(self._answers(twin))

    def _answers(self, model: ir.Model) -> list[dict[str, Array]]:
        session = self.context.sessions(model)
        return [session.run(feeds) for feeds in self.feeds]

    def _difference(self, found: Sequence[Mapping[str, Array]]) -> float:
        losses = []
        for name in self._names:
            pairs = [(a[name], b[name]) for a, b in zip(self._expected, found, strict=True)]
            if not pairs or pairs[0][0].dtype.kind != "f":
                continue
            missed = sum(float(np.square(b.astype(np.float64) - a).sum()) for a, b in pairs)
            centre = np.mean([a.mean(dtype=np.float64) for a, _ in pairs])
            power = sum(float(np.square(a - centre).sum()) for a, _ in pairs)
            losses.append(missed / power if power > 0 else missed)
        return float(np.mean(losses)) if losses else 0.0
