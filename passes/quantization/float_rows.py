"""Rows of what the layers of the float model give out, those of many layers at one reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds, SessionConfig
from ...backends.data import Data
from ..base import Array, Context
from ..pruning.layers import ROWS, Layer, Rows
from .observers import batches_of

ROOM = 256 << 20
"""Bytes of rows that are kept at a time, whatever the number of layers."""

AT_ONCE = 12
"""The results of so many layers are asked of one run: all of them are in memory together."""

PLENTY = 24
"""So many rows for each input tell enough; more of them only take time."""

PLACES = 16
"""At least so many places of each image, so that borders are among them."""

BATCH = 16
"""Samples in one run, where the data leaves the choice."""

_ENTRIES = {"session.intra_op.allow_spinning": "0"}


@dataclass(frozen=True)
class Batches:
    """The first ``samples`` of ``data`` (0 for all) in the batches that ``model`` takes."""

    model: ir.Model
    data: Data
    samples: int

    def batches(self, size: int) -> Iterator[Feeds]:
        """Batches of at most :data:`BATCH` samples, whatever ``size`` says."""
        del size
        for feeds, _ in batches_of(self.model, self.data, self.samples, BATCH):
            yield feeds


class FloatRows:
    """The results of ``layers`` of the float ``model``, some rows of each batch.

    They are to be asked for in order.
    """

    def __init__(
        self, model: ir.Model, layers: Sequence[Layer], data: Batches, context: Context
    ) -> None:
        self._model = model
        self._layers = list(layers)
        self._data = data
        self._context = context
        self._found: dict[str, list[tuple[Rows, Array]]] = {}

    def of(self, layer: Layer) -> list[tuple[Rows, Array]]:
        """For each batch the rows that are chosen, and ``[group, row, output]`` for these.

        Raises:
            BackendError: The model does not run on the samples.
        """
        name = _name(layer)
        if name not in self._found:
            self._read(self._layers.index(layer))
        return self._found.pop(name)

    def _read(self, first: int) -> None:
        """Read the samples for the layers from ``first`` on, as many as there is room for."""
        self._found.clear()
        group: list[Layer] = []
        taken = 0
        for layer in self._layers[first : first + AT_ONCE]:
            groups, inputs, outputs = layer.weight().shape
            taken += 4 * groups * inputs * outputs * PLENTY
            if group and taken > ROOM:
                break
            group.append(layer)
        names = [_name(layer) for layer in group]
        self._found = {name: [] for name in names}
        config = SessionConfig(provider=self._context.target.provider, entries=_ENTRIES)
        session = self._context.sessions(self._model, config, list(dict.fromkeys(names)))
        rng = np.random.default_rng(self._context.seed)
        for feeds in self._data.batches(BATCH):
            answers = session.run(feeds)
            for layer, name in zip(group, names, strict=True):
                y = answers[name]
                rows = self._some(layer.choose(y, rng), layer, len(y), rng)
                self._found[name].append((rows, layer.results(y, rows)))

    def _some(self, rows: Rows, layer: Layer, count: int, rng: np.random.Generator) -> Rows:
        """As many of the chosen ``rows`` of ``count`` samples as it takes."""
        samples = self._data.samples or ROWS
        each = max(PLENTY * layer.weight().shape[1] // samples, PLACES)
        most = each if layer.result_axis == 1 else each * count
        return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _name(layer: Layer) -> str:
    return layer.node.outputs[0].name or ""
