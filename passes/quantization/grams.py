"""What layers are fed, summed up over calibration samples in Gram matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ...backends.base import SessionConfig
from ...backends.errors import DataError
from ..base import Array, Context
from .weight_layers import Layer

ROOM = 1 << 30
"""Bytes that all matrices which are summed up at a time may take."""

BATCH = 8
"""Samples in one run, where the model leaves the choice."""


def with_grams(
    model: ir.Model, layers: list[Layer], context: Context, samples: int | None
) -> Iterator[tuple[Layer, Array | None]]:
    """Each layer with the sum of ``x x'`` over all rows ``x`` that it is fed on the samples.

    The samples are read once for every :data:`ROOM` that the matrices take. A table has none, nor
    has what stands in a subgraph, which cannot be seen from outside, and nothing has without
    ``samples``, how many to read; 0 for all.

    Raises:
        DataError: There are no samples.
        BackendError: The model does not run on the samples.
    """
    reading: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        source = layer.node.inputs[0]
        seen = not layer.is_table and layer.node.graph is model.graph
        if layer.node.attributes.get_int("transA", 0) or source is None:
            seen = False
        if samples is None or not seen:
            yield layer, None
        elif source is not None:
            reading.setdefault(source, []).append(layer)
    for group in _groups(reading):
        grams = _grams(model, group, context, samples or 0)
        for value in group:
            yield from ((layer, grams[value]) for layer in reading[value])


def _groups(reading: dict[ir.Value, list[Layer]]) -> Iterator[list[ir.Value]]:
    """The values in order, as many at a time as there is room for."""
    group: list[ir.Value] = []
    taken = 0
    for source, layers in reading.items():
        size = 8 * layers[0].rows().shape[1] ** 2
        if group and taken + size > ROOM:
            yield group
            group, taken = [], 0
        group.append(source)
        taken += size
    if group:
        yield group


def _grams(
    model: ir.Model, values: list[ir.Value], context: Context, samples: int
) -> dict[ir.Value, Array]:
    if context.data is None:
        raise DataError("there are no calibration samples", hint="give some with --data")
    wanted = [value.name or "" for value in model.graph.inputs if not value.is_initializer()]
    asked = [value.name or "" for value in values if not value.is_graph_input()]
    session = context.sessions(model, SessionConfig(), asked or None)
    sums: dict[ir.Value, Array] = {}
    seen = 0
    for batch in context.data.batches(min(BATCH, samples or BATCH)):
        feeds = {name: np.asarray(batch[name]) for name in wanted if name in batch}
        found = {**session.run(feeds), **feeds}
        for value in values:
            array = found[value.name or ""]
            rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
            sums[value] = sums[value] + rows.T @ rows if value in sums else rows.T @ rows
        seen += max((len(array) for array in feeds.values() if array.ndim), default=1)
        context.progress("calibrate", seen, samples or None)
        if samples and seen >= samples:
            break
    if not seen:
        raise DataError("there is no calibration sample that fits the model")
    return sums
