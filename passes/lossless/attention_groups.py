"""Attention in which several heads of queries share the keys and values of one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..analysis.partial import Item
from ..analysis.values import Facts
from ..graph import graph_of, is_op
from .attention_heads import scaled, step_back


@dataclass(frozen=True)
class Groups:
    """Queries, keys and values with heads before lengths: ``[batch, heads, length, size]``.

    Attributes:
        q: The queries, with as many heads as there are.
        k: The keys, with fewer heads, each for as many heads of queries in a row.
        v: The values, with as many heads as keys.
        scale: What products of queries and keys are multiplied by on their way.
        sizes: The sizes of the scores: batch, heads, queries, keys.
    """

    q: ir.Value
    k: ir.Value
    v: ir.Value
    scale: float
    sizes: tuple[Item, Item, Item, Item]


def match_groups(
    queries: ir.Value, keys: ir.Value, values: ir.Value, graph: ir.Graph, facts: Facts
) -> Groups | None:
    """What is multiplied, if the heads of keys and values are repeated before."""
    key, value = _repeated(keys, "BHDL", graph, facts), _repeated(values, "BHLD", graph, facts)
    if key is None or value is None:
        return None
    scale = key[1]
    while (node := queries.producer()) is not None and node.graph is graph:
        if (found := scaled(node, facts)) is None:
            break
        queries, scale = found[0], scale * found[1]
    q, k, v, repeated = (facts.dims(one) for one in (queries, key[0], value[0], values))
    if q is None or k is None or v is None or repeated is None or len(q) != 4 or value[1] != 1:
        return None
    batch, heads, length, _ = q
    # Queries are as wide as keys, and values as many: what is multiplied has to fit.
    if batch != k[0] or v[:2] != k[:2] or heads != repeated[1]:
        return None
    return Groups(queries, key[0], value[0], scale, (batch, heads, length, k[2]))


def _repeated(
    value: ir.Value, axes: str, graph: ir.Graph, facts: Facts
) -> tuple[ir.Value, float] | None:
    """What ``value`` repeats the heads of, and a factor on the way."""
    scale = 1.0
    while True:
        if axes == "BHLD" and (source := _before_repetition(value, facts)) is not None:
            return source, scale
        node = value.producer()
        if node is None or graph_of(node) is not graph:
            return None
        step = step_back(node, value, axes, facts)
        if step is None or len(step[1]) != 4:
            return None
        value, axes, factor, _ = step
        scale *= factor


def _before_repetition(value: ir.Value, facts: Facts) -> ir.Value | None:
    """``[batch, groups, length, size]`` of which each group is there several times in a row."""
    row = [value]
    for operators in (("Reshape",), ("Expand",), ("Unsqueeze", "Reshape")):
        node = row[-1].producer()
        if not is_op(node, *operators) or (source := node.inputs[0]) is None:
            return None
        row.append(source)
    after, many, one, before = (facts.dims(each) for each in row)
    if before is None or many is None or len(before) != 4 or len(many) != 5:
        return None
    batch, groups, length, size = before
    times = many[2]
    if not (isinstance(groups, int) and isinstance(times, int)):
        return None
    fits = one == (batch, groups, 1, length, size) and many == (batch, groups, times, length, size)
    return row[-1] if fits and after == (batch, groups * times, length, size) else None
