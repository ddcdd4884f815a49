"""Keeps so many layers in float that answers stay good enough, the fewest and cheapest."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from ..backends.base import SessionConfig
from ..backends.errors import UsageError
from ..passes.analysis.macs import node_macs, with_fixed_shapes
from ..passes.base import Context
from ..passes.graph import nodes_in
from ..passes.quantization.emit import ORIGIN
from ..passes.quantization.insert_qdq import InsertQDQ
from ..passes.quantization.sensitivity import Sensitivity, sensitivities
from .latency import Stopwatch
from .manager import PassManager, replay
from .pipeline import Fixpoint, Pipeline, Step
from .quality import Demand, Part, Quality
from .records import silent

SECONDS = 4.0
"""How long int8 is timed against float."""

RETRIES = 8
"""So many of the layers that stay in float are tried in int8 again, one by one."""

NOT_ASKED: dict[str, Any] = {"status": "not-asked", "reason": "no --max-drop was given"}


@dataclass
class Held:
    """A pipeline whose result is good enough, and how it was found; ``report`` is JSON-ready."""

    pipeline: Pipeline
    report: dict[str, Any] = field(default_factory=dict)


def hold_accuracy(
    model: ir.Model,
    pipeline: Pipeline,
    demand: Demand,
    context: Context,
    stopwatch: Stopwatch | None,
) -> Held:
    """``pipeline`` with what ``insert-qdq`` has to exclude so that answers are as ``demand`` says.

    Layers are ranked by what each alone costs, which one reading of the samples tells
    (:func:`~..passes.quantization.sensitivity.sensitivities`). The fewest that have to stay in
    float, from the worst on, are found by bisection; each candidate is quantized anew and measured
    in a default session on samples that its calibration does not see. Then each layer in float, the
    one with the most work first, is tried in int8 once more.

    Where all would have to stay in float, or what is left in int8 is measured to be slower than
    float, nothing is worth quantizing: the pipeline then ends before ``insert-qdq``, and the report
    says why.

    Args:
        model: The original.
        pipeline: Holds ``insert-qdq``; what stands before it runs once.
        demand: How much worse answers may get.
        context: Its data is parted here: three quarters calibrate, one measures.
        stopwatch: Times int8 against float; ``None`` times nothing.

    Raises:
        UsageError: The pipeline quantizes nothing.
        DataError: There are too few samples to hold some out.
    """
    at = _position(pipeline)
    if context.data is None:
        raise UsageError("--max-drop needs --data: samples to measure answers on")
    quiet = replace(context, progress=silent, data=Part(context.data, held=False))
    before, after = pipeline.items[:at], pipeline.items[at:]
    base = PassManager(Pipeline(before)).run(model, quiet).model
    config = SessionConfig(provider=context.target.provider)
    quality = Quality(demand, model, Part(context.data, held=True), config)
    search = _Search(base, Pipeline(after), quality, quiet, context)
    kept, value = search.run()
    left = _layers(search.model(kept))
    ranked = [one.layer for one in search.layers if one.layer not in left]
    in_float = [*(one for one in kept if one not in {*left, *ranked}), *ranked]
    report: dict[str, Any] = {
        "status": "held",
        "metric": demand.metric,
        "max_drop": demand.max_drop,
        "reference": _finite(quality.reference),
        "value": _finite(value),
        "all_int8": _finite(search.values[()]),
        "in_float": in_float,
        "tried": len(search.values),
        "layers": search.rows(in_float),
    }
    if not left:
        reason = f"all {len(kept)} layers would have to stay in float"
        return _nothing(pipeline, at, report, reason)
    if stopwatch is not None:
        context.progress("timing int8 against float", 0, None)
        timed = stopwatch(base, search.model(kept), SECONDS)
        report["latency"] = timed
        if timed.get("verdict") == "slower":
            return _nothing(pipeline, at, report, "what may be int8 is slower than in float")
    return Held(Pipeline((*before, *_excluding(Pipeline(after), kept).items)), report)


def quantizes(pipeline: Pipeline) -> bool:
    """Whether ``pipeline`` inserts quantization that layers can be kept from."""
    return any(isinstance(item, Step) and isinstance(item.run, InsertQDQ) for item in pipeline)


def _layers(model: ir.Model) -> list[str]:
    """What the quantized layers of ``model`` compute in the float model, in subgraphs as well."""
    values = (value for node in nodes_in(model.graph) for value in node.outputs)
    return [str(value.meta[ORIGIN]) for value in values if ORIGIN in value.meta]


def _nothing(pipeline: Pipeline, at: int, report: dict[str, Any], reason: str) -> Held:
    report |= {"status": "not-worth-it", "reason": f"nothing is worth quantizing here: {reason}"}
    return Held(Pipeline(pipeline.items[:at]), report)


class _Search:
    """Looks for the layers that have to stay in float."""

    def __init__(
        self,
        base: ir.Model,
        passes: Pipeline,
        quality: Quality,
        quiet: Context,
        context: Context,
    ) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self._last: tuple[tuple[str, ...], ir.Model] | None = None
        self.layers: list[Sensitivity] = []
        self._base, self._passes, self._quality = base, passes, quality
        self._quiet, self._context = quiet, context
        self._costs: dict[str, int] = {}

    def run(self) -> tuple[tuple[str, ...], float]:
        """The layers to keep in float, and what the model is worth then."""
        value = self._value(())
        if self._quiet.data is not None:
            self.layers = sensitivities(self.model(()), self._context, self._quiet.data)
        self._costs = _costs(self._base, self._context)
        if self._quality.enough(value):
            return (), value
        ranked = [layer.layer for layer in self.layers]
        # What stands in subgraphs cannot be ranked; it goes first.
        names = [one for one in _layers(self.model(())) if one not in ranked] + ranked
        if not names:
            return (), value
        low, high = 0, len(names)
        while high - low > 1:
            middle = (low + high) // 2
            if self._quality.enough(self._value(tuple(names[:middle]))):
                high = middle
            else:
                low = middle
        kept = tuple(names[:high])
        if high < len(names):
            for name in sorted(kept, key=lambda one: -self._costs.get(one, 0))[:RETRIES]:
                fewer = tuple(one for one in kept if one != name)
                if fewer and self._quality.enough(self._value(fewer)):
                    kept = fewer
        return kept, self._value(kept)

    def model(self, kept: tuple[str, ...]) -> ir.Model:
        """The model with the layers ``kept`` in float."""
        if self._last is None or self._last[0] != kept:
            steps = _excluding(self._passes, kept).steps()
            self._last = kept, replay(self._base, steps, self._quiet)
        return self._last[1]

    def rows(self, kept: Sequence[str]) -> list[dict[str, Any]]:
        """The layers for a report, the one that disturbs most first."""
        return [
            {
                "layer": one.layer,
                "operator": one.operator,
                "sqnr_db": _finite(one.sqnr_db),
                "macs": self._costs.get(one.layer),
                "float": one.layer in kept,
            }
            for one in self.layers
        ]

    def _value(self, kept: tuple[str, ...]) -> float:
        if kept not in self.values:
            self._context.progress("quantizing and measuring answers", len(self.values), None)
            self.values[kept] = self._quality.value(self.model(kept))
        return self.values[kept]


def _finite(value: float) -> float | None:
    """``value`` for JSON, which knows no infinity: a ratio to no noise at all."""
    return value if math.isfinite(value) else None


def _position(pipeline: Pipeline) -> int:
    for at, item in enumerate(pipeline):
        if isinstance(item, Step) and isinstance(item.run, InsertQDQ):
            return at
    raise UsageError(
        "--max-drop keeps layers from being quantized, and nothing quantizes any",
        hint="add --quantize int8, or insert-qdq to --passes",
    )


def _excluding(pipeline: Pipeline, layers: Sequence[str]) -> Pipeline:
    """``pipeline`` whose ``insert-qdq`` leaves ``layers`` in float, besides what it excluded."""

    def changed(item: Step | Fixpoint) -> Step | Fixpoint:
        if not isinstance(item, Step) or not isinstance(item.run, InsertQDQ) or not layers:
            return item
        names = (*item.run.exclude, *map(glob.escape, layers))
        return replace(item, run=replace(item.run, exclude=names))

    return Pipeline(tuple(map(changed, pipeline)))


def _costs(model: ir.Model, context: Context) -> dict[str, int]:
    """Multiply-accumulates of each node, by the name of what it computes."""
    fixed = with_fixed_shapes(model, context.dims)
    return {node.outputs[0].name or "": node_macs(node) or 0 for node in fixed.graph}
