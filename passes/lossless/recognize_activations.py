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
        exp(x - max) / sum             ->  Softmax(x), from opset 13 on
        (x - mean) / deviation * scale ->  LayerNormalization(x), from opset 17 on, whatever the
                                           order of the factors; over all places of a channel
                                           InstanceNormalization(x)
        x / sqrt(mean of squares)      ->  RMSNormalization(x), from opset 23 on

    What was measured on ONNX Runtime 1.32, one thread: the operator against its spelling, between
    two convolutions of 32 channels on 40 x 40 pixels, and by itself on 64 x 256 numbers:

    | operator | between Convs | alone |
    | --- | --- | --- |
    | HardSwish | 1.35 | 1.47 |
    | HardSigmoid | 1.26 | 1.65 |
    | Clip for Min and Max | 1.22 | |
    | Relu for Max | 1.20 | |
    | LeakyRelu for Max | 1.19 | 1.30 |
    | Gelu for spellings that ONNX Runtime does not find | 1.23 to 1.25 | 1.38 to 1.50 |
    | tanh Gelu, as an operator | 1.40 | 2.24 |
    | tanh Gelu, as `x * sigmoid` | 1.12 | 1.32 |
    | Mish in exponentials, for Softplus and Tanh | 4.83 | 8.46 |
    | Mish, for Softplus and Tanh | 1.01 | 1.00 |
    | Softmax | | 1.66 |
    | LayerNormalization for Mul of squares | | 1.77 |
    | LayerNormalization without factors or bias | | 1.83 to 2.46 |
    | InstanceNormalization | | 2.02 to 3.64 |
    | Sum for the Add before a LayerNormalization, with the product before | | 1.24 to 1.98 |
    | RMSNormalization, or the spelling that is fused to it | | 1.89 to 3.06 |
    | GlobalAveragePool for ReduceMean | 1.14 | **0.63 to 0.79** |
    | Softplus | | **0.21** |
    | Softplus for its stable spelling | | **0.24 to 0.27** |
    | GroupNormalization for InstanceNormalization of groups | | **0.47 to 0.54** |
    | LpNormalization, or ReduceL2, for a root of summed squares | | **0.51 to 0.90** |
    | QuickGelu for `x * sigmoid` | 1.00 | 1.00 |

    So Softplus, GroupNormalization and LpNormalization stay spelled out, SiLU is left to ONNX
    Runtime, and a mean becomes a pooling only after convolutions. A spelling whose intermediate
    values overflow where the operator does not, as `exp` in a softmax, answers with a number from
    then on instead of infinity or no number.

    Attributes:
        for_target: Also write what the target alone has or runs faster, operators of
            ``com.microsoft`` among it; otherwise only operators of the model's own opset, in fewer
            nodes.
    """

    name: ClassVar[str] = "recognize-activations"
    summary: ClassVar[str] = "write spelled-out activation functions as the operators they are"

    for_target: bool = False

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite every spelling; ``details`` counts them by function."""
        return Rewriter(model, context, for_target=self.for_target).run(ACTIVATIONS)
