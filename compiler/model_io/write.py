"""Write a model to files: all of it, or nothing."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from ...backends.errors import ModelError, OutputError
from ...backends.serde import external, hollow, to_proto
from .atomic import Staged, output_error
from .data_files import earlier_data_files, free_names, laid_out, shards_of
from .formats import SUFFIXES, Format, render
from .read import DATA_FILES, SOURCE, files_of
from .repair import finished
from .wire import Buffer, spliced

EXTERNAL_OVER = 1_800_000_000
"""Bytes of weights from which on they go to a file of their own: protobuf ends at 2 GiB."""

EXTERNAL_MINIMUM = 1024
"""Bytes from which on a tensor goes to the data file; smaller ones stay readable in the model."""

_SPLICE_MINIMUM = 4096
_PROTOBUF_LIMIT = (1 << 31) - 1


def save(
    model: ir.Model,
    path: str | Path,
    *,
    force: bool = False,
    protect: Sequence[Path] = (),
    external_data: bool | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write ``model`` to ``path`` and return the files written, the model file first.

    Everything is written under temporary names in the same folder, flushed to the disk and then
    renamed, the model file last. Whatever happens before that rename, an interrupt included,
    leaves an earlier result whole and nothing else behind. A data file gets a name that is free
    (``out.onnx.data``, ``out.onnx.1.data``, …); data files of an earlier result under such a name
    are removed once the new model stands. So ``model`` may be written over the files that it is
    mapped from.

    Args:
        model: The model; it is not changed. IR version and opsets are written as they are.
        path: Where to. ``.onnxtxt``, ``.textproto``, ``.json`` and the like (see
            :data:`~.formats.SUFFIXES`) ask for text, any other name for the binary format.
            An earlier result is replaced. A link is followed.
        force: Replace a file of ``protect``, or a write-protected one.
        protect: Models that must stay: those that ``model`` was made from.
        external_data: Whether weights go to a file of their own. ``None`` decides: where the
            weights are over 1.8 GB together, or came from data files.
        max_shard_bytes: Spread external data over files of at most this size, one tensor each at
            least. Implies ``external_data``.

    Raises:
        OutputError: The model cannot be written there, or is too large for the format.
        ModelError: It cannot be expressed as a protobuf.
    """
    asked = Path(path)
    protect = [*protect, *_source_of(model)]
    path = check_writable(asked, protect=protect, force=force)
    kind = SUFFIXES.get(path.suffix.lower(), "binary")
    with Staged() as staged:
        if _is_external(model, external_data, max_shard_bytes):
            _check_can_refer(kind, asked, path)
            outdated = earlier_data_files(path, protect)
            proto, data = _write_data(model, path, staged, max_shard_bytes)
            pieces: Iterable[Buffer] = [_serialized(proto, kind)]
        else:
            outdated, data = earlier_data_files(path, protect), []
            pieces = _inline(model, kind)
        staged.write(path, pieces)
        staged.commit()
    for file in outdated:
        with contextlib.suppress(OSError):  # a stale file harms nobody, the result stands
            file.unlink()
    return [path, *data]


def check_writable(path: str | Path, *, protect: Sequence[Path] = (), force: bool = False) -> Path:
    """Check early that :func:`save` could write to ``path``, and return where that really is.

    Raises:
        OutputError: It could not; see :func:`save`.
    """
    path = Path(path)
    try:
        return _checked(path, protect, force)
    except OSError as error:
        raise output_error(path, error) from error
    except RuntimeError as error:  # what pathlib raises before Python 3.13
        raise OutputError(f"{path} is a loop of links", hint="remove it first") from error


def _checked(path: Path, protect: Iterable[Path], force: bool) -> Path:
    if path.is_symlink():
        path = path.resolve()
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint=f"give a file name: {path / 'model.onnx'}")
    folder = path.parent
    if not folder.is_dir():
        missing = next(f for f in (folder, *folder.parents) if f.parent.is_dir())
        what = "is not a folder" if missing.exists() else "does not exist"
        raise OutputError(f"the folder {missing} {what}", hint="create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} is not writable", hint="write to another folder")
    if path.exists():
        if not path.is_file():
            raise OutputError(f"{path} is not a regular file", hint="give the name of a file")
        if not force and not os.access(path, os.W_OK):
            raise OutputError(f"{path} is write-protected", hint="use --force to replace it")
    if not force:
        _check_not_protected(path, protect)
    return path


