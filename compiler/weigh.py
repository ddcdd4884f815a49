"""Which passes are kept for their predicted latency alone."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..passes.analysis.latency_model import predicted_latency
from ..passes.base import Context, Pass
from .pipeline import Step

NOISE: Final = 1.005
"""How much longer a result may be predicted to take before its pass is undone for it."""


class Scales:
    """Weighs the results of passes that trade one kind of work for another, on a CPU."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: tuple[int, float | None] = (-1, None)

    def weight(self, step: Step, model: ir.Model, steps: int) -> float | None:
        """The predicted latency of ``model``, after ``steps`` steps, if ``step`` is to be weighed.

        ``None`` otherwise, and where it cannot be predicted.
        """
        target = self._context.target
        if not isinstance(step.run, Pass) or not step.run.trades or target.name != "cpu":
            return None
        if self._last[0] != steps:
            found = predicted_latency(model, self._context.dims, features=target.features)
            self._last = (steps, found)
        return self._last[1]

    def verdict(self, step: Step, before: float | None, model: ir.Model, steps: int) -> str:
        """Why ``step``, which made ``model`` as the last of ``steps``, is undone; empty if not."""
        if before is None:
            return ""
        after = self.weight(step, model, steps)
        if after is None or after <= before * NOISE:
            return ""
        self._last = (steps - 1, before)
        return f"it is predicted to run {after / before:.2f} times as long on the target"
