"""Protobuf into onnx_ir and back, without what onnx_ir alone drops or refuses.

onnx_ir (1.1) refuses map types, which classifiers exported from scikit-learn have, and sparse
attributes; it drops sparse initializers; and it writes quantization annotations of graph outputs
and metadata of tensors twice. These two functions mend that, and hold weights back on request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir

from .base import Array
from .errors import ModelError

MAP_TYPE = "onnxpress.map_type"
"""Where ``ir.Value.meta`` keeps the serialized ``TypeProto`` of a value whose type holds a map."""

DENSE_LIMIT = 1 << 31
"""Bytes that a sparse tensor may take when it is made dense."""


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model in ``proto``, which is taken over and may be changed.

    Sparse tensors become dense ones. Every tensor owns its data, so that ``proto`` can be freed.

    Raises:
        ModelError: ``proto`` is not well formed.
    """
    maps: dict[str, bytes] = {}
    for graph in graphs_of(proto):
        maps |= _take_map_types(graph)
        _densify(graph)
    try:
        model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, RecursionError) as error:
        raise ModelError(f"the model is not well formed: {_root(error)}") from error
    for scope in model.graphs():
        for value in scope.initializers.values():
            value.const_value = _owned(value.const_value)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in maps:
            value.meta[MAP_TYPE] = maps[value.name]
    for value, info in zip(model.graph.inputs, proto.graph.input, strict=True):
        # onnx_ir takes the shape from the output; what may be fed is said by the input.
        if value.is_graph_output() and info.HasField("type"):
            value.shape = ir.serde.deserialize_type_proto_for_shape(info.type)
    return model


Owner: TypeAlias = ir.Value | ir.Node
Replace: TypeAlias = Callable[[Owner, ir.TensorProtocol], ir.TensorProtocol | None]


def to_proto(model: ir.Model, *, replace: Replace | None = None) -> onnx.ModelProto:
    """``model`` as a protobuf; ``model`` is left as it is.

    Args:
        model: The model.
        replace: Called with every initializer and its tensor, and with every node and a tensor
            among its attributes; a tensor that it answers is written instead. Keeps weights from
            being copied, see :func:`hollow`.

    Raises:
        ModelError: It cannot be expressed as a protobuf.
    """
    try:
        with _replaced(model, replace) if replace is not None else nullcontext():
            proto = ir.to_proto(model)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        reason = _root(error)
        if isinstance(reason, UnicodeDecodeError):
            raise ModelError("the model holds text that is not UTF-8, so it is damaged") from error
        raise ModelError(f"the model cannot be serialized: {reason}") from error
    for value, info in zip(
        (*model.graph.inputs, *model.graph.outputs),
        (*proto.graph.input, *proto.graph.output),
        strict=True,
    ):
        if MAP_TYPE in value.meta:
            info.type.ParseFromString(value.meta[MAP_TYPE])
    for graph in graphs_of(proto):
        _drop_repeated_annotations(graph)
    for function in proto.functions:
        for graph in subgraphs_of(function.node):
            # ONNX Runtime inlines functions, and then takes these for what they say of values
            # outside that have the same names.
            del graph.value_info[:]
    return proto


