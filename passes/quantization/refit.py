"""Fit quantized layers to what the float model computes, and choose their integers together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.data import Data
from ...backends.errors import DataError, UsageError
from ..base import Array, Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import Names
from ..pruning.layers import Layer, layer_of
from ..pruning.least_squares import Gathering, Moments, best_ridge
from ..pruning.replay import Replay
from .arithmetic import ACCUMULATOR_LIMIT, SMALLEST_SCALE, WMAX, power_of_two
from .float_rows import Batches, FloatRows
from .matrices import largest_sums, matrices, partners, step_matrices
from .quantized import QuantizedLayer, float_twin, quantized_layers
from .rounding import Feedback, Grid, error, improved, nearest

INPUTS = 4608
"""A layer with more inputs is left as it is: choosing its integers takes minutes."""

RIDGES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Penalties on moving the float weights, to choose from by rows held out."""

MANY = 2048
"""Layers with more inputs take :data:`RIDGE`, where one solution takes seconds."""

RIDGE = 1e-2

SAMPLES = 256

ROOM = 512 << 20
"""Bytes of 8-bit activations that are kept, so that later layers are computed from them."""

HELD = 4
"""One of so many rows of each batch is held out."""

SMALLER = (1.0, 0.93, 0.86)
"""Steps to try besides the least that holds all weights: they clip the largest."""

