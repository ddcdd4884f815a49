"""The smallest fraction of a model's work with which answers stay good enough."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import onnx_ir as ir

from ..backends.base import SessionConfig
from ..backends.errors import UsageError
from ..passes.base import Context
from ..passes.errors import PassError
from ..passes.pruning.prune_channels import PruneChannels
from .manager import PassManager, replay
from .mixed_precision import Held
from .pipeline import Fixpoint, Pipeline, Step
from .quality import Demand, Part, Quality
from .records import silent

HALVINGS: Final = 6
"""So many fractions are tried: the one found is within a sixty-fourth of the smallest."""


def prunes(pipeline: Pipeline) -> bool:
    """Whether ``pipeline`` removes channels."""
    return any(_prunes(item) for item in pipeline)


def prune_as_far(model: ir.Model, pipeline: Pipeline, demand: Demand, context: Context) -> Held:
    """``pipeline`` with the smallest fraction of work whose answers are as ``demand`` says.

    The fraction is found by bisection, on the assumption that less work never answers better. Each
    candidate is pruned and fitted anew, and measured in a default session on samples that neither
    sees. Fractions that the channels do not allow count as not good enough.

    Args:
        model: The original.
        pipeline: Holds ``prune-channels``; what stands before it runs once.
        demand: How much worse answers may get.
        context: Its data is parted here: three quarters prune, one measures.

    Raises:
        UsageError: There are no samples.
        DataError: There are too few samples to hold some out.
    """
    if context.data is None:
        raise UsageError("--max-drop needs --data: samples to measure answers on")
    at = next(number for number, item in enumerate(pipeline) if _prunes(item))
    quiet = replace(context, progress=silent, data=Part(context.data, held=False))
    before, after = Pipeline(pipeline.items[:at]), Pipeline(pipeline.items[at:])
    base = PassManager(before).run(model, quiet).model
    config = SessionConfig(provider=context.target.provider)
    quality = Quality(demand, model, Part(context.data, held=True), config)
    tried: list[dict[str, Any]] = []
    low, high, best = 0.0, 1.0, math.nan
    for number in range(HALVINGS):
        context.progress("pruning and measuring answers", number, HALVINGS)
        fraction = (low + high) / 2
        try:
            value = quality.value(replay(base, _keeping(after, fraction).steps(), quiet))
        except PassError as error:
            tried.append({"fraction": fraction, "reason": error.message})
            low = fraction
            continue
        tried.append({"fraction": fraction, "value": value if math.isfinite(value) else None})
        if quality.enough(value):
            high, best = fraction, value
        else:
            low = fraction
    reference = quality.reference
    report: dict[str, Any] = {
        "status": "held",
        "metric": demand.metric,
        "max_drop": demand.max_drop,
        "reference": reference if math.isfinite(reference) else None,
        "value": best if math.isfinite(best) else None,
        "fraction": high,
        "tried": tried,
    }
    if high == 1.0:
        reason = (
            f"no channels may go: with {tried[-1]['fraction']:.3g} of it left {_why(tried[-1])}"
        )
        report |= {"status": "not-worth-it", "reason": reason}
        return Held(before, report)
    return Held(Pipeline((*before, *_keeping(after, high))), report)


def _why(row: dict[str, Any]) -> str:
    return str(row.get("reason") or "the answers are worse than that")


def _prunes(item: Step | Fixpoint) -> bool:
    return isinstance(item, Step) and isinstance(item.run, PruneChannels)


def _keeping(pipeline: Pipeline, fraction: float) -> Pipeline:
    """``pipeline`` that keeps ``fraction`` of what its pruning counts."""

    def changed(item: Step | Fixpoint) -> Step | Fixpoint:
        if not isinstance(item, Step) or not isinstance(item.run, PruneChannels):
            return item
        if item.run.parameters:
            return replace(item, run=replace(item.run, parameters=fraction))
        return replace(item, run=replace(item.run, macs=fraction))

    return Pipeline(tuple(map(changed, pipeline)))