def graphs_of(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every subgraph of it and of the functions."""
    yield proto.graph
    yield from subgraphs_of(proto.graph.node)
    for function in proto.functions:
        yield from subgraphs_of(function.node)


def subgraphs_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """Every graph that ``nodes`` hold as attributes, and the graphs in those."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
                yield from subgraphs_of(attribute.g.node)
            for graph in attribute.graphs:
                yield graph
                yield from subgraphs_of(graph.node)


class _TensorOfBytes(ir.Tensor[Array]):
    """A tensor over bytes, which it gives back as they are instead of copying them."""

    __slots__ = ("_held",)

    def __init__(self, held: bytes, array: Array, *args: Any, **options: Any) -> None:
        super().__init__(array, *args, **options)
        self._held = held

    def tobytes(self) -> bytes:
        return self._held


def tensor_of(proto: onnx.TensorProto, data: Array | bytes) -> ir.TensorProtocol:
    """The tensor that ``proto`` describes, over ``data``: its bytes, maybe as a ``uint8`` vector.

    The bytes are not copied.

    Raises:
        ModelError: Their number does not fit type and dims.
    """
    dtype = ir.DataType(proto.data_type)
    shape = ir.Shape(proto.dims)
    common: dict[str, Any] = {
        "name": proto.name,
        "doc_string": proto.doc_string or None,
        "metadata_props": {entry.key: entry.value for entry in proto.metadata_props} or None,
    }
    size = math.ceil(math.prod(proto.dims) * dtype.bitwidth / 8)
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if size != array.nbytes:
        raise ModelError(
            f"the tensor {proto.name!r} of shape {list(proto.dims)} and type {dtype.name} takes "
            f"{size} bytes and has {array.nbytes}",
        )
    if dtype.bitwidth < 8:
        return ir.PackedTensor(array, dtype, shape=shape, **common)
    array = array.view(dtype.numpy()).reshape(proto.dims)
    if isinstance(data, bytes):
        return _TensorOfBytes(data, array, dtype, shape=shape, **common)
    return ir.Tensor(array, dtype, shape=shape, **common)


def _owned(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """``tensor`` with its values at hand, where reading them from protobuf repeats work.

    Every read of a packed field copies it, of a repeated field value by value; and onnx_ir
    writes the metadata of a protobuf tensor twice.
    """
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        return tensor
    proto = tensor.raw
    if proto.HasField("raw_data"):
        data = proto.raw_data
        if len(data) < 256 and not proto.metadata_props:
            return tensor
        return tensor_of(proto, data)
    return ir.Tensor(
        tensor.numpy(),
        tensor.dtype,
        shape=tensor.shape,
        name=proto.name,
        doc_string=proto.doc_string or None,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def _root(error: BaseException) -> BaseException:
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _take_map_types(graph: onnx.GraphProto) -> dict[str, bytes]:
    """Clear the types that hold a map from ``graph`` and return them by name."""
    found: dict[str, bytes] = {}
    for info in (*graph.input, *graph.output, *graph.value_info):
        kind = info.type.WhichOneof("value")
        if kind in {"map_type", "sequence_type", "optional_type"} and has_map(info.type):
            found[info.name] = info.type.SerializeToString()
            info.ClearField("type")
    return found


def has_map(type_: onnx.TypeProto) -> bool:
    """Whether ``type_`` is a map, or a sequence or optional of maps."""
    kind = type_.WhichOneof("value")
    if kind in {"sequence_type", "optional_type"}:
        return has_map(getattr(type_, kind).elem_type)
    return bool(kind == "map_type")


def _densify(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    for node in graph.node:
        if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
            continue
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """``sparse`` as a dense tensor; ``indices`` are ``[nnz]`` or ``[nnz, rank]``, both allowed."""
    name, dims = sparse.values.name, list(sparse.dims)
    fault = f"the sparse tensor {name!r} of shape {dims}"
    if onnx.TensorProto.EXTERNAL in {sparse.values.data_location, sparse.indices.data_location}:
        raise ModelError(f"{fault} has external data, which sparse tensors may not have here")
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices).astype(np.int64)
        if min(dims, default=1) < 0 or math.prod(dims) * values.itemsize > DENSE_LIMIT:
            raise ModelError(f"{fault} is too large to be made dense")
        dense = np.zeros(dims, values.dtype)
        at = indices.reshape(-1) if indices.ndim == 1 else np.ravel_multi_index(indices.T, dims)
        if at.size and int(at.min()) < 0:
            raise IndexError("a negative index")
        dense.reshape(-1)[at] = values
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError(f"{fault} has indices or values that do not fit: {error}") from error
    tensor = onnx.numpy_helper.from_array(dense, name)
    tensor.data_type = sparse.values.data_type
    return tensor


def _drop_repeated_annotations(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for index in reversed(range(len(graph.quantization_annotation))):
        name = graph.quantization_annotation[index].tensor_name
        if name in seen:
            del graph.quantization_annotation[index]
        seen.add(name)


def hollow(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    """Name, type and shape of ``tensor`` without its data: external data that names no file."""
    return external(tensor, "", None)


def external(tensor: ir.TensorProtocol, location: str, offset: int | None) -> ir.ExternalTensor:
    """A tensor like ``tensor`` whose bytes lie at ``offset`` of the file ``location``."""
    return ir.ExternalTensor(
        location,
        offset,
        None if offset is None else tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


@contextmanager
def _replaced(model: ir.Model, replace: Replace) -> Iterator[None]:
    """Have other tensors in ``model`` while the block runs."""
    values: list[tuple[ir.Value, ir.TensorProtocol]] = []
    attributes: list[tuple[ir.Node, ir.Attr]] = []
    graphs = [*model.graphs()]
    for function in model.functions.values():
        graphs += (function.graph, *function.graph.subgraphs())
    try:
        for graph in graphs:
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and (new := replace(value, tensor)) is not None:
                    values.append((value, tensor))
                    value.const_value = new
            for node in graph:
                for attribute in node.attributes.values():
                    if (changed := _changed(node, attribute, replace)) is not None:
                        attributes.append((node, attribute))
                        node.attributes[attribute.name] = changed
        yield
    finally:
        for value, tensor in values:
            value.const_value = tensor
        for node, attribute in attributes:
            node.attributes[attribute.name] = attribute


def _changed(node: ir.Node, attribute: ir.Attr, replace: Replace) -> ir.Attr | None:
    """``attribute`` with the tensors that ``replace`` answers, or ``None`` if it answers none."""
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        new = replace(node, attribute.as_tensor())
        return None if new is None else ir.AttrTensor(attribute.name, new)
    if attribute.type == ir.AttributeType.TENSORS:
        tensors = [replace(node, tensor) or tensor for tensor in attribute.as_tensors()]
        return ir.AttrTensors(attribute.name, tensors)
    return None
