"""Multiply-accumulates, counted from shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ...backends.errors import ModelError
from ...backends.feeds import dynamic_dims, plan_sizes, shape_at
from ...backends.guess import fed_inputs
from ..graph import graphs_of, nodes_in, subgraphs_of
from .shapes import annotate_shapes
from .values import Facts


def macs(model: ir.Model, dims: Mapping[str, int] | None = None) -> int | None:
    """The multiply-accumulates of one run of ``model``.

    Counted are convolutions, matrix products, recurrent layers, attention and ``Einsum``: what
    publications count. Of the branches of an ``If`` the dearer one counts. The body of a ``Loop``
    counts once, because how often it runs is not known; that of a ``Scan`` as often as it runs.

    Args:
        model: The model; it is not changed.
        dims: Sizes of dynamic dimensions by their names in :mod:`~onnxpress.backends.feeds`; the
            others have the size that made-up inputs start with, which is 1 for a batch.

    Returns:
        The count, or ``None`` where an operator that counts has a shape that does not follow from
        those of the inputs, or shapes cannot be inferred at all.
    """
    try:
        known = graph_macs(with_fixed_shapes(model, dims).graph)
        # ONNX follows the bodies of loops as well, but takes far longer.
        return graph_macs(sized(model, dims, inline=True).graph) if known is None else known
    except ModelError:
        return None


def with_fixed_shapes(model: ir.Model, dims: Mapping[str, int] | None = None) -> ir.Model:
    """As :func:`sized` with functions inlined, and much faster: without what ONNX infers.

    Raises:
        ModelError: Functions cannot be inlined.
    """
    clone = _fed(model, dims, inline=True, believed=False)
    _fill_gaps(clone)
    return clone


def sized(
    model: ir.Model, dims: Mapping[str, int] | None = None, *, inline: bool = False
) -> ir.Model:
    """A clone of ``model`` with fixed shapes: ``dims``, and a first guess for the others.

    Args:
        model: The model; it is not changed.
        dims: Sizes of dynamic dimensions by their names in :mod:`~onnxpress.backends.feeds`; the
            others have the size that made-up inputs start with. Those that no input has are
            ignored.
        inline: Whether bodies of functions take the place of their calls.

    Raises:
        ModelError: Shapes cannot be inferred at all, or functions cannot be inlined.
    """
    clone = _fed(model, dims, inline=inline)
    annotate_shapes(clone)
    _fill_gaps(clone)
    return clone


def _fed(
    model: ir.Model, dims: Mapping[str, int] | None, *, inline: bool, believed: bool = True
) -> ir.Model:
    """A clone of ``model`` with fixed shapes for inputs, and in place of what it says of others.

    What it says of others is left out where it is not ``believed``.

    Raises:
        ModelError: Functions cannot be inlined.
    """
    clone = model.clone()
    sizes = dict(dims or {})
    if all(isinstance(value.type, ir.TensorType) for value in fed_inputs(clone)):
        sizes = _first_sizes(clone, sizes)
        for value in fed_inputs(clone):
            if value.shape is not None:
                value.shape = ir.Shape(shape_at(value, sizes))
    for graph in graphs_of(clone):
        for value in graph.inputs:
            value.shape = _fixed(value.shape, sizes)
        for node in graph:
            for output in node.outputs:
                output.shape = _fixed(output.shape, sizes) if believed else None
    if inline and clone.functions:
        _inline(clone)
    return clone


def _fill_gaps(model: ir.Model) -> None:
    """Give values whose shape ONNX did not infer the one that follows from computed targets."""
    facts = Facts(model)
    facts.follow_all()
    for node in nodes_in(model.graph):
        for output in node.outputs:
            known = output.shape is not None and output.shape.is_static()
            dims = None if known else facts.dims(output)
            if dims is not None and all(isinstance(dim, int) for dim in dims):
                output.shape = ir.Shape(int(str(dim)) for dim in dims)


def _first_sizes(model: ir.Model, dims: Mapping[str, int]) -> dict[str, int]:
    """A size for every dynamic dimension of an input, all of them tensors."""
    known = {dim.name for dim in dynamic_dims(model)}
    return plan_sizes(model, {name: dims[name] for name in known & dims.keys()})[0]


def _inline(model: ir.Model) -> None:
    """Inline all functions. Those of other opsets too: no count depends on the version."""
    for function in model.functions.values():
        for domain in function.opset_imports.keys() & model.opset_imports.keys():
            function.opset_imports[domain] = model.opset_imports[domain]
    try:
        InlinePass()(model)
    except (ValueError, ir.passes.PassError) as error:
        raise ModelError(f"the model's functions cannot be inlined: {error}") from error


def _fixed(shape: ir.Shape | None, dims: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(dim if isinstance(dim, int) else dims.get(dim.value or "", 1) for dim in shape)


def graph_macs(graph: ir.Graph) -> int | None:
    """The multiply-accumulates of one run of ``graph``, from the shapes that its values have."""
    return _sum(node_macs(node) for node in graph)


def node_macs(node: ir.Node) -> int | None:
    """The multiply-accumulates of one run of ``node``, from the shapes that its values have.

    0 for operators that are not counted, ``None`` where a shape is unknown; see :func:`macs`.
    """
    if bodies := [graph_macs(graph) for graph in subgraphs_of(node)]:
        return _control_flow(node, bodies)
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in {"", "com.microsoft"}:
        return 0
    try:
        return rule(node)
    except (_UnknownShapeError, IndexError):
        return None


class _UnknownShapeError(Exception):
    """A shape that a count needs is not known."""


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _control_flow(node: ir.Node, bodies: list[int | None]) -> int | None:
    known: list[int] = [count for count in bodies if count is not None]
    if len(known) < len(bodies):
        return None
    if node.op_type == "If":
        return max(known)
    total = sum(known)
    if node.op_type == "Scan" and total:
        axes = node.attributes.get_ints("scan_input_axes", (0,))
        try:
            return total * _sizes(node.inputs[-1])[axes[-1]]
        except _UnknownShapeError:
            return None
    return total


def _sizes(value: ir.Value | None) -> list[int]:
    if value is None:
        raise IndexError("no such input")
    shape = value.shape
    if shape is None and value.const_value is not None:
        return [int(size) for size in value.const_value.numpy().shape]
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        raise _UnknownShapeError
    return [int(dim) for dim in shape if isinstance(dim, int)]


def _size(value: ir.Value | None) -> int:
    return math.prod(_sizes(value))


def _convolution(weight: int) -> Callable[[ir.Node], int]:
    """Every output takes one product per weight of its filter: ``w[M, C / group, kernel…]``."""
    return lambda node: _size(node.outputs[0]) * math.prod(_sizes(node.inputs[weight])[1:])


def _transposed_convolution(node: ir.Node) -> int:
    """Every input meets one product per weight of its filter: ``w[C, M / group, kernel…]``."""
    return _size(node.inputs[0]) * math.prod(_sizes(node.inputs[1])[1:])


def _product(node: ir.Node) -> int:
    left = _sizes(node.inputs[0])
    transposed = node.attributes.get_int("transA", 0) and len(left) > 1
    return _size(node.outputs[0]) * left[-2 if transposed else -1]


def _recurrence(node: ir.Node) -> int:
    """Each step of each sequence meets all of ``W`` and ``R``, gates and directions included."""
    steps = math.prod(_sizes(node.inputs[0])[:2])
    return steps * (_size(node.inputs[1]) + _size(node.inputs[2]))


def _attention(node: ir.Node) -> int:
    """Scores and their weighted sum, ``S * T * (D + Dv)`` in each head."""
    if node.domain == "com.microsoft":
        return _packed_attention(node)
    query, key, value = (_sizes(node.inputs[index]) for index in range(3))
    past = _sizes(node.inputs[4])[-2] if len(node.inputs) > 4 and node.inputs[4] else 0
    if len(query) == 4:
        batch, heads, steps, depth = query
        return batch * heads * steps * (key[-2] + past) * (depth + value[-1])
    heads = node.attributes.get_int("q_num_heads", 1)
    groups = heads // node.attributes.get_int("kv_num_heads", heads)
    batch, steps, width = query
    return batch * steps * (key[-2] + past) * (width + value[-1] * groups)


def _packed_attention(node: ir.Node) -> int:
    """``com.microsoft.Attention``: first the projection of ``x[B, S, C]`` to all of Q, K and V."""
    batch, steps, _ = _sizes(node.inputs[0])
    width, projected = _sizes(node.inputs[1])
    sizes = node.attributes.get_ints("qkv_hidden_sizes", (projected // 3,) * 3)
    return batch * steps * (width * projected + steps * (sizes[0] + sizes[2]))


def _multi_head_attention(node: ir.Node) -> int:
    """``com.microsoft.MultiHeadAttention``: query, key and value are ``[B, S or T, N * D]``."""
    query, key, value = (_sizes(node.inputs[index]) for index in range(3))
    batch, steps, width = query
    return batch * steps * key[1] * (width + value[-1])


def _einsum(node: ir.Node) -> int:
    """One product for every combination of all indices; summing over one operand has none."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) < 2:
        return 0
    sizes: dict[str, int] = {}
    rest: list[int] = []
    for term, value in zip(terms, node.inputs, strict=True):
        dims = _sizes(value)
        head, dots, tail = term.partition("...")
        broadcast = dims[len(head) : len(dims) - len(tail)] if dots else []
        rest = max(rest, broadcast, key=math.prod)
        labelled = zip(head + tail, dims[: len(head)] + dims[len(dims) - len(tail) :], strict=False)
        for label, size in labelled:
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) * math.prod(rest)


_RULES: dict[str, Callable[[ir.Node], int]] = {
    "Attention": _attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution(1),
    "DynamicQuantizeLSTM": _recurrence,
    "DynamicQuantizeMatMul": _product,
    "Einsum": _einsum,
    "FusedConv": _convolution(1),
    "FusedGemm": _product,
    "FusedMatMul": _product,
    "GRU": _recurrence,
    "Gemm": _product,
    "LSTM": _recurrence,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MatMulNBits": _product,
    "MultiHeadAttention": _multi_head_attention,
    "QGemm": _product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product,
    "RNN": _recurrence,
}
