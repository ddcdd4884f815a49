"""What a quantized model answers on a CPU whose kernels add pairs of products in 16 bits.

The model runs with ONNX Runtime's optimizations off, which is what exact kernels answer up to a
step. What saturation takes away is added: for each pair of weights that can overflow,
``sat16(a0*w0 + a1*w1) - (a0*w0 + a1*w1)``, summed up in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from ...backends.base import Array, Feeds, SessionConfig
from ...backends.targets import Target
from ..base import Context
from ..graph import Names, constant, graph_of, is_op
from .arithmetic import INT16_MAX
from .groups import find_groups
from .qdq import dequantize_of
from .saturation import as_rows, largest_sum

INT16_MIN = -INT16_MAX - 1


@dataclass(frozen=True)
class _Layer:
    """An operator that can overflow.

    ``rows`` are its weights as ``[channels, K]``, ``lowest`` is the least activation of its type:
    kernels shift signed ones to 0 to 255. ``sizes`` are those of a ``Conv``'s kernel.
    """

    node: ir.Node
    rows: Array
    scale: np.float32
    zero_point: int
    lowest: int
    weight_scale: Array
    sizes: tuple[int, ...]

    @property
    def source(self) -> str:
        """The name of the activation."""
        value = self.node.inputs[0]
        return value.name or "" if value is not None else ""


def answers_on(
    model: ir.Model, feeds: Feeds, target: Target, context: Context | None = None
) -> dict[str, Array]:
    """The answers of the Q/DQ model ``model`` with the 8-bit kernels of ``target``, in NumPy.

    On a CPU with exact kernels those are the answers of the simulation. Layers in subgraphs and
    stacks of matrices are taken to be exact.

    Raises:
        BackendError: ONNX Runtime cannot run the model.
    """
    sessions = (context or Context()).sessions
    clone = model.clone()
    outputs = [value.name or "" for value in clone.graph.outputs]
    layers = list(_overflowing(clone, target))
    missing = [_make_room(clone, layer) for layer in layers]
    asked = list(dict.fromkeys((*outputs, *(layer.source for layer in layers))))
    session = sessions(clone, SessionConfig(level="disabled"), asked)
    fed = dict(feeds) | dict.fromkeys(missing, np.zeros(1, np.float32))
    answers = session.run(fed)
    for layer, name in zip(layers, missing, strict=True):
        fed[name] = _taken_away(layer, answers[layer.source])
        answers = session.run(fed)
    return {name: answers[name] for name in outputs}


def _overflowing(model: ir.Model, target: Target) -> Iterator[_Layer]:
    for group in find_groups(model, target):
        node = group.node
        if not group.saturating or node.graph is not model.graph:
            continue
        source, weights = (dequantize_of(value) for value in node.inputs[:2])
        if source is None or weights is None:
            continue
        weight, parameters = constant(weights.inputs[0]), [constant(v) for v in source.inputs[1:3]]
        weight_scale = constant(weights.inputs[1])
        if weight is None or weight_scale is None or parameters[0] is None:
            continue
        axis = None if weight.ndim > 2 else 1
        if is_op(node, "Conv") or node.attributes.get_int("transB", False):
            axis = 0
        rows = as_rows(node, weight, axis)
        if rows is None or rows.shape[1] > 1:
            continue
        zero = parameters[1] if parameters[1:] and parameters[1] is not None else np.uint8(0)
        factor = np.float32(node.attributes.get_float("alpha", 1.0))
        scales = np.broadcast_to(weight_scale * factor, rows.shape[:1])
        yield _Layer(
            node, rows[:, 0], parameters[0].reshape(-1)[0], int(np.asarray(zero).reshape(-1)[0]),
            int(np.iinfo(np.asarray(zero).dtype).min), scales, weight.shape[2:],
        )  # fmt: skip


def _make_room(model: ir.Model, layer: _Layer) -> str:
    """Let ``model`` add a new input to what ``layer`` gives out."""
    graph, output = graph_of(layer.node), layer.node.outputs[0]
    names = Names(model)
    value = ir.Value(name=names.fresh(f"{output.name}.saturation"))
    value.type = ir.TensorType(ir.DataType.FLOAT)
    add = ir.node("Add", [None, value])
    new = add.outputs[0]
    new.type, new.name = output.type, names.fresh(f"{output.name}.saturated")
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name, output.name = output.name, new.name
    add.replace_input_with(0, output)
    graph.insert_after(layer.node, add)
    graph.inputs.append(value)
    return value.name or ""


def _taken_away(layer: _Layer, x: Array) -> Array:
    """What saturation adds to the float output of ``layer``, given its float input ``x``."""
    steps = np.rint(x / layer.scale).astype(np.int32) + layer.zero_point - layer.lowest
    steps = np.clip(steps, 0, 255)
    if is_op(layer.node, "Conv"):
        groups = _windows(layer, steps)
    else:
        transposed = layer.node.attributes.get_int("transA", 0)
        groups = [_Elements(steps.T if transposed else steps)]
    even = layer.rows.shape[1] // 2 * 2
    first, second = (layer.rows[:, start:even:2].astype(np.int32) for start in (0, 1))
    bad = np.abs(first + second) > largest_sum()
    per_group = len(layer.rows) // len(groups)
    lost = []
    for channel, (w0, w1) in enumerate(zip(first, second, strict=True)):
        elements = groups[channel // per_group]
        total = np.zeros(elements.at(0).shape, np.int64)
        for pair in np.flatnonzero(bad[channel]).tolist():
            summed = elements.at(2 * pair) * w0[pair] + elements.at(2 * pair + 1) * w1[pair]
            total += np.clip(summed, INT16_MIN, INT16_MAX) - summed
        lost.append(total * (np.float64(layer.scale) * np.float64(layer.weight_scale[channel])))
    axis = 1 if is_op(layer.node, "Conv") else -1
    return np.stack(lost, axis=axis).astype(np.float32)


@dataclass(frozen=True)
class _Elements:
    """The activations that the elements of K meet, ``[batch, *output]`` each.

    For ``Conv`` K runs over the positions within the kernel first (``starts``), and over the
    channels of the group within each.
    """

    steps: Array
    starts: Sequence[tuple[slice, ...]] = ()

    def at(self, index: int) -> Array:
        """The activations that element ``index`` meets."""
        if not self.starts:
            return np.asarray(self.steps[..., index])
        position, channel = divmod(index, self.steps.shape[1])
        return np.asarray(self.steps[(slice(None), channel, *self.starts[position])])


def _windows(layer: _Layer, steps: Array) -> list[_Elements]:
    """One view of ``steps`` for each group of channels; padding holds the zero point."""
    attributes, rank = layer.node.attributes, steps.ndim - 2
    sizes = layer.sizes
    strides = list(attributes.get_ints("strides", [1] * rank))
    dilations = list(attributes.get_ints("dilations", [1] * rank))
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    pads = _pads(layer.node, steps.shape[2:], reach, strides)
    padded = np.pad(steps, [(0, 0), (0, 0), *pads], constant_values=layer.zero_point - layer.lowest)
    out = [
        (size - far) // stride + 1
        for size, far, stride in zip(padded.shape[2:], reach, strides, strict=True)
    ]
    starts = [
        tuple(
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, count, stride in zip(place, dilations, out, strides, strict=True)
        )
        for place in product(*map(range, sizes))
    ]
    groups = attributes.get_int("group", 1)
    return [_Elements(part, starts) for part in np.split(padded, groups, axis=1)]


def _pads(
    node: ir.Node, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        needed = [
            max((-(-size // stride) - 1) * stride + far - size, 0)
            for size, far, stride in zip(sizes, reach, strides, strict=True)
        ]
        upper = mode == "SAME_UPPER"
        return [(n // 2, n - n // 2) if upper else (n - n // 2, n // 2) for n in needed]
    pads = list(node.attributes.get_ints("pads", [0] * 2 * len(sizes)))
    pads = [0] * len(pads) if mode == "VALID" else pads
    return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
