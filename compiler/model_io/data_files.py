"""The data files of a result: their names and what lies where in them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from ...backends.errors import ModelError
from .read import files_of
from .wire import Buffer, chunks

_PAGE, _LINE = 4096, 64
_PAGE_ALIGNED = 1 << 20

Placed: TypeAlias = tuple[int, ir.TensorProtocol]
"""An offset in a data file, and the tensor that lies there."""


def shards_of(
    tensors: Iterable[ir.TensorProtocol], max_shard_bytes: int | None
) -> list[list[Placed]]:
    """``tensors`` with their places, in as few files as the limit allows.

    Large ones begin at a page, so that they can be mapped, others at a cache line.
    """
    shards: list[list[Placed]] = []
    end = 0
    for tensor in tensors:
        step = _PAGE if tensor.nbytes >= _PAGE_ALIGNED else _LINE
        offset = -(-end // step) * step
        if not shards or (max_shard_bytes and offset + tensor.nbytes > max_shard_bytes):
            shards.append([])
            offset = 0
        shards[-1].append((offset, tensor))
        end = offset + tensor.nbytes
    return shards


def laid_out(shard: Iterable[Placed]) -> Iterator[Buffer]:
    """The bytes of the data file that holds ``shard``."""
    end = 0
    for offset, tensor in shard:
        yield bytes(offset - end)
        yield from chunks(tensor)
        end = offset + tensor.nbytes


def free_names(path: Path, count: int, taken: set[Path]) -> list[Path]:
    """Names for ``count`` data files of the model ``path``.

    None of them is in use, and none is in ``taken``, which are real paths.
    """
    for generation in itertools.count():
        stem = path.name if generation == 0 else f"{path.name}.{generation}"
        parts = [""] if count == 1 else [f"-{n:05}-of-{count:05}" for n in range(1, count + 1)]
        files = [path.with_name(f"{stem}{part}.data") for part in parts[:count]]
        if not any(os.path.lexists(file) or file.resolve() in taken for file in files):
            return files
    raise AssertionError("unreachable")


def earlier_data_files(path: Path, protect: Iterable[Path]) -> list[Path]:
    """The data files of the model at ``path`` that have such a name, and no other model needs."""
    if not path.exists():
        return []
    ours = re.compile(rf"{re.escape(path.name)}(\.\d+)?(-\d{{5}}-of-\d{{5}})?\.data")
    if not any(ours.fullmatch(file.name) for file in path.parent.iterdir()):
        return []
    needed = {
        file.resolve()
        for source in protect
        if source.exists() and not source.samefile(path)
        for file in _files_or_none(source)
    }
    return [
        file
        for file in _files_or_none(path)[1:]
        if ours.fullmatch(file.name) and file.parent == path.parent and file.resolve() not in needed
    ]


def _files_or_none(path: Path) -> list[Path]:
    try:
        return files_of(path)
    except ModelError:
        return []