def _check_not_protected(path: Path, protect: Iterable[Path]) -> None:
    """Refuse a ``path`` that is one of the files which the models ``protect`` consist of."""
    if not path.exists():
        return
    for source in protect:
        try:
            files = files_of(source)
        except ModelError:
            files = [source]
        for file in files:
            if file.exists() and file.samefile(path):
                what = "the input" if file == source else f"a data file of the input {source}"
                raise OutputError(
                    f"{path} is {what}", hint="write to another file, or use --force to replace it"
                )


def _source_of(model: ir.Model) -> list[Path]:
    source = model.graph.meta.get(SOURCE)
    return [] if source is None else [source]


def _check_can_refer(kind: Format, asked: Path, path: Path) -> None:
    if kind == "onnxtxt":
        raise OutputError(
            "ONNX text cannot refer to external data", hint="write .onnx, .textproto or .json"
        )
    if asked.is_symlink() and asked.parent.resolve() != path.parent:
        raise OutputError(
            f"{asked} is a link to another folder, from which external data would not be found",
            hint=f"write to {path} itself",
        )


def _is_external(model: ir.Model, wanted: bool | None, max_shard_bytes: int | None) -> bool:
    if max_shard_bytes is not None or wanted is not None:
        return max_shard_bytes is not None or bool(wanted)
    if model.graph.meta.get(DATA_FILES):
        return True
    return sum(tensor.nbytes for _, tensor in _weights(model, 0)) > EXTERNAL_OVER


def _weights(model: ir.Model, minimum: float) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """The initializers of at least ``minimum`` bytes that can be kept apart."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < minimum:
                continue
            yield value, tensor


def _inline(model: ir.Model, kind: Format) -> Iterable[Buffer]:
    """``model`` in one file."""
    minimum = _SPLICE_MINIMUM if kind == "binary" else math.inf
    large = {
        value: tensor for value, tensor in _weights(model, minimum) if value.graph is model.graph
    }
    proto = to_proto(
        model, replace=lambda owner, t: hollow(t) if owner in large else _brought_in(t)
    )
    by_name = {value.name: tensor for value, tensor in large.items()}
    weights = {
        index: by_name[initializer.name]
        for index, initializer in enumerate(proto.graph.initializer)
        if initializer.name in by_name
    }
    proto = finished(proto)
    if kind != "binary":
        return [render(proto, kind)]
    _check_size(proto.ByteSize() + sum(tensor.nbytes for tensor in weights.values()))
    return spliced(proto, weights)


def _write_data(
    model: ir.Model, path: Path, staged: Staged, max_shard_bytes: int | None
) -> tuple[onnx.ModelProto, list[Path]]:
    """Write the weights of ``model`` to data files and return the rest, which refers to them."""
    weights = dict(_weights(model, EXTERNAL_MINIMUM))
    tensors = {id(tensor): tensor for tensor in weights.values()}
    shards = shards_of(tensors.values(), max_shard_bytes)
    files = free_names(path, len(shards), {*model.graph.meta.get(DATA_FILES, ())})
    places: dict[int, tuple[str, int]] = {}
    for file, shard in zip(files, shards, strict=True):
        places |= {id(tensor): (file.name, offset) for offset, tensor in shard}
        staged.write(file, laid_out(shard))
    proto = to_proto(
        model,
        replace=lambda owner, t: (
            external(t, *places[id(t)]) if owner in weights else _brought_in(t)
        ),
    )
    return finished(proto), files


def _brought_in(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """``tensor`` in memory, if its data lies in a file that the result would not come with."""
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    return ir.Tensor(
        tensor.numpy(),
        tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def _serialized(proto: onnx.ModelProto, kind: Format) -> bytes:
    if kind != "binary":
        return render(proto, kind)
    _check_size(proto.ByteSize())
    return bytes(proto.SerializeToString())


def _check_size(size: int) -> None:
    if size > _PROTOBUF_LIMIT:
        raise OutputError(
            f"the model takes {size / 1e9:.1f} GB, and an ONNX file can hold 2.1 GB",
            hint="keep weights in initializers and let them go to external data",
        )
