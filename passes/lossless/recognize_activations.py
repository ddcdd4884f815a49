"""Recognise activation functions that an exporter wrote as several operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..base import Context, Pass, Result
from .activation_rules import ACTIVATIONS
from .rules import Rewriter


@dataclass(frozen=True)
class RecognizeActivations(Pass):
    """Write activation functions as the operators that they are.

    Exporters spell them out, each in its own way::

        Clip(x + 3, 0, 6) / 6          ->  HardSigmoid(x), alpha = 1/6, beta = 1/2
        x * Clip(x + 3, 0, 6) / 6      ->  HardSwish(x), or x * HardSigmoid(x) before opset 14
        Clip(a * x + b, 0, 1)          ->  HardSigmoid(x), alpha = a, beta = b
        Min(Max(x, a), b), Clip(Relu)  ->  Clip(x), or Relu(x)
        Max(x, a * x)                  ->  LeakyRelu(x), alpha = a
        1 / (1 + exp(-x))              ->  Sigmoid(x)
        x * (1 + erf(x / sqrt 2)) / 2  ->  Gelu(x)
        x * tanh(softplus(x))          ->  Mish(x)

    Attributes:
        for_target: Also write what the target alone has or runs faster, operators of
            ``com.microsoft`` among it; otherwise only operators of the model's own opset.
    """

    name: ClassVar[str] = "recognize-activations"
    summary: ClassVar[str] = "write spelled-out activation functions as the operators they are"

    for_target: bool = False

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite every spelling; ``details`` counts them by function."""
        return Rewriter(model, context, for_target=self.for_target).run(ACTIVATIONS)
