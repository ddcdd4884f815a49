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

    def weighs(self, step: Step) -> bool:
        """Whether the result of ``step`` is to be weighed."""
        is_trade = isinstance(step.run, Pass) and step.run.trades
        return is_trade and self._context.target.name == "cpu"

    def verdict(self, step: Step, before: ir.Model, after: ir.Model, steps: int) -> str:
        """Why ``step``, which made ``after`` of ``before``, is undone; empty if it is not.

        ``steps`` is how many steps made ``before``. Where one of both cannot be predicted, nothing
        is undone.
        """
        if not self.weighs(step):
            return ""
        first, second = self._predicted(before, steps), self._predicted(after, steps + 1)
        if first is None or second is None or second <= first * NOISE:
            return ""
        self._last = (steps, first)
        return f"it is predicted to run {second / first:.2f} times as long on the target"

    def _predicted(self, model: ir.Model, steps: int) -> float | None:
        if self._last[0] != steps:
            features = self._context.target.features
            found = predicted_latency(model, self._context.dims, features=features)
            self._last = (steps, found)
        return self._last[1]
