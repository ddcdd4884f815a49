"""Statistics of activations over calibration samples, streamed: none is held in memory.

Least and greatest values are computed inside the model, by nodes that a copy of it gets for the
purpose, so that three numbers per tensor and batch leave ONNX Runtime, whatever the size of the
tensors. Histograms take a second reading of the samples, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds, SessionConfig
from ...backends.data import Data
from ...backends.errors import DataError, UsageError
from ..base import Array, Context
from ..graph import Names, graphs_of
from .arithmetic import Range
from .inside import Lift
from .range_choice import BINS, Histogram, least_divergence, least_error, percentile
from .range_file import fingerprint, read_ranges, write_ranges

BATCH = 8
"""Samples in one run, where the model leaves the choice."""

MOMENTUM = 0.9
"""How much of a moving average stays from one batch to the next."""

METHODS = ("minmax", "moving-average", "percentile", "entropy", "mse")


@dataclass(frozen=True)
class Calibration:
    """How the range of an activation follows from the samples.

    Attributes:
        method: ``minmax`` from its least to its greatest value; ``moving-average`` of the least and
            the greatest value of each batch; ``percentile`` leaves the rarest values out;
            ``entropy`` keeps the distribution nearest to what it was; ``mse`` makes the squared
            error of rounding and clipping least.
        percent: The part of the values that ``percentile`` holds.
        symmetric: Make a range that holds both signs reach as far below zero as above it. Others
            stay: behind a ``Relu`` half of the steps would be lost, and the fusion with it.
        file: Where ranges are kept from run to run; empty for nowhere.
    """

    method: str = "minmax"
    percent: float = 99.999
    symmetric: bool = False
    file: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"there is no calibration method {self.method!r}",
                hint=f"it is one of {', '.join(METHODS)}",
            )
        if not 50 < self.percent <= 100:
            raise UsageError(f"a percentile of {self.percent} is not above 50 and up to 100")


@dataclass(frozen=True)
class Observed:
    """The range of each tensor, by name, and the number of samples that it was seen in.

    ``extremes`` are the least and the greatest values themselves, if the method asked for them.
    """

    ranges: dict[str, Range]
    samples: int
    extremes: dict[str, Range] = field(default_factory=dict)


def observe_ranges(
    model: ir.Model,
    tensors: Iterable[str],
    context: Context,
    data: Data,
    samples: int,
    how: Calibration = Calibration(),
) -> Observed:
    """The range of each of ``tensors`` over at most ``samples`` samples.

    A tensor that was always empty keeps the empty range.

    Args:
        model: Opset 13 or newer; it stays as it is.
        tensors: Names of float values of the main graph, or inside ``If``, ``Loop`` and ``Scan``,
            where they have to be unique. What is inside a loop counts in all of its turns, and its
            range is that from least to greatest whatever the method.
        context: Runs the model.
        data: The samples.
        samples: How many samples to read; 0 for all.
        how: How the ranges follow from the samples.

    Raises:
        DataError: There are no samples, they lack an input of the model, or they bring a tensor
            to infinity or NaN; or the file of ranges is none.
        OutputError: The file of ranges cannot be written.
        BackendError: The model cannot be loaded, or not be run on the samples.
    """
    names = list(tensors)
    path, key = Path(how.file), ""
    if how.file:
        key = fingerprint(model, f"{how.method} {how.percent} {samples}")
        if (stored := read_ranges(path, key, names)) is not None:
            return _finished(Observed(*stored), how)
    observed = _extremes(model, names, context, data, samples, how)
    if how.method in {"percentile", "entropy", "mse"}:
        observed = _cut(model, observed, context, data, samples, how)
    if how.file:
        write_ranges(path, key, observed.ranges, observed.samples)
    return _finished(observed, how)


def _finished(observed: Observed, how: Calibration) -> Observed:
    extremes = observed.ranges if how.method == "minmax" else {}
    return Observed(_symmetric(observed.ranges, how), observed.samples, extremes)


def _extremes(
    model: ir.Model, names: list[str], context: Context, data: Data, samples: int, how: Calibration
) -> Observed:
    """The least and the greatest values, or moving averages of those of batches."""
    clone = model.clone()
    statistics = _add_statistics(clone, names)
    asked = [output for triple in statistics for output in triple]
    session = context.sessions(clone, SessionConfig(), asked)

    ranges = dict.fromkeys(names, Range())
    seen = 0
    for feeds, count in batches_of(model, data, samples):
        answers = session.run(feeds)
        for name, (low, high, sound) in zip(names, statistics, strict=True):
            if answers[sound] != 0:
                raise DataError(
                    f"the tensor {name!r} becomes infinite or NaN within samples "
                    f"{seen} to {seen + count - 1}",
                    hint="does the float model give sensible answers on these samples?",
                )
            new = Range(float(answers[low]), float(answers[high]))
            averaged = how.method == "moving-average"
            ranges[name] = _joined(ranges[name], new, averaged=averaged)
        seen += count
        context.progress("calibrate", seen, samples or None)
    if not seen:
        raise DataError("there is no calibration sample that fits the model")
    return Observed(ranges, seen)


def _joined(old: Range, new: Range, *, averaged: bool) -> Range:
    if not averaged or old.low > old.high:
        return old.joined(new.low, new.high)
    if new.low > new.high:
        return old
    return Range(
        MOMENTUM * old.low + (1 - MOMENTUM) * new.low,
        MOMENTUM * old.high + (1 - MOMENTUM) * new.high,
    )


def _cut(
    model: ir.Model,
    observed: Observed,
    context: Context,
    data: Data,
    samples: int,
    how: Calibration,
) -> Observed:
    """The ranges cut to where the method wants them, by histograms of a second reading."""
    wide = {name: seen for name, seen in observed.ranges.items() if seen.low < seen.high}
    clone = model.clone()
    outside = _elements(clone, list(wide))
    wide = {name: wide[name] for name in outside.values()}
    if not wide:
        return observed
    counts = {name: np.zeros(BINS, np.int64) for name in wide}
    zeros = dict.fromkeys(wide, 0)
    session = context.sessions(clone, SessionConfig(), list(outside))
    done = 0
    for feeds, count in batches_of(model, data, samples, 1):
        for out, answer in session.run(feeds).items():
            name = outside[out]
            counts[name] += _counted(answer, wide[name])
            zeros[name] += int(answer.size - np.count_nonzero(answer))
        done += count
        context.progress("count", done, samples or None)
    chosen = {
        name: _choose(Histogram(seen, counts[name], zeros[name]), how)
        for name, seen in wide.items()
    }
    return Observed({**observed.ranges, **chosen}, observed.samples)


def _counted(answer: Array, seen: Range) -> Array:
    """How many elements of ``answer`` lie in each part of ``seen``."""
    scale = BINS / (seen.high - seen.low)
    places = ((answer.reshape(-1).astype(np.float64) - seen.low) * scale).astype(np.int64)
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def _choose(histogram: Histogram, how: Calibration) -> Range:
    if how.method == "percentile":
        return percentile(histogram, how.percent)
    return least_error(histogram) if how.method == "mse" else least_divergence(histogram)


def _symmetric(ranges: dict[str, Range], how: Calibration) -> dict[str, Range]:
    if not how.symmetric:
        return ranges
    found = {}
    for name, seen in ranges.items():
        reach = max(-seen.low, seen.high)
        found[name] = Range(-reach, reach) if seen.low < 0 <= seen.high else seen
    return found


def _add_statistics(model: ir.Model, tensors: list[str]) -> list[tuple[str, str, str]]:
    """Let ``model`` compute each tensor's minimum and maximum, and a zero if all is finite.

    ``ReduceMin`` and ``ReduceMax`` of ONNX Runtime may pass over a NaN; ``x - x`` cannot.
    """
    lift = Lift(model, names := Names(model))
    values = _values(model)
    statistics = []
    for tensor in tensors:
        value, made = values[tensor], []
        graph = value.graph or model.graph
        difference = ir.node("Sub", [value, value])
        graph.append(difference)
        for op_type, source, neutral in (
            ("ReduceMin", value, np.inf),
            ("ReduceMax", value, -np.inf),
            ("ReduceSum", difference.outputs[0], 0.0),
        ):
            node = ir.node(op_type, [source], {"keepdims": 0})
            node.outputs[0].name = names.fresh(f"{tensor}.{op_type}")
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            made.append(lift.number(node.outputs[0], op_type, neutral))
        difference.outputs[0].name = names.fresh(f"{tensor}.zero")
        statistics.append((made[0], made[1], made[2]))
    return statistics


def _elements(model: ir.Model, tensors: list[str]) -> dict[str, str]:
    """Which value of the main graph holds all elements of which of ``tensors``, loops left out."""
    lift, values = Lift(model, Names(model)), _values(model)
    seen = [values[tensor] for tensor in tensors if not lift.in_loop(values[tensor].graph)]
    return {lift.elements(value): value.name or "" for value in seen}


def _values(model: ir.Model) -> dict[str | None, ir.Value]:
    """Inputs and computed values of all graphs by name, those of the main graph first of all."""
    graphs = [*(one for one in graphs_of(model) if one is not model.graph), model.graph]
    values: dict[str | None, ir.Value] = {}
    for graph in graphs:
        values |= {value.name: value for value in graph.inputs}
        values |= {value.name: value for node in graph for value in node.outputs}
    return values


def batches_of(
    model: ir.Model, data: Data, samples: int, most: int = BATCH
) -> Iterator[tuple[Feeds, int]]:
    """Feeds with what ``model`` wants and no more, and the number of samples in each.

    A model with a fixed batch gets whole batches only.
    """
    wanted = {v.name: v for v in model.graph.inputs if v.name and not v.is_initializer()}
    fixed = {name: size for name, value in wanted.items() if (size := _fixed_batch(value))}
    size = next(iter(fixed.values()), min(most, samples or most))
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
