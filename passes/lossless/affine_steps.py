"""Which nodes are affine maps with constant parameters, and the rows they stand in."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ..base import Array, Result
from ..graph import is_op, nodes_in
from .affine import Affine
from .affine_sizes import Sizes
from .constants import resolve, resolved_constant
from .normalizations import inference_map

ARITHMETIC: Final = ("Add", "Sub", "Mul", "Div")
"""Operators that are affine maps where one side is constant."""


@dataclass(frozen=True)
class Chain:
    """Affine maps in a row, each the only reader of the one before, and what they do together."""

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    affine: Affine

    @property
    def output(self) -> ir.Value:
        """What the last of them answers."""
        return self.nodes[-1].outputs[0]

    @property
    def normalizations(self) -> bool:
        """Whether all of them are ``BatchNormalization``."""
        return all(node.op_type == "BatchNormalization" for node in self.nodes)


def chains(model: ir.Model, kinds: Container[str], sizes: Sizes, result: Result) -> Iterator[Chain]:
    """The affine maps of ``model`` among the operators ``kinds``, in rows as long as possible.

    What is nearly one is declined. The model may be rewritten from one chain to the next.
    """
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        seen: set[ir.Node] = set()
        opset = root.opset_imports.get("", 0)
        for node in list(nodes_in(root)):
            if node in seen or node.graph is None or node.op_type not in kinds:
                continue
            if node.domain not in {"", "ai.onnx"}:
                continue
            step = _step(node, opset, sizes)
            if isinstance(step, str):
                result.decline(node, because=step)
            elif step is not None:
                chain = _extended(Chain((node,), *step), kinds, opset, sizes)
                seen.update(chain.nodes)
                yield chain


def _extended(chain: Chain, kinds: Container[str], opset: int, sizes: Sizes) -> Chain:
    while (after := only_reader(chain.output)) is not None:
        last = chain.nodes[-1]
        if not is_op(after, after.op_type) or after.op_type not in kinds:
            break
        if after.graph is not last.graph:
            break
        step = _step(after, opset, sizes)
        if step is None or isinstance(step, str) or step[0] is not chain.output:
            break
        joined = _joined(chain, step[1], sizes)
        if joined is None or not joined.finite:
            break
        chain = Chain((*chain.nodes, after), chain.source, joined)
    return chain


def _joined(chain: Chain, second: Affine, sizes: Sizes) -> Affine | None:
    """Both maps as one, if they hold their channels along the same axis."""
    first = chain.affine
    if not (first.uniform or second.uniform or first.axis == second.axis):
        one, other = (sizes.axis(each, chain.source) for each in (first, second))
        if one is None or one != other:
            return None
        first, second = first.along(one), second.along(one)
    return first.then(second)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads ``value``, once."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _step(node: ir.Node, opset: int, sizes: Sizes) -> tuple[ir.Value, Affine] | str | None:
    """What ``node`` reads and does to it; why it is no such map; ``None`` if it is far from it."""
    if node.op_type != "BatchNormalization":
        return _arithmetic(node, sizes)
    affine, source = inference_map(node, opset), node.inputs[0]
    if isinstance(affine, str) or source is None:
        return str(affine)
    return source, affine


def _arithmetic(node: ir.Node, sizes: Sizes) -> tuple[ir.Value, Affine] | str | None:
    if node.op_type not in ARITHMETIC or node.attributes or len(node.inputs) != 2:
        return None
    arrays = [resolved_constant(value) for value in node.inputs]
    side = 0 if arrays[0] is not None else 1
    array, source = arrays[side], node.inputs[1 - side]
    if array is None or source is None or arrays[1 - side] is not None:
        return None
    tensor = resolve(node.inputs[side])
    if tensor is None or not (dtype := sizes.dtype(tensor)) or not dtype.is_floating_point():
        return None
    if node.op_type == "Div" and side == 0:
        return None
    vector = _vector(array.astype(np.float64), source, sizes)
    if vector is None or isinstance(vector, str):
        return vector
    numbers, axis = vector
    with np.errstate(all="ignore"):
        affine = _map(node.op_type, side, numbers, axis)
    return (source, affine) if affine.finite else "its constant is not finite or divides by zero"


def _map(kind: str, side: int, numbers: Array, axis: int) -> Affine:
    one, zero = np.ones_like(numbers), np.zeros_like(numbers)
    if kind == "Add":
        return Affine(one, numbers, axis)
    if kind == "Sub":
        return Affine(-one, numbers, axis) if side == 0 else Affine(one, -numbers, axis)
    return Affine(1 / numbers if kind == "Div" else numbers, zero, axis)


def _vector(array: Array, source: ir.Value, sizes: Sizes) -> tuple[Array, int] | str | None:
    """``array``, which meets ``source``, as numbers along one axis of it."""
    if array.size == 0:
        return None
    if array.ndim == 0:
        return array.reshape(1), -1
    varying = [axis for axis, size in enumerate(array.shape) if size > 1]
    if len(varying) > 1:
        return None
    least = sizes.least_rank(source)
    if least is None or least < array.ndim:
        known = sizes.rank(source) is not None
        return None if known else "what it reads is not known to have as many axes as its constant"
    if not varying:
        return array.reshape(1), -1
    axis = varying[0] - array.ndim
    if sizes.size(source, axis) != array.size:
        return "what it reads is not known to have a channel for each number of its constant"
    axis = axis if (rank := sizes.rank(source)) is None else axis + rank
    return array.reshape(-1), axis
