"""Read a model from files, and refuse with a reason what is none."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from ...backends.base import Array
from ...backends.errors import ModelError
from ...backends.serde import from_proto, graphs_of, tensor_of
from ...passes.graph import nodes_of
from .check import check_proto
from .external import DataFiles
from .formats import detect, parse
from .repair import repair
from .wire import Span, WireError, cut

WARNINGS = "onnxpress.warnings"
"""Where ``model.graph.meta`` keeps what was unusual about the file."""

DATA_FILES = "onnxpress.data_files"
"""Where ``model.graph.meta`` keeps the files that the model's weights are mapped from."""

SOURCE = "onnxpress.source"
"""Where ``model.graph.meta`` keeps the path that the model was loaded from."""

_CUT_MINIMUM = 4096


def load(path: str | Path) -> ir.Model:
    """The model in ``path``: binary, ONNX text, textproto or JSON, told apart by content.

    Opset 7 to the newest that the installed onnx knows. External data is mapped, so its files
    must not be changed in place while the model is in use (replacing them is fine); weights in
    the model file are read once and never copied. Nodes are brought into topological order.
    Operators of unknown domains are kept as they are.

    What changes on the way, each with a warning in :func:`warnings_of`: sparse tensors become
    dense, training information is left out, negative dimensions become unknown ones. Before IR
    version 4 initializers had to be listed among the inputs; they are taken off that list (ONNX
    Runtime does not let them be fed either), and :func:`~.write.save` lists them again.

    Raises:
        ModelError: There is no such file, or it holds no model that can be used.
    """
    path = Path(path)
    with _opened(path) as file:
        proto, spans = _read(file, path)
        findings = check_proto(proto, {span.index: span.length for span in spans})
        warnings = findings.warnings + repair(proto)
        cut_out = [(proto.graph.initializer[span.index], span) for span in spans]
        large = {
            tensor.name: tensor_of(tensor, _bytes_at(file, span.offset, span.length))
            for tensor, span in cut_out
        }
        model = from_proto(proto)
    for name, weight in large.items():
        model.graph.initializers[name].const_value = weight
    files = _map_external(model, path) if findings.external else []
    if findings.unsorted:
        _sort(model)
    model.graph.meta[WARNINGS] = warnings
    model.graph.meta[DATA_FILES] = files
    model.graph.meta[SOURCE] = path.absolute()
    return model


def load_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model in ``proto``, which stays as it is, as :func:`load` gives one in a file.

    Raises:
        ModelError: ``proto`` is no model that can be used, or refers to external data, which only
            a file can: where it lies is where its data lies.
    """
    own, large = _copied(proto)
    findings = check_proto(own, {index: len(data) for index, data in large.items()})
    if findings.external:
        raise ModelError(
            "the model refers to external data, but lies in no folder",
            hint="give the path of its file, or read it with onnx.load, which brings the data in",
        )
    warnings = findings.warnings + repair(own)
    heads = {index: own.graph.initializer[index] for index in large}
    model = from_proto(own)
    for index, data in large.items():
        weight = tensor_of(heads[index], data)
        model.graph.initializers[heads[index].name].const_value = weight
    if findings.unsorted:
        _sort(model)
    model.graph.meta[WARNINGS] = warnings
    return model


def _copied(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[int, bytes]]:
    """A copy of ``proto`` without the raw data of large initializers, and this data by number.

    Every look at such a field copies it, so that each is looked at once.
    """
    own, large = onnx.ModelProto(), {}
    _copy_fields(proto, own, {"graph"})
    if proto.HasField("graph"):
        own.graph.SetInParent()
        _copy_fields(proto.graph, own.graph, {"initializer"})
    for index, tensor in enumerate(proto.graph.initializer):
        copy = own.graph.initializer.add()
        if tensor.HasField("raw_data") and tensor.ByteSize() >= _CUT_MINIMUM:
            large[index] = tensor.raw_data
            _copy_fields(tensor, copy, {"raw_data"})
        else:
            copy.CopyFrom(tensor)
    return own, large


def _copy_fields(source: Message, copy: Message, left_out: set[str]) -> None:
    for name in (field.name for field in source.DESCRIPTOR.fields if field.name not in left_out):
        value = getattr(source, name)
        if isinstance(value, (str, bytes, int, float)):
            if source.HasField(name):
                setattr(copy, name, value)
        elif isinstance(value, Message):
            if source.HasField(name):
                getattr(copy, name).CopyFrom(value)
        else:
            repeated = getattr(copy, name)
            for one in value:
                if isinstance(one, Message):
                    repeated.add().CopyFrom(one)
                else:
                    repeated.append(one)


def warnings_of(model: ir.Model) -> list[str]:
    """What was unusual about the file that ``model`` was loaded from, in sentences."""
    return list(model.graph.meta.get(WARNINGS, ()))


def files_of(path: str | Path) -> list[Path]:
    """The files that the model in ``path`` consists of: itself first, then its data files.

    Data files that are missing are left out.

    Raises:
        ModelError: ``path`` holds no model.
    """
    path = Path(path)
    with _opened(path) as file:
        proto, _ = _read(file, path)
    names: dict[Path, None] = {}
    for graph in graphs_of(proto):
        for tensor in _tensors(graph):
            for entry in tensor.external_data:
                if entry.key == "location" and (path.parent / entry.value).is_file():
                    names[path.parent / entry.value] = None
    return [path, *names]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        if path.is_dir():
            raise ModelError(
                f"{path} is a folder, not a model", hint="give the .onnx file that lies in it"
            )
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is not a regular file", hint="copy the model to a file first")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}", hint="check the spelling") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(file: BufferedReader, path: Path) -> tuple[onnx.ModelProto, list[Span]]:
    start = file.read(4096)
    if not start:
        raise ModelError(f"{path} is empty", hint="the export or the copy did not finish")
    kind = detect(start, str(path))
    if kind != "binary":
        return parse(start + file.read(), kind, str(path)), []
    # Not closed: views of it may live on in an error's traceback, and closing would then fail.
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    spans: list[Span] = []
    fault = ""
    try:
        data, spans = cut(view, _CUT_MINIMUM)
    except WireError as error:
        data, fault = bytes(view), str(error)
    try:
        return onnx.ModelProto.FromString(data), spans
    except DecodeError as error:
        raise ModelError(
            f"{path} is not an ONNX model, or a damaged one: {fault or error}",
            hint="is it complete? compare its size with the original's",
        ) from error


def _bytes_at(file: BufferedReader, offset: int, length: int) -> Array:
    data = np.empty(length, np.uint8)
    file.seek(offset)
    if file.readinto(data.data) != length:
        raise ModelError("the file became shorter while it was read")
    return data


def _map_external(model: ir.Model, path: Path) -> list[Path]:
    """Map the data of every external tensor of ``model``, and return the files."""
    files = DataFiles(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = files.map(value.const_value)
    for node in nodes_of(model):
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if isinstance(tensor, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, files.map(tensor))
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [
                    files.map(tensor) if isinstance(tensor, ir.ExternalTensor) else tensor
                    for tensor in attribute.as_tensors()
                ]
                node.attributes[name] = ir.AttrTensors(name, tensors)
    return files.paths


def _sort(model: ir.Model) -> None:
    try:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    except ValueError as error:
        raise ModelError(
            "the nodes form a cycle: each waits for what another computes",
            hint="only Loop and Scan may repeat; export the model again",
        ) from error
