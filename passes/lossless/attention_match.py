"""Finding decomposed attention in a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..analysis.partial import Item
from ..analysis.values import Facts
from ..graph import feeds_only, graph_of, is_op
from .attention_groups import Groups, match_groups
from .attention_heads import Heads, scaled, trace
from .attention_masks import ABSORBING, fits, values_of
from .constants import resolved_constant


@dataclass(frozen=True)
class Mask:
    """What is added to the scores.

    Attributes:
        value: It, in any shape that broadcasts to the scores.
        has_rows: It has a row for each query; if not, it has one for all.
        clamped: It may hold numbers so low that they have to be raised.
    """

    value: ir.Value
    has_rows: bool
    clamped: bool


@dataclass(frozen=True)
class Core:
    """An attention from its queries, keys and values to its answer.

    Attributes:
        softmax: The node by which it is named.
        product: The ``MatMul`` of weights and values.
        answer: What it answers, ``[batch, length, heads, size]``.
        joins: The nodes that put the heads of ``answer`` side by side, and do nothing else.
        shapes: Nodes that ask for the shape of ``[batch, heads, length, size]``.
        q: The queries.
        k: The keys.
        v: The values.
        scale: What the products of queries and keys are multiplied by.
        mask: What is added to them then.
    """

    softmax: ir.Node
    product: ir.Node
    answer: ir.Value
    joins: tuple[ir.Node, ...]
    shapes: tuple[ir.Node, ...]
    q: Heads
    k: Heads
    v: Heads
    scale: float
    mask: Mask | None


@dataclass(frozen=True)
class GroupedCore:
    """An attention of grouped heads, with heads before lengths, in the place of a product.

    Attributes:
        softmax: The node by which it is named.
        product: The ``MatMul`` of weights and values.
        groups: What is multiplied.
        scale: What the products of queries and keys are multiplied by.
        mask: What is added to them then.
    """

    softmax: ir.Node
    product: ir.Node
    groups: Groups
    scale: float
    mask: Mask | None


def match_attention(softmax: ir.Node, facts: Facts) -> Core | GroupedCore | str:
    """The attention around ``softmax``, why it has to stay as it is, or an empty string.

    The string is empty for what is no attention.
    """
    graph = graph_of(softmax)
    weights, guarded = _weights(softmax)
    product = _only_reader(weights)
    if (
        not is_op(product, "MatMul")
        or product.inputs[0] is not weights
        or product.graph is not graph
    ):
        return ""
    scores, dims = _scores(softmax, facts), facts.dims(weights)
    if scores is None or not _is_over_last(softmax, dims):
        return ""
    if facts.dtype(weights) != ir.DataType.FLOAT:
        return "it does not compute in float32"
    if product.inputs[1] is None or dims is None or len(dims) != 4:
        return "the sizes of its scores are not known" if dims is None else ""
    grouped = match_groups(*scores.factors, product.inputs[1], graph, facts)
    if grouped is not None:
        return _grouped(softmax, product, scores, grouped, guarded, facts)
    if (merged := _merge(product.outputs[0], facts)) is None:
        return "its heads are not put side by side after it"
    traced = [
        trace(value, axes, graph, facts)
        for value, axes in zip((*scores.factors, product.inputs[1]), _AXES, strict=True)
    ]
    for part, what in zip(traced, ("queries", "keys", "values"), strict=True):
        if isinstance(part, str):
            return f"{part} ({what})"
    q, k, v = (part for part in traced if isinstance(part, Heads))
    if why := _disagreement(q, k, v):
        return why
    scale = scores.scale * q.scale * k.scale
    if v.scale != 1 or not 0 < scale < math.inf:
        return _NO_SCALE
    mask = _mask(scores, (q.batch, q.heads, q.length, k.length), guarded, facts)
    if isinstance(mask, str):
        return mask
    merge, shapes = merged
    answer = merge.outputs[0]
    width = q.batch, q.length, q.heads * v.size
    joins = tuple(
        use.node
        for use in answer.uses()
        if is_op(use.node, "Reshape")
        and use.node.graph is graph
        and facts.dims(use.node.outputs[0]) == width
    )
    return Core(softmax, product, answer, joins, tuple(shapes), q, k, v, scale, mask)


def _grouped(
    softmax: ir.Node,
    product: ir.Node,
    scores: _Scores,
    groups: Groups,
    guarded: bool,
    facts: Facts,
) -> GroupedCore | str:
    scale = scores.scale * groups.scale
    if not 0 < scale < math.inf:
        return _NO_SCALE
    mask = _mask(scores, groups.sizes, guarded, facts)
    return mask if isinstance(mask, str) else GroupedCore(softmax, product, groups, scale, mask)


_NO_SCALE = "its scale is not positive, or values are scaled as well"
_AXES = ("BHLD", "BHDL", "BHLD")


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _weights(softmax: ir.Node) -> tuple[ir.Value, bool]:
    """The weights, and whether those of a row that is not a number become zeros."""
    weights = softmax.outputs[0]
    readers = list(weights.uses())
    if weights.is_graph_output() or len(readers) != 2:
        return weights, False
    for use in readers:
        zeros = use.node
        if not is_op(zeros, "Where") or use.idx != 2 or zeros.graph is not softmax.graph:
            continue
        condition, zero = zeros.inputs[0], resolved_constant(zeros.inputs[1])
        test = None if condition is None else condition.producer()
        is_nan = is_op(test, "IsNaN") and test.inputs[0] is weights
        if is_nan and zero is not None and zero.size == 1 and not zero.any() and zero.ndim <= 4:
            alone = condition is not None and feeds_only(condition, zeros)
            return (zeros.outputs[0], True) if alone else (weights, False)
    return weights, False


def _is_over_last(softmax: ir.Node, dims: tuple[int | str, ...] | None) -> bool:
    version = graph_of(softmax).opset_imports.get("", 0)
    default = -1 if version >= 13 or version == 0 else 1
    axis = softmax.attributes.get_int("axis", default)
    return axis == -1 or (dims is not None and axis == len(dims) - 1)


@dataclass(frozen=True)
class _Scores:
    """``scale * factors[0] @ factors[1] + mask``."""

    factors: tuple[ir.Value, ir.Value]
    scale: float
    mask: ir.Value | None


def _scores(softmax: ir.Node, facts: Facts) -> _Scores | None:
    """What ``softmax`` is of, if nothing in between is read elsewhere."""
    scores = softmax.inputs[0]
    if scores is None or not feeds_only(scores, softmax):
        return None
    found = _product(scores, softmax.graph, facts)
    if found is not None:
        return found
    add = scores.producer()
    if not is_op(add, "Add") or add.graph is not softmax.graph:
        return None
    for index in (0, 1):
        side, mask = add.inputs[index], add.inputs[1 - index]
        if side is None or mask is None or not feeds_only(side, add):
            continue
        found = _product(side, softmax.graph, facts)
        if found is not None and len(facts.dims(mask) or ()) <= 4:
            return replace(found, mask=mask)
    return None


def _product(value: ir.Value, graph: ir.Graph | None, facts: Facts) -> _Scores | None:
    """``value`` as a multiple of a product of two tensors."""
    scale = 1.0
    node = value.producer()
    while node is not None and node.graph is graph:
        if is_op(node, "MatMul"):
            one, other = node.inputs
            return None if one is None or other is None else _Scores((one, other), scale, None)
        found = scaled(node, facts)
        if found is None or not feeds_only(found[0], node):
            return None
        scale *= found[1]
        node = found[0].producer()
    return None


def _merge(product: ir.Value, facts: Facts) -> tuple[ir.Node, list[ir.Node]] | None:
    """The transpose that brings the heads of ``product`` side by side, and readers of its shape.

    A reshape to the same shape may stand between.
    """
    shapes: list[ir.Node] = []
    graph = None if (node := product.producer()) is None else node.graph
    while True:
        nodes = [use.node for use in product.uses()]
        shapes += (node for node in nodes if is_op(node, "Shape"))
        others = [node for node in nodes if not is_op(node, "Shape")]
        if product.is_graph_output() or len(others) != 1:
            return None
        node, dims = others[0], facts.dims(product)
        if not is_op(node, "Reshape") or dims is None or dims != facts.dims(node.outputs[0]):
            break
        product = node.outputs[0]
    if not is_op(node, "Transpose") or node.graph is not graph:
        return None
    if tuple(node.attributes.get_ints("perm", ())) != (0, 2, 1, 3):
        return None
    return (node, shapes) if all(shape.graph is graph for shape in shapes) else None


def _disagreement(q: Heads, k: Heads, v: Heads) -> str:
    """Why queries, keys and values do not make one attention."""
    if not q.batch == k.batch == v.batch:
        return "its queries, keys and values are not known to have one batch size"
    if not q.heads == k.heads == v.heads:
        return "its queries, keys and values do not have equally many heads"
    return ""  # that queries are as wide as keys, and values as many, the products demand


def _mask(
    scores: _Scores, sizes: tuple[Item, Item, Item, Item], guarded: bool, facts: Facts
) -> Mask | str | None:
    """The mask of scores of ``sizes``, or why it cannot be one of the operator."""
    if (value := scores.mask) is None:
        return None
    has_rows = fits(value, sizes, facts)
    if isinstance(has_rows, str):
        return has_rows
    held = values_of(value, facts)
    if held is None:
        return "how low the values of its mask are is not known"
    low = held.lowest < ABSORBING
    if held.whole_rows and not guarded:
        return "where its mask hides everything the answer is not a number"
    if held.infinite and low:
        return "its mask holds both negative infinity and the lowest number"
    return Mask(value, has_rows, low)
