"""Weights that large activations meet, made large before they are rounded.

Lin et al. 2024, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration":
for a layer ``x W`` and any ``s_i > 0``, ``x W = (x / s) (s W)``. Where inputs are large ``s_i`` is
large too, and then what rounding does to ``s_i W_i`` counts less. ``s_i = rms(x_i)^strength``, with
the strength that leaves least of ``|x (W' - W)|^2``, ``W'`` being ``W`` after rounding, which the
Gram matrix of ``x`` tells. ``s`` is rounded to powers of two, so that nothing but rounding changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import onnx_ir as ir

from ..base import Array, Context
from ..graph import Names, add_initializer, constant, graph_of, is_op
from .channel_scales import Side, along, makes, move, powers_of_two, reads
from .grams import with_grams
from .smooth import normalized
from .weight_layers import Layer

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

WORTH = 0.9
"""A ``Mul`` is put in front of layers if that leaves no more than this of their squared error."""

Rounded = Callable[[Array], Array]
"""What is left of rows ``[output, input]`` after rounding."""


@dataclass
class Scaled:
    """How many tensors were divided: by what computes them, or by a ``Mul`` of their own."""

    migrated: int = 0
    multiplied: int = 0


def scale_by_activations(
    model: ir.Model, layers: Sequence[Layer], rounded: Rounded, context: Context, samples: int
) -> Scaled:
    """Scale the inputs of ``layers`` and what computes them, where that makes rounding better.

    Factors go into constants of what computes a tensor: a normalization, a layer with its bias, one
    factor of a product, the values of an attention. Where that is not possible, because something
    else reads the tensor as well, a ``Mul`` divides it for the layers.

    Args:
        model: Changed in place; its answers are the same as before.
        layers: Those whose weights are to be rounded.
        rounded: Rounds weights as they will be.
        context: Has samples, and runs the model.
        samples: How many samples to read; 0 for all.

    Raises:
        DataError: There are no samples.
        BackendError: The model does not run on the samples.
    """
    single = [layer for layer in layers if _own_weight(layer)]
    found = [
        (group, gram)
        for group, gram in _by_source(with_grams(model, single, context, samples))
        if np.isfinite(gram).all() and np.diag(gram).any()
    ]
    scaled, names = Scaled(), Names(model)
    before = dict(normalized(model.graph))
    for group, gram in found:
        factors, share = _best(group, gram, rounded)
        if factors is None:
            continue
        value = group[0].node.inputs[0]
        readers = [side for layer in group if (side := reads(layer.node)) is not None]
        if value is None or len(readers) < len(group):
            continue
        alone = not value.is_graph_output() and len(value.uses()) == len(group)
        sources = before.get(value) or _sources(value) if alone else None
        if sources and all(len(side.view(side.array)) == factors.size for side in sources):
            scaled.migrated += move(sources, readers, factors, names)
        elif share <= WORTH and _divide(value, readers, factors, names):
            scaled.multiplied += 1
    return scaled


def _own_weight(layer: Layer) -> bool:
    return not layer.is_table and layer.factor == 1 and len(layer.weight.uses()) == 1


def _by_source(
    grams: Iterator[tuple[Layer, Array | None]],
) -> Iterator[tuple[list[Layer], Array]]:
    for _, pairs in groupby(grams, key=lambda pair: id(pair[0].node.inputs[0])):
        known = [(layer, gram) for layer, gram in pairs if gram is not None]
        if known:
            yield [layer for layer, _ in known], known[0][1]


def _best(group: Sequence[Layer], gram: Array, rounded: Rounded) -> tuple[Array | None, float]:
    """The best factors, if any are better than none, and the share of the error that they leave."""
    size = np.sqrt(np.diag(gram))
    middle = np.exp(np.log(size[size > 0]).mean())
    size = np.where(size > 0, size / middle, 1.0)
    rows = [layer.rows().astype(np.float32) for layer in group]
    plain, least, best = np.inf, np.inf, None
    for strength in STRENGTHS:
        factors = powers_of_two(size**strength)
        if strength and (factors == 1).all():
            continue
        error = 0.0
        for weight in rows:
            off = rounded(weight * factors.astype(np.float32)) / factors - weight
            error += float(((off @ gram) * off).sum())
        if strength == 0:
            plain = least = error
        elif error < least:
            least, best = error, factors
    return best, least / plain if plain > 0 else 1.0


def _sources(value: ir.Value) -> list[Side] | None:
    """The constants that make ``value``, each read by nothing else on the way, by channel."""
    biases: list[Side] = []
    while (node := value.producer()) is not None and node.graph is value.graph:
        found = makes(node) if is_op(node, "MatMul", "Gemm") else None
        if found is not None:
            return [*found, *biases]
        following = _channelwise(node, biases)
        if following is None or len(following.uses()) != 1 or following.is_graph_output():
            return None
        value = following
    return None


def _channelwise(node: ir.Node, biases: list[Side]) -> ir.Value | None:
    """What ``node`` multiplies channel by channel, or adds a constant to, which ``biases`` gets."""
    if is_op(node, "Attention"):
        heads = [node.attributes.get_int(f"{one}_num_heads", 0) for one in ("q", "kv")]
        return node.inputs[2] if heads[0] == heads[1] > 0 and len(node.outputs) == 1 else None
    if is_op(node, "Add"):
        for index in (0, 1):
            bias = constant(node.inputs[index])
            if bias is not None and bias.ndim == 1 and bias.size > 1:
                biases.append(Side(node, index, *along(0)))
                return node.inputs[1 - index]
    if is_op(node, "Mul"):
        for index in (0, 1):
            one = node.inputs[index]
            if one is not None and is_op(one.producer(), "MatMul", "Gemm", "Add"):
                return one
    return None


def _divide(value: ir.Value, readers: Sequence[Side], factors: Array, names: Names) -> bool:
    """Put a ``Mul`` between ``value`` and ``readers``, if their weights can be scaled exactly."""
    new = [side.times(factors) for side in readers]
    if any(array is None for array in new):
        return False
    first = readers[0].node
    home = first.graph
    if not isinstance(home, ir.Graph):
        return False
    inverse = (1 / factors).astype(readers[0].array.dtype)
    by = add_initializer(home, names.fresh(f"{value.name}.factors"), inverse)
    mul = ir.node("Mul", [value, by])
    mul.outputs[0].name = names.fresh(f"{value.name}.scaled")
    mul.outputs[0].type, mul.outputs[0].shape = value.type, value.shape
    producer = value.producer()
    if producer is not None and producer.graph is home:
        graph_of(producer).insert_after(producer, mul)
    else:
        home.insert_before(home[0], mul)
    for side, array in zip(readers, new, strict=True):
        side.node.replace_input_with(0, mul.outputs[0])
        if array is not None:
            side.store(array, names)
    return True
