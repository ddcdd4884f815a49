"""Samples in ``.npz`` and ``.npy`` files, read as a stream."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np

from .base import Array, Feeds, TensorSpec
from .data_fit import check_dtype, check_names, check_shape, restore
from .errors import DataError


@dataclass(frozen=True)
class StoredArray:
    """One array in a file: its header is known, its entries are read on demand."""

    path: Path
    member: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @classmethod
    def open(cls, path: Path, member: str | None) -> StoredArray:
        """Read the header of ``path``, or of ``member`` in the archive ``path``.

        Raises:
            DataError: It is no array, or one of Python objects.
        """
        where = f"{member} in {path}" if member else str(path)
        with _reading(path, member) as file:
            try:
                shape, fortran, dtype = _read_header(file)
            except ValueError as error:
                raise DataError(f"{where} is not a NumPy array: {error}") from error
        if dtype.hasobject:
            raise DataError(
                f"{where} holds Python objects, which are not read",
                hint="store an array of one type: np.save(path, np.array(..., dtype=np.float32))",
            )
        return cls(path, member, dtype, tuple(shape), fortran)

    def chunks(self, size: int) -> Iterator[Array]:
        """Entries along the first axis, at most ``size`` at a time, in native byte order.

        An array in Fortran order, whose entries do not lie together, is read whole.
        """
        with _reading(self.path, self.member) as file:
            if self.fortran:
                whole = np.lib.format.read_array(file, allow_pickle=False)
                for start in range(0, len(whole), size):
                    yield np.ascontiguousarray(whole[start : start + size])
                return
            _read_header(file)
            tail = self.shape[1:]
            row = self.dtype.itemsize * math.prod(tail)
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                raw = file.read(count * row)
                if len(raw) < count * row:
                    raise DataError(f"{self.path} ends before its array does: it is incomplete")
                array = np.frombuffer(raw, self.dtype).reshape(count, *tail)
                yield array.astype(self.dtype.newbyteorder("="))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether in Fortran order, and the type that the array in ``file`` has.

    Raises:
        ValueError: The bytes are no array in NumPy's format, version 1 or 2 (NEP 1).
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format holds no plain array")


@contextmanager
def _reading(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The bytes of ``path`` or of a ``member`` of it, decompressed as they are read."""
    try:
        if member is None:
            with path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield file
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Part:
    """Arrays of samples that belong together, one per input, and equally many samples in each."""

    arrays: dict[str, StoredArray]
    whole: dict[str, bool]
    samples: int

    @property
    def tails(self) -> dict[str, tuple[int, ...]]:
        """The shape of one entry of each array; only equal ones can be batched."""
        return {name: array.shape[1:] for name, array in self.arrays.items()}

    def chunks(self, size: int, inputs: Sequence[TensorSpec]) -> Iterator[dict[str, Array]]:
        """At most ``size`` samples at a time; one where an entry is the whole input of a run."""
        single = any(self.whole.values())
        streams = [self.arrays[spec.name].chunks(1 if single else size) for spec in inputs]
        for arrays in zip(*streams, strict=True):
            yield {
                spec.name: restore(array[0] if self.whole[spec.name] else array, spec)
                for spec, array in zip(inputs, arrays, strict=True)
            }