TINY32 = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Refit(Pass):
    """Fit the weights of quantized layers to the float model, layer by layer, on samples.

    Works on what ``insert-qdq`` left in the same run. For each quantized ``Conv``, ``Gemm`` and
    ``MatMul``, in order, with inputs ``a`` as the quantized model computes them and results ``y``
    as the float model does, it looks for the integers ``q``, steps ``s`` and bias ``b`` that
    minimize ``sum |a (q s) + b - y|^2``:

    1. the float weights that minimize it, by ridge least squares towards the weights there were.
       They make up for what earlier layers lost;
    2. integers near those, chosen together so that errors cancel where inputs go together, not each
       rounded to its nearest (:mod:`.rounding`);
    3. the step of each output, of a few, with which that leaves the least error;
    4. the bias that leaves no mean error.

    Nothing is slower afterwards and the file is no larger: only constants change. Sums of
    neighbouring integers that could not saturate before cannot afterwards. Layers without known
    float weights or with more than 4,608 inputs stay as they are.

    Options:

    - ``weights``: fit the float weights first; without it only rounding and biases change.
    - ``round``: ``learned`` is 2; ``nearest`` rounds each weight by itself.
    - ``samples``: how many samples to read at most; 0 for all.
    """

    name: ClassVar[str] = "refit"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="moves quantized weights and biases", min_sqnr_db=6.0
    )
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Fit quantized weights to the float model, layer by layer"

    weights: bool = True
    round: str = "learned"
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        if self.round not in {"learned", "nearest"}:
            raise UsageError(
                f"refit has no round {self.round!r}", hint="round is one of learned, nearest"
            )
        if self.samples < 0:
            raise UsageError(f"refit cannot read {self.samples} samples")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fit the quantized layers of the main graph.

        Raises:
            PassError: There is no data.
            DataError: There are no samples, or they do not fit the model.
            BackendError: The model does not run.
        """
        result = Result(model)
        if context.data is None:
            raise PassError("refit needs samples", hint="give some with --data")
        layers, declined = quantized_layers(model.graph)
        for node, reason in declined.items():
            result.decline(node, because=reason)
        if not layers:
            return result
        fitter = _Fitter(model, layers, context, context.data, self)
        errors: dict[str, list[float]] = {}
        for done, layer in enumerate(layers):
            context.progress("fit", done, len(layers))
            found = fitter.fit(layer)
            if isinstance(found, str):
                result.decline(layer.node, because=found)
            else:
                errors[layer.name] = found
                result.rewrote(layer.node)
        context.progress("fit", len(layers), len(layers))
        result.details["error_before_and_after"] = errors
        return result


class _Fitter:
    """Fits one layer after the other of one model."""

    def __init__(
        self,
        model: ir.Model,
        layers: list[QuantizedLayer],
        context: Context,
        data: Data,
        options: Refit,
    ) -> None:
        twin = float_twin(model)
        self._options = options
        self._names = Names(model)
        nodes = {node.outputs[0].name: node for node in twin.graph}
        self._twins = {layer.name: _twin_of(nodes[layer.name]) for layer in layers}
        batches = Batches(model, data, options.samples)
        fitted = [one for one in self._twins.values() if not isinstance(one, str)]
        self._float = FloatRows(twin, fitted, batches, context)
        self._quantized = Replay(model, batches, options.samples, context, room=ROOM)

    def fit(self, layer: QuantizedLayer) -> list[float] | str:
        """The unexplained part of the variance before and after, or why ``layer`` stays."""
        twin = self._twins[layer.name]
        if isinstance(twin, str):
            return f"it is not fitted: {twin}"
        prior = twin.weight().astype(np.float64)
        known, held = self._moments(layer, twin)
        moments = known if held is None else known + held
        if not all(np.isfinite(one).all() for one in (moments.gram, moments.cross, moments.power)):
            return "it is not fitted: the samples bring infinity or NaN"
        wanted = prior
        if self._options.weights:
            penalty = RIDGE
            if held is not None and prior.shape[1] <= MANY:
                penalty = best_ridge(known, held, prior, RIDGES)
            wanted = moments.solve(penalty, prior).weight
        return self._write(layer, twin, wanted, moments)

    def _moments(self, layer: QuantizedLayer, twin: Layer) -> tuple[Moments, Moments | None]:
        wide = not all(_is_moderate(size) for size in (layer.input_scale, np.abs(layer.scale)))
        known, held = Gathering(), Gathering()
        results = self._float.of(twin)
        inputs = self._quantized.batches(layer.integer_input)
        for x, (rows, y) in zip(inputs, results, strict=True):
            a = twin.inputs(layer.dequantized(x), rows)
            kind = np.float64 if wide else np.float32
            a, wanted = a.astype(kind, copy=False), y.astype(kind, copy=False)
            cut = a.shape[1] - a.shape[1] // HELD
            known.add(a[:, :cut], wanted[:, :cut])
            held.add(a[:, cut:], wanted[:, cut:])
        moments = [one.moments() for one in (known, held)]
        if layer.bias is None:
            moments = [one and _about_zero(one) for one in moments]
        if moments[0] is None:
            raise DataError("there is no sample to fit the quantized model to")
        return moments[0], moments[1]

    def _write(
        self, layer: QuantizedLayer, twin: Layer, wanted: Array, moments: Moments
    ) -> list[float] | str:
        shape = wanted.shape[0], 1, wanted.shape[2]
        old = matrices(layer.integers, layer, twin)
        scale = step_matrices(layer, wanted)
        limits = largest_sums(old, partner := partners(twin, old.shape[1]))
        floor = np.broadcast_to(_floor(layer, moments, wanted), shape)
        new, steps = old.copy(), scale.copy()
        for group, weight in enumerate(wanted):
            gram = _shrunk(moments.gram[group], moments.rows)
            found = self._choose(
                weight.T,
                gram,
                Grid(scale[group, 0], WMAX, partner, limits[group]),
                floor[group, 0],
                one_step=layer.scale.ndim == 0,
                powers=_are_powers(layer),
            )
            new[group], steps[group, 0] = found[0].T, found[1]
        before, after = (_unexplained(q * s, moments) for q, s in ((old, scale), (new, steps)))
        if after > before:
            new, steps, after = old, scale, before
        bias = (moments.target - moments.input @ (new * steps)).reshape(-1)
        if (
            np.abs(bias) > 2 * ACCUMULATOR_LIMIT * float(layer.input_scale) * steps.reshape(-1)
        ).any():
            return "it is not fitted: its bias would not fit 32 bits"
        kept = steps.reshape(-1)[: layer.scale.size].reshape(layer.scale.shape).astype(np.float32)
        integers = np.rint(twin.stored(new)).astype(np.int8)
        layer.write(integers, kept, bias if layer.bias is not None else None, self._names)
        return [before, after]

    def _choose(
        self, weight: Array, gram: Array, grid: Grid, floor: Array, *, one_step: bool, powers: bool
    ) -> tuple[Array, Array]:
        """The best integers ``[output, input]`` for ``weight`` and the step of each output."""
        learned = self._options.round == "learned"
        feedback = Feedback.of(gram) if learned else None
        best = np.zeros_like(weight)
        least, steps = np.full(len(weight), np.inf), grid.scale.copy()
        for wanted in _candidates(weight, grid, floor, one_step):
            candidate = power_of_two(wanted).astype(np.float64) if powers else wanted
            tried = replace(grid, scale=candidate)
            integers = feedback.round(weight, tried) if feedback else nearest(weight, tried)
            off = error(integers, weight, gram, tried)
            better = off < least
            best[better], least[better] = integers[better], off[better]
            steps[better] = candidate[better]
        if learned:
            best = improved(best, weight, gram, replace(grid, scale=steps))
        return best, steps


def _twin_of(node: ir.Node) -> Layer | str:
    layer = layer_of(node)
    if not isinstance(layer, str) and (inputs := layer.weight().shape[1]) > INPUTS:
        return f"{inputs:,} inputs are too many"
    return layer


def _are_powers(layer: QuantizedLayer) -> bool:
    """Whether all scales are powers of two, and so have to stay some."""
    scales = np.append(layer.scale, layer.input_scale)
    return bool((power_of_two(scales) == scales).all())


def _is_moderate(steps: Array | np.float32) -> bool:
    """Whether squares of what has such ``steps`` keep clear of the limits of float32."""
    return bool(np.min(steps) > 1e-12 and np.max(steps) < 1e12)


def _shrunk(gram: Array, rows: int) -> Array:
    """``gram`` drawn towards its diagonal where few rows tell how inputs go together.

    Few rows leave directions in which nothing seems to matter, and errors would gather there.
    """
    size = len(gram)
    share = size / (size + rows)
    diagonal = np.diag(gram)
    shrunk = (1 - share) * gram
    shrunk[np.diag_indices(size)] = diagonal + (1e-6 * diagonal.mean() or 1.0)
    return np.asarray(shrunk)


def _candidates(weight: Array, grid: Grid, floor: Array, one_step: bool) -> Iterator[Array]:
    """Steps to try, one per output: those there are, those that just hold all, and finer ones."""
    yield grid.scale
    if one_step:
        return
    largest = np.abs(weight).max(axis=1) / WMAX
    largest = np.where(largest > 0, largest, grid.scale)
    first = np.flatnonzero(grid.partner > np.arange(len(grid.partner)))
    sums = np.abs(weight[:, first] + weight[:, grid.partner[first]]).max(axis=1, initial=0.0)
    held = np.maximum(largest, sums / (grid.most - 1))
    yield _float32(np.maximum(held, floor))
    if len(grid.partner) <= MANY:
        for factor in SMALLER:
            yield _float32(np.maximum(factor * largest, floor))


def _float32(steps: Array) -> Array:
    return np.asarray(steps.astype(np.float32).astype(np.float64))


def _floor(layer: QuantizedLayer, moments: Moments, weight: Array) -> Array:
    """The least steps with which the bias fits 32 bits, and its own step is a normal number."""
    source = float(layer.input_scale)
    bias = np.abs(moments.target - moments.input @ weight)
    least = max(SMALLEST_SCALE, TINY32 * 2 / source)
    return np.asarray(np.maximum(bias / (ACCUMULATOR_LIMIT * source), least))


def _unexplained(weight: Array, moments: Moments) -> float:
    bias = moments.target - moments.input @ weight
    variance = float(moments.power.sum())
    return max(moments.error(weight, bias), 0.0) / variance if variance > 0 else 0.0


def _about_zero(moments: Moments) -> Moments:
    """The same rows with sums about zero: for a layer that has no bias to fit."""
    a, y, rows = moments.input, moments.target, moments.rows
    across = rows * a.swapaxes(1, 2)
    return Moments(
        rows,
        np.zeros_like(a),
        np.zeros_like(y),
        moments.gram + across @ a,
        moments.cross + across @ y,
        moments.power + rows * y * y,
    )
