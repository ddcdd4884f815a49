"""Statistics of activations over calibration samples, streamed: none is held in memory.

The statistics are computed inside the model, by nodes that a copy of it gets for the purpose, so
that three numbers per tensor and batch leave ONNX Runtime, whatever the size of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds, SessionConfig
from ...backends.data import Data
from ...backends.errors import DataError
from ..base import Context
from ..graph import Names
from .arithmetic import Range

BATCH = 8
"""Samples in one run, where the model leaves the choice."""


@dataclass(frozen=True)
class Observed:
    """The range of each tensor, by name, and the number of samples that it was seen in."""

    ranges: dict[str, Range]
    samples: int


def observe_ranges(
    model: ir.Model, tensors: Iterable[str], context: Context, data: Data, samples: int
) -> Observed:
    """The least and the greatest value of each of ``tensors`` over at most ``samples`` samples.

    A tensor that was always empty keeps the empty range.

    Args:
        model: Opset 13 or newer; it stays as it is.
        tensors: Names of float values of the main graph.
        context: Runs the model.
        data: The samples.
        samples: How many samples to read; 0 for all.

    Raises:
        DataError: There are no samples, they lack an input of the model, or they bring a tensor
            to infinity or NaN.
        BackendError: The model cannot be loaded, or not be run on the samples.
    """
    names = list(tensors)
    clone = model.clone()
    statistics = _add_statistics(clone, names)
    asked = [output for triple in statistics for output in triple]
    session = context.sessions(clone, SessionConfig(), asked)

    ranges = dict.fromkeys(names, Range())
    seen = 0
    for feeds, count in _batches(model, data, samples):
        answers = session.run(feeds)
        for name, (low, high, sound) in zip(names, statistics, strict=True):
            if answers[sound] != 0:
                raise DataError(
                    f"the tensor {name!r} becomes infinite or NaN within samples "
                    f"{seen} to {seen + count - 1}",
                    hint="does the float model give sensible answers on these samples?",
                )
            ranges[name] = ranges[name].joined(float(answers[low]), float(answers[high]))
        seen += count
        context.progress("calibrate", seen, samples or None)
    if not seen:
        raise DataError("there is no calibration sample that fits the model")
    return Observed(ranges, seen)


def _add_statistics(model: ir.Model, tensors: list[str]) -> list[tuple[str, str, str]]:
    """Let ``model`` compute each tensor's minimum and maximum, and a zero if all is finite.

    ``ReduceMin`` and ``ReduceMax`` of ONNX Runtime may pass over a NaN; ``x - x`` cannot.
    """
    graph, names = model.graph, Names(model)
    values = {value.name: value for value in (*graph.inputs, *_outputs(graph))}
    statistics = []
    for tensor in tensors:
        value, made = values[tensor], []
        difference = ir.node("Sub", [value, value])
        graph.append(difference)
        for op_type, source in (
            ("ReduceMin", value),
            ("ReduceMax", value),
            ("ReduceSum", difference.outputs[0]),
        ):
            node = ir.node(op_type, [source], {"keepdims": 0})
            node.outputs[0].name = names.fresh(f"{tensor}.{op_type}")
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            made.append(node.outputs[0].name)
        difference.outputs[0].name = names.fresh(f"{tensor}.zero")
        statistics.append((made[0], made[1], made[2]))
    return statistics


def _outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def _batches(model: ir.Model, data: Data, samples: int) -> Iterator[tuple[Feeds, int]]:
    """Feeds with what ``model`` wants and no more, and the number of samples in each.

    A model with a fixed batch gets whole batches only.
    """
    wanted = {v.name: v for v in model.graph.inputs if v.name and not v.is_initializer()}
    fixed = {name: size for name, value in wanted.items() if (size := _fixed_batch(value))}
    size = next(iter(fixed.values()), min(BATCH, samples or BATCH))
    seen = 0
    for feeds in data.batches(size):
        if missing := [name for name in wanted if name not in feeds]:
            raise DataError(
                f"the samples hold nothing for the model's input {missing[0]!r}",
                hint=f"they hold {', '.join(repr(name) for name in feeds)}",
            )
        chosen = {name: np.asarray(feeds[name]) for name in wanted}
        if any(chosen[name].shape[:1] != (size,) for name, size in fixed.items()):
            continue
        count = max((len(array) for array in chosen.values() if array.ndim), default=1)
        yield chosen, count
        seen += count
        if samples and seen >= samples:
            return


def _fixed_batch(value: ir.Value) -> int | None:
    size = value.shape[0] if value.shape is not None and len(value.shape) > 0 else None
    return size if isinstance(size, int) and size > 0 else None
