"""The four ways to write a model down, told apart by what is in the file."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import onnx
import onnx_ir as ir
from onnx import TensorProto

from ...backends.errors import ModelError, OutputError
from ...backends.serde import from_proto, graphs_of, to_proto
from .repair import finished

Format: TypeAlias = Literal["binary", "onnxtxt", "textproto", "json"]

SUFFIXES: dict[str, Format] = {
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
    ".txt": "onnxtxt",
    ".textproto": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".txtpb": "textproto",
    ".json": "json",
    ".onnxjson": "json",
}
"""What an output's name asks for; any other name asks for the binary format."""

NESTING = 1000
"""Brackets within brackets in a text. onnx's parser recurses, and overflows the stack (a crash of
the process) somewhere above ten thousand."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"PK\x03\x04", "a ZIP archive, as PyTorch, Keras and NumPy write them"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes them"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format"),
)
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        "version https://git-lfs",
        "a Git LFS pointer",
        "fetch the model itself with `git lfs pull`",
    ),
    ("<!doctype html", "a web page", "download the file itself, not the page about it"),
    ("<html", "a web page", "download the file itself, not the page about it"),
)
_NOT_ONNX = "export the model to ONNX first"


def detect(start: bytes, name: str) -> Format:
    """The format of a file that starts with ``start``, at least 4 KiB of it or all.

    Raises:
        ModelError: It is a known format of something else; ``name`` is used in the message.
    """
    for offset, magic, what in _MAGIC:
        if start[offset:].startswith(magic):
            raise ModelError(f"{name} is {what}, not an ONNX model", hint=_NOT_ONNX)
    text = _as_text(start)
    if text is None:
        return "binary"
    head = text.lstrip().lower()
    for opening, what, hint in _TEXTS:
        if head.startswith(opening):
            raise ModelError(f"{name} is {what}, not an ONNX model", hint=hint)
    if head.startswith("{"):
        return "json"
    if head.startswith("<"):
        return "onnxtxt"
    return "textproto" if _looks_like_textproto(head) else "onnxtxt"


def _as_text(start: bytes) -> str | None:
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in start):
        return None
    try:
        return start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last character may be cut in two by the end of what was read.
        return start[: error.start].decode("utf-8-sig") if error.start > len(start) - 4 else None


def _looks_like_textproto(head: str) -> bool:
    word = head.partition(":")[0].partition("{")[0].strip()
    return head.startswith("#") or word in {
        field.name for field in onnx.ModelProto.DESCRIPTOR.fields
    }


def parse(text: bytes, kind: Format, name: str) -> onnx.ModelProto:
    """The model that ``text`` in the format ``kind`` describes.

    Raises:
        ModelError: It is not well formed; the message gives line and column.
    """
    from google.protobuf import json_format, text_format
    from google.protobuf.message import DecodeError

    try:
        source = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is text, but not UTF-8 (byte {error.start})") from error
    try:
        if kind == "json":
            json_format.Parse(source, proto := onnx.ModelProto())
            return proto
        if kind == "textproto":
            text_format.Parse(source, proto := onnx.ModelProto())
            return proto
        _check_nesting(source)
        return onnx.parser.parse_model(source)
    except onnx.parser.ParseError as error:
        raise ModelError(f"{name} is not ONNX text: {_plain(error)}") from error
    except (
        DecodeError,
        RuntimeError,
        ValueError,
        json_format.ParseError,
        text_format.ParseError,
    ) as error:
        raise ModelError(f"{name} is not an ONNX model in {kind}: {error}") from error


def _check_nesting(source: str) -> None:
    depth = 0
    for bracket in re.finditer(r"[](){}<>[]", source):
        depth += 1 if bracket[0] in "({<[" else -1
        if depth > NESTING:
            raise ValueError(f"brackets are nested more than {NESTING} deep")


def _plain(error: Exception) -> str:
    message = error.args[0] if error.args else ""
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)


def render(proto: onnx.ModelProto, kind: Format) -> bytes:
    """``proto``, as :func:`~onnxpress.backends.serde.to_proto` makes it, in the format ``kind``.

    Read back to see whether all is there: ONNX text leaves out doc strings, and protobuf writes
    the largest floats in JSON so that it does not read them.

    Raises:
        OutputError: The format cannot express all of it.
    """
    from google.protobuf import json_format, text_format

    if kind == "json":
        text: str = json_format.MessageToJson(proto, preserving_proto_field_name=True)
    elif kind == "textproto":
        text = text_format.MessageToString(proto)
    else:
        text = onnx.printer.to_text(proto)
    written = text.encode()
    loss = f"the {kind} format cannot express all of this model"
    hint = "write .onnx, or .textproto for text"
    try:
        back = parse(written, kind, "it")
        if kind == "onnxtxt":  # which makes no difference between an empty string and none
            back = finished(to_proto(from_proto(back)))
    except ModelError as error:
        raise OutputError(f"{loss}: {error}", hint=hint) from error
    if _plain_data(back) != _plain_data(proto):
        raise OutputError(loss, hint=hint)
    return written


def _plain_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``proto`` in which tensors that are equal are equal messages."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in graphs_of(copy):
        tensors = [*graph.initializer]
        tensors += [attribute.t for node in graph.node for attribute in node.attribute]
        for tensor in tensors:
            if not tensor.name:
                tensor.ClearField("name")
            held_here = tensor.data_location != TensorProto.EXTERNAL
            if held_here and tensor.data_type not in {TensorProto.UNDEFINED, TensorProto.STRING}:
                raw = ir.serde.deserialize_tensor(tensor).tobytes()
                for field in ("float", "double", "int32", "int64", "uint64"):
                    tensor.ClearField(f"{field}_data")
                tensor.raw_data = raw
    return copy
