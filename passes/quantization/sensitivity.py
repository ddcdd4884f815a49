"""How much each quantized layer, by itself, disturbs the answers; all in one reading of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.base import SessionConfig
from ...backends.data import Data
from ...backends.errors import DataError
from ..analysis.fidelity import Fidelity
from ..base import Array, Context
from ..graph import Names, add_initializer
from .emit import FLOAT, ORIGIN
from .observers import batches_of
from .quantized import QuantizedLayer, float_twin, quantized_layers


@dataclass(frozen=True)
class Sensitivity:
    """One layer: the tensor that it computes in the float model, and what rounding it alone costs.

    ``sqnr_db`` is that of all outputs together, each measured by its own power.
    """

    layer: str
    operator: str
    sqnr_db: float


def sensitivities(
    model: ir.Model, context: Context, data: Data, samples: int = 32
) -> list[Sensitivity]:
    """For each quantized layer of ``model``, the noise of the answers if nothing else is quantized.

    One session answers for all layers: it holds both the quantized and the float weight and input
    of each, and is told by a flag which to take. Each batch of samples is read once and run once
    for each layer, by float arithmetic on rounded values.

    Args:
        model: Quantized in this run, so that its layers remember their floats.
        context: Runs the model.
        data: The samples.
        samples: How many samples to read; 0 for all.

    Returns:
        The layers, the one that disturbs most first.

    Raises:
        DataError: There are no samples, or they do not fit the model.
        BackendError: The model does not run.
    """
    layers, _ = quantized_layers(model.graph)
    if not layers:
        return []
    switched, flags = _switched(model, layers)
    session = context.sessions(switched, SessionConfig())
    found = [_Noise() for _ in layers]
    seen = 0
    for feeds, count in batches_of(model, data, samples):
        exact = session.run({**feeds, flags: np.zeros(len(layers), bool)})
        for index, noise in enumerate(found):
            one = np.arange(len(layers)) == index
            noise.add(exact, session.run({**feeds, flags: one}))
        seen += count
        context.progress("weigh layers", seen, samples or None)
    if not seen:
        raise DataError("there is no sample that fits the model")
    rows = [
        Sensitivity(str(layer.weight.outputs[0].meta[ORIGIN]), layer.node.op_type, noise.sqnr_db)
        for layer, noise in zip(layers, found, strict=True)
    ]
    return sorted(rows, key=lambda row: row.sqnr_db)


class _Noise:
    """The fidelity of every output that is made of floats."""

    def __init__(self) -> None:
        self._outputs: dict[str, Fidelity] = {}

    def add(self, exact: dict[str, Array], rounded: dict[str, Array]) -> None:
        for name, answer in exact.items():
            one = rounded[name]
            if answer.dtype.kind == "f" and answer.shape == one.shape:
                self._outputs.setdefault(name, Fidelity()).update(answer, one)

    @property
    def sqnr_db(self) -> float:
        shares = [one.noise / one.signal for one in self._outputs.values() if one.signal > 0]
        noise = float(np.mean(shares)) if shares else 0.0
        return -10 * float(np.log10(noise)) if noise > 0 else float(np.inf)


def _switched(model: ir.Model, layers: Sequence[QuantizedLayer]) -> tuple[ir.Model, str]:
    """The float twin of ``model`` with a choice before each layer, and the input that makes it."""
    quantized = {layer.name: layer for layer in layers}
    twin = float_twin(model)
    graph, names = twin.graph, Names(twin)
    flags = ir.Value(
        name=names.fresh("flags"),
        type=ir.TensorType(ir.DataType.BOOL),
        shape=ir.Shape([len(layers)]),
    )
    graph.inputs.append(flags)
    for node in list(graph):
        layer = quantized.get(node.outputs[0].name or "")
        if layer is None:
            continue
        index = add_initializer(
            graph, names.fresh("index"), np.array(list(quantized).index(layer.name), np.int64)
        )
        flag = ir.node("Gather", [flags, index])
        graph.insert_before(node, flag)
        source = layer.input.producer()
        if source is None:
            continue
        scale, zero_point = (
            add_initializer(graph, names.fresh("parameter"), _constant(value))
            for value in source.inputs[1:3]
        )
        quantize = ir.node("QuantizeLinear", [node.inputs[0], scale, zero_point])
        rounded = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point])
        steps = [quantize, rounded]
        weight = add_initializer(graph, names.fresh("weight"), _dequantized(layer))
        for place, value in ((0, rounded.outputs[0]), (1, weight)):
            choice = ir.node("Where", [flag.outputs[0], value, node.inputs[place]])
            steps.append(choice)
        for step in steps:
            graph.insert_before(node, step)
        node.replace_input_with(0, steps[2].outputs[0])
        node.replace_input_with(1, steps[3].outputs[0])
    return twin, flags.name or ""


def _dequantized(layer: QuantizedLayer) -> Array:
    scale = layer.scale
    if scale.ndim:
        shape = [1] * layer.integers.ndim
        shape[layer.axis] = -1
        scale = scale.reshape(shape)
    exact = np.asarray(layer.weight.outputs[0].meta[FLOAT])
    return (layer.integers.astype(exact.dtype) * scale).astype(exact.dtype)


def _constant(value: ir.Value | None) -> Array:
    tensor = None if value is None else value.const_value
    if tensor is None:
        raise ValueError(f"{value!r} is not constant")
    return tensor.numpy()
