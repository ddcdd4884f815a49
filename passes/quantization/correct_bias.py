"""Take out of quantized layers the mean error that rounding their weights makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.errors import DataError, UsageError
from ..base import Array, Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import Names
from ..pruning.layers import Layer, layer_of
from ..pruning.replay import Replay
from .arithmetic import ACCUMULATOR_LIMIT
from .matrices import matrices, step_matrices
from .quantized import QuantizedLayer, float_twin, quantized_layers


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Shift the biases of quantized layers so that their results are right in the mean.

    Rounding a weight ``W`` to ``W + E`` moves every result by ``a E``, and the mean of that can be
    taken out of the bias. ``refit`` does this and more; this pass alone takes a fraction of the
    time and changes biases only. It works on what ``insert-qdq`` left in the same run.

    Options:

    - ``method``: ``empirical`` compares what each layer gives out in the quantized model with the
      float one, earlier layers being corrected already, so it makes up for their errors as well.
      ``analytic`` takes out ``E`` times the mean of the float inputs, as Nagel et al. 2019,
      "Data-Free Quantization Through Weight Equalization and Bias Correction", with means from
      samples instead of normalizations, which may be folded.
    - ``samples``: how many samples to read at most; 0 for all.
    """

    name: ClassVar[str] = "correct-bias"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="moves quantized biases", min_sqnr_db=6.0
    )
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Take the mean error of rounded weights out of the biases"

    method: str = "empirical"
    samples: int = 128

    def __post_init__(self) -> None:
        if self.method not in {"empirical", "analytic"}:
            raise UsageError(
                f"correct-bias has no method {self.method!r}",
                hint="method is one of empirical, analytic",
            )
        if self.samples < 0:
            raise UsageError(f"correct-bias cannot read {self.samples} samples")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Correct the biases of the quantized layers in the main graph.

        Raises:
            PassError: There is no data.
            DataError: There are no samples, or they do not fit the model.
            BackendError: The model does not run.
        """
        result = Result(model)
        if context.data is None:
            raise PassError("correct-bias needs samples", hint="give some with --data")
        layers, declined = quantized_layers(model.graph)
        for node, reason in declined.items():
            result.decline(node, because=reason)
        if not layers:
            return result
        twin = float_twin(model)
        twins = {node.outputs[0].name: node for node in twin.graph}
        quantized, exact = (
            Replay(one, context.data, self.samples, context) for one in (model, twin)
        )
        names = Names(model)
        for done, layer in enumerate(layers):
            context.progress("correct", done, len(layers))
            shape = layer_of(twins[layer.name])
            if layer.bias is None or isinstance(shape, str):
                result.decline(layer.node, because="it has no bias to correct")
                continue
            bias = self._bias(layer, shape, quantized, exact)
            if isinstance(bias, str):
                result.decline(layer.node, because=bias)
                continue
            layer.write(layer.integers, layer.scale, bias, names)
            result.rewrote(layer.node)
        return result

    def _bias(
        self, layer: QuantizedLayer, shape: Layer, quantized: Replay, exact: Replay
    ) -> Array | str:
        """The bias with which the mean result of ``layer`` is right, or why there is none."""
        weight = shape.weight().astype(np.float64)
        rounded = matrices(layer.integers, layer, shape) * step_matrices(layer, weight)
        source = shape.node.inputs[0]
        if source is None:
            raise ValueError(f"{layer.name!r} reads nothing")
        known, results = layer.float_bias, shape.node.outputs[0]
        total, rows = np.zeros((len(weight), 1, weight.shape[2])), 0
        read = (
            quantized.batches(layer.input) if self.method == "empirical" else exact.batches(source)
        )
        rng = np.random.default_rng(0)
        for x, y in zip(read, exact.batches(results), strict=True):
            chosen = shape.choose(y, rng)
            inputs = shape.inputs(x, chosen).astype(np.float64)
            if self.method == "empirical":
                wanted = shape.results(y, chosen).astype(np.float64)
                total += (wanted - inputs @ rounded).sum(axis=1, keepdims=True)
            else:
                total += (inputs @ (weight - rounded)).sum(axis=1, keepdims=True)
            rows += inputs.shape[1]
        if not rows:
            raise DataError("there is no sample to correct biases by")
        bias = (total / rows).reshape(-1)
        bias = bias if self.method == "empirical" else bias + known
        largest = 2 * ACCUMULATOR_LIMIT * float(layer.input_scale) * layer.scale
        if not np.isfinite(bias).all() or (np.abs(bias) > largest).any():
            return "its corrected bias would not fit 32 bits"
        return np.asarray(bias)
