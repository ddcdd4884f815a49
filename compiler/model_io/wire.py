"""Large weights past protobuf: cut out of a serialized model, or spliced into one, uncopied.

Protobuf holds a file twice while it parses, and thrice while it serializes. The weights are by
far the largest part and plain bytes, so they are read and written on their own. Field numbers
are those of ``onnx.proto``; the format is protobuf's encoding specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from .external import MappedTensor

Buffer: TypeAlias = "bytes | memoryview"

CHUNK = 1 << 24
"""Bytes written at a time, between which an interrupt is noticed."""

MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA = 9

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are not a protobuf message, or not one that can be cut."""


@dataclass(frozen=True)
class Span:
    """Where the data of the main graph's initializer number ``index`` lies in the file."""

    index: int
    offset: int
    length: int


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    start: int
    body: int
    end: int


def cut(buffer: memoryview, minimum: int) -> tuple[bytes, list[Span]]:
    """The serialized model in ``buffer`` without the data of its large initializers.

    Args:
        buffer: A serialized ``ModelProto``.
        minimum: Raw data of at least so many bytes is cut out.

    Returns:
        A serialized ``ModelProto`` in which those initializers have no data, and where it lies.

    Raises:
        WireError: ``buffer`` is damaged, or its layout is one that no writer produces.
    """
    spans: list[Span] = []
    pieces: list[Buffer] = []
    graphs = 0
    for field in _fields(buffer, 0, len(buffer)):
        if field.number == MODEL_GRAPH and field.kind == _BYTES:
            graphs += 1
            graph = b"".join(_cut_graph(buffer, field, minimum, spans))
            pieces += (_header(MODEL_GRAPH, len(graph)), graph)
        else:
            pieces.append(buffer[field.start : field.end])
    if graphs > 1:
        raise WireError("more than one graph")
    return b"".join(pieces), spans


def _cut_graph(
    buffer: memoryview, graph: _Field, minimum: int, spans: list[Span]
) -> Iterator[Buffer]:
    index = -1
    for field in _fields(buffer, graph.body, graph.end):
        if field.number == GRAPH_INITIALIZER and field.kind == _BYTES:
            index += 1
            if field.end - field.body >= minimum:
                tensor = b"".join(_cut_tensor(buffer, field, minimum, spans, index))
                yield _header(GRAPH_INITIALIZER, len(tensor))
                yield tensor
                continue
        yield buffer[field.start : field.end]


def _cut_tensor(
    buffer: memoryview, tensor: _Field, minimum: int, spans: list[Span], index: int
) -> Iterator[Buffer]:
    for field in _fields(buffer, tensor.body, tensor.end):
        raw = field.number == TENSOR_RAW_DATA and field.kind == _BYTES
        if raw and field.end - field.body >= minimum:
            if spans and spans[-1].index == index:
                raise WireError("a tensor with two data fields")
            spans.append(Span(index, field.body, field.end - field.body))
        else:
            yield buffer[field.start : field.end]


def _fields(buffer: memoryview, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        tag, position = _varint(buffer, position, end)
        kind = tag & 7
        body = position
        if kind == _VARINT:
            _, position = _varint(buffer, position, end)
        elif kind == _BYTES:
            length, body = _varint(buffer, position, end)
            position = body + length
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        else:
            raise WireError(f"wire type {kind}")
        if position > end:
            raise WireError(f"a field needs {position} bytes and there are {end}")
        yield _Field(tag >> 3, kind, start, body, position)


def _varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 64:
        byte = buffer[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise WireError("a number without an end")


def _header(number: int, length: int) -> bytes:
    """The tag and length before a field of ``length`` bytes."""
    result = bytearray()
    for value in (number << 3 | _BYTES, length):
        rest = value
        while rest > 0x7F:
            result.append(rest & 0x7F | 0x80)
            rest >>= 7
        result.append(rest)
    return bytes(result)


def spliced(proto: onnx.ModelProto, weights: Mapping[int, ir.TensorProtocol]) -> Iterator[Buffer]:
    """The serialization of ``proto`` piece by piece, with the data of ``weights`` put in.

    Args:
        proto: The model; it is taken over and may be changed.
        weights: The tensors of the main graph's initializers that have no data, by their number.

    Raises:
        ValueError: ``proto`` is over 2 GB without ``weights``.
    """
    heads: list[tuple[bytes, ir.TensorProtocol | None]] = []
    length = 0
    for index, initializer in enumerate(proto.graph.initializer):
        weight = weights.get(index)
        size = 0
        if weight is not None:
            initializer.ClearField("data_location")
            size = weight.nbytes
        body = initializer.SerializeToString()
        if weight is not None:
            body += _header(TENSOR_RAW_DATA, size)
        head = _header(GRAPH_INITIALIZER, len(body) + size) + body
        heads.append((head, weight))
        length += len(head) + size
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    yield proto.SerializeToString()
    yield _header(MODEL_GRAPH, length + len(graph))
    yield graph
    for head, weight in heads:
        yield head
        if weight is not None:
            yield from chunks(weight)


def chunks(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    """The bytes of ``tensor`` as ONNX stores them, little-endian and packed, a part at a time."""
    if isinstance(tensor, ir.PackedTensor | MappedTensor):
        array = tensor.numpy_packed()
    elif tensor.dtype.bitwidth < 8 or tensor.dtype == ir.DataType.STRING:
        array = np.frombuffer(tensor.tobytes(), np.uint8)
    else:
        array = np.ascontiguousarray(tensor.numpy())
    view = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(view), CHUNK):
        yield view[start : start + CHUNK]
