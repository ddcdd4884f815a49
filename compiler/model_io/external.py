"""External data: found beside the model, never elsewhere, and mapped."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...backends.base import Array
from ...backends.errors import ModelError


class MappedTensor(ir.ExternalTensor):
    """A tensor whose data lies in a file beside its model, read through a map of that file.

    Unlike its base it never opens the file again: reading it is safe from several threads, and
    it keeps its values when the file is replaced or removed.
    """

    __slots__ = ("_data",)

    def __init__(self, tensor: ir.ExternalTensor, path: Path, data: Array) -> None:
        """Describe ``tensor`` anew, over ``data``: its bytes, a vector of ``uint8``."""
        super().__init__(
            path.name,
            tensor.offset or 0,
            data.nbytes,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props) or None,
            base_dir=path.parent,
        )
        self._data = data

    def numpy_packed(self) -> Array:
        """The bytes as ONNX stores them, a vector of ``uint8``."""
        return self._data

    def numpy(self) -> Array:
        """The values; a view of the map, except for types below 8 bits and unaligned data."""
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(self._data, self.dtype, shape=self.shape).numpy()
        array = self._data.view(self.dtype.numpy()).reshape(self.shape.numpy())
        return np.require(array, requirements="A")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def tobytes(self) -> bytes:
        """The bytes as ONNX stores them, copied."""
        return self._data.tobytes()

    def tofile(self, file: Any) -> None:
        """Write the bytes to ``file``."""
        file.write(self._data)


class DataFiles:
    """The data files of one model, each mapped once."""

    def __init__(self, model_path: Path) -> None:
        self.folder = model_path.parent
        self._allowed = (self.folder.resolve(), model_path.resolve().parent)
        self._maps: dict[Path, Array] = {}

    @property
    def paths(self) -> list[Path]:
        """The files mapped so far."""
        return list(self._maps)

    def map(self, tensor: ir.ExternalTensor) -> MappedTensor:
        """``tensor`` over its mapped data.

        Raises:
            ModelError: Its file is missing, too short or outside the model's folder, or the
                place or number of bytes it names does not fit.
        """
        what = f"the external data of {tensor.name!r}"
        if tensor.dtype == ir.DataType.STRING:
            raise ModelError(f"{what} is of strings, which ONNX keeps in the model file only")
        dims, offset = tensor.shape.numpy(), tensor.offset or 0
        if min(*dims, offset, tensor.length or 0, 0) < 0:
            raise ModelError(f"{what} has a negative dimension, offset or length")
        path = self.locate(os.fspath(tensor.location), what)
        data = self._mapped(path, what)
        size = tensor.nbytes
        length = size if tensor.length is None else tensor.length
        if length != size:
            raise ModelError(
                f"{what} has {length} bytes, but shape {list(dims)} of type "
                f"{tensor.dtype.name} takes {size}"
            )
        if offset + length > data.nbytes:
            raise ModelError(
                f"{what} lies at bytes {offset} to {offset + length} of {path}, which has only "
                f"{data.nbytes}",
                hint="the data file is cut short, or belongs to another model: copy it again",
            )
        return MappedTensor(tensor, path, data[offset : offset + length])

    def locate(self, location: str, what: str) -> Path:
        """The real path of the data file ``location``.

        Links are followed, but only to the folder that the model's path names or, where the model
        is a link itself, as in a download cache, to below the folder that it leads to.

        Raises:
            ModelError: It leads elsewhere, or nowhere.
        """
        try:
            path = (self.folder / location).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{what} names no possible file: {location!r} ({error})") from error
        outside = not any(path.is_relative_to(folder) for folder in self._allowed)
        if not location or Path(location).is_absolute() or outside:
            raise ModelError(
                f"{what} is said to lie in {location!r}, which is not in the model's own folder",
                hint="for safety no other file is read; copy the data file beside the model and "
                "let the model name it without a folder",
            )
        if not path.is_file():
            raise ModelError(
                f"{what} is missing: there is no file {self.folder / location}",
                hint="a model with external data is several files: copy all of them",
            )
        return path

    def _mapped(self, path: Path, what: str) -> Array:
        if path not in self._maps:
            try:
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            except OSError as error:
                raise ModelError(f"{what} cannot be read from {path}: {error.strerror}") from error
            self._maps[path] = np.frombuffer(raw, np.uint8)
        return self._maps[path]
