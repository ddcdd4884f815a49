"""What an output is computed from, and what follows for how it can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ...passes.graph import is_op, subgraphs_of
from ...passes.lossless.constants import resolved_constant

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
    | {"Multinomial", "Bernoulli", "Sampling"}
)
"""Operators that answer differently each time (``Sampling`` is ONNX Runtime's)."""

DROPOUTS = {"Dropout": 2, "BiasDropout": 4, "BitmaskDropout": 2, "BitmaskBiasDropout": 4}
"""Operators that are random only in training mode, and the input that says so."""

BOUNDED = frozenset({"Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Softsign", "Erf"})
"""Activations whose values lie within -1 and 1 and are rounded there, however small they are."""

_SQUASHING = ("Sigmoid", "Softmax", "Tanh")

_COUNTING = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress", "StringSplit"})

_MOVED = frozenset(
    {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Slice"}
    | {"Gather", "Split", "Expand", "Tile", "Concat", "Mul", "Max", "Min", "Where", "Pad"}
)


def upstream(model: ir.Model, value: ir.Value) -> Iterator[ir.Node]:
    """Every node that ``value`` is computed from, those in subgraphs and functions included."""
    pending, seen = [value], set[ir.Node]()
    while pending:
        node = pending.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        for inner in (node, *_inside(model, node)):
            yield inner
            pending.extend(source for source in inner.inputs if source is not None)


def _inside(model: ir.Model, node: ir.Node) -> Iterator[ir.Node]:
    graphs: list[ir.Graph | ir.Function] = list(subgraphs_of(node))
    if (function := model.functions.get(node.op_identifier())) is not None:
        graphs.append(function)
    for graph in graphs:
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            yield inner
            if inner.op_identifier() in model.functions:
                yield from _inside(model, inner)


def randomness(model: ir.Model, output: ir.Value) -> str:
    """What makes ``output`` differ from run to run; empty if nothing does."""
    for node in upstream(model, output):
        if node.op_type in RANDOM:
            return f"it depends on {node.op_type} ({node.name or node.outputs[0].name}), drawn anew"
        if node.op_type in DROPOUTS and _in_training(node):
            return f"it depends on {node.op_type} ({node.name or node.outputs[0].name}) in training"
    return ""


def counts_data(model: ir.Model, output: ir.Value) -> bool:
    """Whether the shape of ``output`` may depend on the values that are fed."""
    return any(node.op_type in _COUNTING for node in upstream(model, output))


def _in_training(node: ir.Node) -> bool:
    index = DROPOUTS[node.op_type]
    mode = node.inputs[index] if len(node.inputs) > index else None
    if mode is None:
        return False
    known = resolved_constant(mode)
    return known is None or bool(np.any(known))


def is_bounded(model: ir.Model, value: ir.Value) -> bool:
    """Whether ``value`` holds results of a bounded activation, perhaps among other things."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None:
            continue
        if is_op(node, *BOUNDED):
            return True
        sources: Sequence[ir.Value | None] = node.inputs if is_op(node, *_MOVED) else ()
        if is_op(node, "If", "Loop"):
            sources = [inner for graph in subgraphs_of(node) for inner in graph.outputs]
        if (function := model.functions.get(node.op_identifier())) is not None:
            sources = function.outputs
        for source in sources:
            if source is not None and source not in seen:
                seen.add(source)
                pending.append(source)
    return False


def before_saturation(model: ir.Model) -> dict[tuple[str, str], tuple[ir.Node, ir.Value]]:
    """The activations that squash an output or one input of the ``Concat`` it is, and their input.

    A ``Sigmoid`` that answers 1e-9 everywhere says little; its input says all. The keys are the
    output and the way to the activation, so that those of two models can be told to correspond:
    where outputs agree and the way is the same, what is squashed has to agree, too.
    """
    found: dict[tuple[str, str], tuple[ir.Node, ir.Value]] = {}
    pending = [(value.name or "", "", value) for value in model.graph.outputs]
    while pending:
        output, way, value = pending.pop()
        node = value.producer()
        if node is None or not is_op(node, "Identity", "Cast", "Concat", *_SQUASHING):
            continue
        sources = [source for source in node.inputs if source is not None]
        if is_op(node, *_SQUASHING):
            if sources[0].producer() is not None:
                found[output, f"before {node.op_type}{way}"] = (node, sources[0])
        elif is_op(node, "Concat"):
            label = f"{way} in part {{}} of {len(sources)}"
            pending += [(output, label.format(at + 1), one) for at, one in enumerate(sources)]
        else:
            pending.append((output, way, sources[0]))
    return found