@dataclass(frozen=True)
class StoredData:
    """Samples in files; ``note`` says which of them are not used, and why."""

    parts: Sequence[Part]
    inputs: Sequence[TensorSpec]
    batch: int | None
    note: str = ""

    @property
    def samples(self) -> int:
        """How many samples the files hold."""
        return sum(part.samples for part in self.parts)

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield the samples in order, at most ``size`` at a time, or just the model's own batch.

        Raises:
            DataError: A file cannot be read any more.
        """
        size = self.batch or size
        for _, parts in groupby(self.parts, key=lambda part: (part.tails, part.whole)):
            group = list(parts)
            if any(group[0].whole.values()):
                yield from (feeds for part in group for feeds in part.chunks(1, self.inputs))
            else:
                chunks = (chunk for part in group for chunk in part.chunks(size, self.inputs))
                for feeds in _filled(chunks, size):
                    if self.batch is None or _count(feeds) == self.batch:
                        yield feeds


def _filled(chunks: Iterable[dict[str, Array]], size: int) -> Iterator[dict[str, Array]]:
    """``chunks``, whose samples are alike, joined and cut into ``size`` samples each."""
    waiting: dict[str, Array] = {}
    for chunk in chunks:
        joined = chunk if not waiting else _joined(waiting, chunk)
        while _count(joined) >= size:
            yield {name: array[:size] for name, array in joined.items()}
            joined = {name: array[size:] for name, array in joined.items()}
        waiting = joined if _count(joined) else {}
    if waiting:
        yield waiting


def _joined(first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
    return {name: np.concatenate([array, second[name]]) for name, array in first.items()}


def _count(feeds: dict[str, Array]) -> int:
    return len(next(iter(feeds.values())))


def open_files(path: Path, inputs: Sequence[TensorSpec]) -> StoredData:
    """The samples in the file or folder ``path``: see :func:`~onnxpress.backends.data.open_data`.

    Raises:
        DataError: They cannot be read, or do not fit the model's ``inputs``.
    """
    files = _files(path)
    if files[0].suffix == ".npz":
        found = [(file, _archive(file)) for file in files]
    elif len(inputs) == 1 and (len(files) == 1 or f"{inputs[0].name}.npy" not in _names(files)):
        found = [(file, {inputs[0].name: StoredArray.open(file, None)}) for file in files]
    else:
        found = [(path, {file.stem: StoredArray.open(file, None) for file in files})]
    parts = [_part(arrays, inputs, file) for file, arrays in found]
    if not any(part.samples for part in parts):
        raise DataError(f"{path} holds no samples")
    batch = _fixed_batch(parts, inputs, path)
    return StoredData(parts, inputs, batch, _left_out(parts, batch, path))


def _names(files: Iterable[Path]) -> list[str]:
    return [file.name for file in files]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix in {".npz", ".npy"}:
            return [path]
        raise DataError(
            f"{path} is neither an .npz nor an .npy file",
            hint="np.savez(path, **{input_name: array}) writes one",
        )
    files = sorted(file for file in path.iterdir() if file.suffix in {".npz", ".npy"})
    if not files:
        raise DataError(f"the folder {path} holds no .npz and no .npy file")
    if len({file.suffix for file in files}) > 1:
        raise DataError(f"the folder {path} holds both .npz and .npy files", hint="keep one kind")
    return files


def _archive(path: Path) -> dict[str, StoredArray]:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} is not an .npz archive, or an incomplete one",
            hint="np.savez(path, **{input_name: array}) writes one",
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    return {name.removesuffix(".npy"): StoredArray.open(path, name) for name in members}


def _part(arrays: dict[str, StoredArray], inputs: Sequence[TensorSpec], path: Path) -> Part:
    check_names(arrays, inputs, str(path))
    whole = {}
    for spec in inputs:
        array, where = arrays[spec.name], f"{spec.name!r} in {path}"
        check_dtype(array.dtype, spec, where, _mend(array, spec.name))
        whole[spec.name] = check_shape(array.shape, spec, where, samples=True)
    counts = {spec.name: arrays[spec.name].shape[0] for spec in inputs}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise DataError(f"the arrays in {path} hold different numbers of samples: {listed}")
    return Part(arrays, whole, next(iter(counts.values())))


def _mend(array: StoredArray, name: str) -> str:
    """The lines of NumPy that cast ``array`` to ``DTYPE``."""
    path = str(array.path)
    if array.member is None:
        return f"np.save({path!r}, np.load({path!r}).astype(DTYPE))"
    return (
        f"data = dict(np.load({path!r})); data[{name!r}] = data[{name!r}].astype(DTYPE); "
        f"np.savez({path!r}, **data)"
    )


def _fixed_batch(parts: Sequence[Part], inputs: Sequence[TensorSpec], path: Path) -> int | None:
    """How many samples the model takes at a time, if its inputs say so."""
    fixed: dict[str, int] = {}
    single = any(flag for part in parts for flag in part.whole.values())
    for spec in inputs:
        first = spec.shape[0] if spec.shape else None
        if isinstance(first, int) and not all(part.whole[spec.name] for part in parts):
            fixed[spec.name] = first
    if len({*fixed.values(), *([1] if single else [])}) > 1:
        listed = ", ".join(f"{name!r} {first}" for name, first in fixed.items())
        raise DataError(
            f"the first dimensions of the model's inputs do not count the same samples: {listed}",
            hint=f"in {path}, store the inputs of whole runs, stacked along one more axis in front",
        )
    return next(iter(fixed.values()), None)


def _left_out(parts: Sequence[Part], batch: int | None, path: Path) -> str:
    if batch is None:
        return ""
    groups = groupby(parts, key=lambda part: (part.tails, part.whole))
    totals = [sum(part.samples for part in group) for _, group in groups]
    left, total = sum(count % batch for count in totals), sum(totals)
    if left == total:
        raise DataError(
            f"{path} holds {total} samples, too few for the model's fixed batch of {batch}",
            hint="bring more samples, or a model with a dynamic batch dimension",
        )
    if not left:
        return ""
    return f"{left} of {total} samples in {path} do not fill a batch of {batch} and are left out"
