"""Types and shapes of all values, as ``onnx.shape_inference`` finds them.

Called with the weights left out, so a model of any size is serialized in milliseconds, and wrapped
because inference alone believes what a model already says of its values, however stale, and says
nothing of ONNX Runtime's own operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from ...backends.errors import ModelError
from ...backends.serde import has_map, hollow, to_proto
from ..graph import graphs_of, values_in

_WEIGHT = 1024
"""Bytes above which a constant is a weight: what shapes are computed from is smaller."""

_LIKE: dict[str, tuple[str, tuple[int, ...]]] = {
    "BiasGelu": ("Identity", (0,)),
    "BiasSoftmax": ("Identity", (0,)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "EmbedLayerNormalization": ("Gather", (2, 0)),
    "FastGelu": ("Identity", (0,)),
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "Gelu": ("Identity", (0,)),
    "GroupNorm": ("Identity", (0,)),
    "LayerNormalization": ("Identity", (0,)),
    "MultiHeadAttention": ("Identity", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
    "QuickGelu": ("Identity", (0,)),
    "RotaryEmbedding": ("Identity", (0,)),
    "SimplifiedLayerNormalization": ("Identity", (0,)),
    "SkipLayerNormalization": ("Identity", (0,)),
    "SkipSimplifiedLayerNormalization": ("Identity", (0,)),
}
"""ONNX Runtime's operators whose first output has the type and shape that a standard operator
would give to those of their inputs (``onnxruntime/core/graph/contrib_ops``)."""


def with_shapes(model: ir.Model, dims: Mapping[str, int] | None = None) -> ir.Model:
    """A clone of ``model`` that says the type and shape of every value, as far as they follow.

    The clone shares the weights. See :func:`annotate_shapes` for what is inferred.

    Args:
        model: The model.
        dims: Sizes to put in for named dimensions.

    Raises:
        ModelError: Shapes cannot be inferred at all.
    """
    clone = model.clone()
    if dims:
        for value in _values(clone):
            if value.shape is not None:
                value.shape = _filled(value.shape, dims)
    annotate_shapes(clone)
    return clone


def annotate_shapes(model: ir.Model) -> None:
    """Set the type and shape of every value of ``model``'s graphs to what follows from its inputs.

    What the model said before of intermediate values is not believed: rewrites leave it stale.
    Shapes computed by ``Shape``, ``Gather``, ``Concat`` and the like are followed; a dimension
    that is unknown gets a name (``unk__0``), the same wherever it is the same. A value whose shape
    does not follow has none, with two exceptions that keep what was said: outputs of operators
    that ONNX does not know, and graph outputs. Bodies of functions are not annotated: their
    shapes depend on the caller.

    Raises:
        ModelError: Shapes cannot be inferred at all; ``model`` is as it was.
    """
    proto = to_proto(model, replace=lambda _, t: hollow(t) if t.nbytes > _WEIGHT else None)
    # Before IR version 4, inference insists on initializers being listed among the inputs.
    proto.ir_version = max(proto.ir_version, 4)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    functions = {(function.domain, function.name) for function in proto.functions}
    _prepare(proto.graph, proto.graph, versions, functions)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"shapes cannot be inferred: {error}") from error
    _apply(model.graph, inferred.graph)


def add_missing_shapes(model: ir.Model) -> None:
    """Give values that have no type or no shape what follows; what ``model`` says stays.

    See :func:`annotate_shapes` for what is inferred. Where nothing can be inferred, nothing is
    added.
    """
    try:
        inferred = with_shapes(model)
    except ModelError:
        return  # whoever needs the shape of a value says that it has none
    for ours, theirs in zip(graphs_of(model), graphs_of(inferred), strict=True):
        for value, known in zip(values_in(ours), values_in(theirs), strict=True):
            value.type = value.type or known.type
            value.shape = known.shape if value.shape is None else value.shape


def inferred_shapes(model: ir.Model) -> dict[ir.Value, ir.Shape]:
    """The shape of every value of ``model``'s graphs whose rank follows from its inputs.

    ``model`` is not changed. See :func:`annotate_shapes` for what is inferred.

    Raises:
        ModelError: Shapes cannot be inferred at all.
    """
    found: dict[ir.Value, ir.Shape] = {}
    for ours, theirs in zip(graphs_of(model), graphs_of(with_shapes(model)), strict=True):
        for value, known in zip(values_in(ours), values_in(theirs), strict=True):
            if (shape := _shape(known)) is not None:
                found[value] = shape
    return found


def _shape(value: ir.Value) -> ir.Shape | None:
    if value.shape is None and value.const_value is not None:
        return ir.Shape(value.const_value.shape.numpy())
    return value.shape


def _main_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from (output for output in node.outputs if output.name)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from _main_values(graph)


def _filled(shape: ir.Shape, dims: Mapping[str, int]) -> ir.Shape:
    return ir.Shape(
        dim if isinstance(dim, int) else dims.get(dim.value or "", dim) for dim in shape
    )


def _prepare(
    graph: onnx.GraphProto,
    main: onnx.GraphProto,
    versions: Mapping[str, int],
    functions: set[tuple[str, str]],
) -> None:
    """Forget in ``graph`` what inference finds, and put known operators in for others."""
    said: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _prepare(attribute.g, main, versions, functions)
        if (node.domain, node.op_type) in functions or _has_schema(node, versions):
            continue
        said.update(node.output)
        if node.domain in {"", "com.microsoft"} and _substitute(node, main):
            said.discard(node.output[0])
    kept = onnx.GraphProto(value_info=[info for info in graph.value_info if info.name in said])
    del graph.value_info[:]
    graph.value_info.MergeFrom(kept.value_info)
    for info in graph.output:
        if info.name not in said and info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")


def _has_schema(node: onnx.NodeProto, versions: Mapping[str, int]) -> bool:
    version = versions.get(node.domain)
    return version is not None and onnx.defs.has(node.op_type, version, node.domain)


def _substitute(node: onnx.NodeProto, main: onnx.GraphProto) -> bool:
    """Turn ``node`` into a standard operator with an output of the same shape, if one is known."""
    if node.op_type == "MatMulNBits":
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        weight = f"{node.output[0]}::weight"
        dims = [sizes.get("K", 0), sizes.get("N", 0)]
        main.input.append(onnx.helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, dims))
        like, inputs = "MatMul", [node.input[0], weight]
    elif node.op_type in _LIKE:
        like, places = _LIKE[node.op_type]
        inputs = [node.input[place] for place in places if place < len(node.input)]
    else:
        return False
    node.domain, node.op_type = "", like
    del node.input[:]
    node.input.extend(inputs)
    return True


def _apply(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    """Set in ``graph`` what inference says in ``inferred``, a serialization of it."""
    infos = {info.name: info for info in (*inferred.value_info, *inferred.output)}
    for node, proto in zip(graph, inferred.node, strict=True):
        for output in node.outputs:
            info = infos.get(output.name or "")
            shape = None
            if info is not None and info.type.WhichOneof("value") and not has_map(info.type):
                output.type = ir.serde.deserialize_type_proto_for_type(info.type) or output.type
                shape = ir.serde.deserialize_type_proto_for_shape(info.type)
            output.shape = _agreed(output.shape, shape) if output.is_graph_output() else shape
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _apply(node.attributes[attribute.name].as_graph(), attribute.g)


def _agreed(said: ir.Shape | None, found: ir.Shape | None) -> ir.Shape | None:
    """The shape ``found``, with what was ``said`` of the dimensions that inference left open."""
    if found is None:
        return said
    if said is None or len(said) != len(found):
        return found
    return ir.Shape(
        old if isinstance(new, ir.SymbolicDim) and _is_open(new) else new
        for old, new in zip(said, found, strict=True)
    )


def _is_open(dim: ir.SymbolicDim) -> bool:
    return dim.value is None or dim.value.startswith("unk__")
