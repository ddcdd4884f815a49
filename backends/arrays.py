"""NumPy arrays in and out of ONNX Runtime, with the types that one of the two does not know."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from .base import Array, Provider, TensorSpec
from .errors import BackendError

FOREIGN: Final[dict[str, ir.DataType]] = {
    "bfloat16": ir.DataType.BFLOAT16,
    "float8e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8e4m3fnuz": ir.DataType.FLOAT8E4M3FNUZ,
    "float8e5m2": ir.DataType.FLOAT8E5M2,
    "float8e5m2fnuz": ir.DataType.FLOAT8E5M2FNUZ,
    "int4": ir.DataType.INT4,
    "uint4": ir.DataType.UINT4,
}
"""ONNX Runtime's names of the types that NumPy lacks and that ``ml_dtypes`` supplies."""


def ort_value(tensor: ir.TensorProtocol) -> Any:
    """``tensor`` as an ``OrtValue`` on the tensor's own memory; 4-bit types are packed and copied.

    The value keeps the memory alive.
    """
    kind = int(tensor.dtype)
    if tensor.dtype.bitwidth < 8:
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(tensor.shape.numpy()), kind)
        packed = tensor.tobytes()
        ctypes.memmove(value.data_ptr(), packed, len(packed))
        return value
    array = np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape.numpy())
    if tensor.dtype in FOREIGN.values():
        array = array.view(f"u{array.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind)


def feed(array: Any, spec: TensorSpec) -> Any:
    """``array`` as ONNX Runtime takes it for the input ``spec``, in native byte order.

    Strings become an object array of ``str``: ONNX Runtime reads past the end of NumPy's fixed-
    width byte strings, and takes a ``bytes`` object for its ``repr``.
    """
    if not isinstance(array, (np.ndarray, np.generic)):
        return array
    array = np.asarray(array)
    if spec.dtype == "string":
        flat = [text.decode() if isinstance(text, bytes) else str(text) for text in array.flat]
        return np.array(flat, dtype=object).reshape(array.shape)
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def feed_value(array: Any, spec: TensorSpec, device: Provider = "cpu") -> Any:
    """``array`` as an ``OrtValue`` for the numeric tensor ``spec``, in the memory of ``device``.

    Raises:
        BackendError: ``array`` is no array, or does not have the type of ``spec``.
    """
    array = feed(array, spec)
    if not isinstance(array, np.ndarray):
        raise BackendError(f"the input {spec.name!r} takes an array, not {type(array).__name__}")
    if (kind := FOREIGN.get(spec.dtype)) is None:
        array = np.ascontiguousarray(array).reshape(array.shape)
        return ort.OrtValue.ortvalue_from_numpy(array, device, 0)
    if array.dtype != kind.numpy():
        raise BackendError(
            f"the input {spec.name!r} is {spec.dtype}, not {array.dtype}",
            hint=f"cast it: array.astype(ml_dtypes.{kind.numpy().name})",
        )
    value = ort_value(ir.Tensor(array, dtype=kind))
    return value if device == "cpu" else _copied(value, device)


def _copied(value: Any, device: Provider) -> Any:
    copy = ort.OrtValue.ortvalue_from_shape_and_type(value.shape(), value.element_type(), device, 0)
    ort.copy_tensors([value], [copy])
    return copy


def fetched(value: Any) -> Array:
    """What ``InferenceSession.run`` answered for one output, as an array.

    A tensor is itself. A sequence becomes a 1-D object array of its items, a map or an empty
    optional a 0-D one that holds the ``dict`` or ``None``.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list):
        items = np.empty(len(value), dtype=object)
        for index, item in enumerate(value):  # `items[:] = value` would stack equal shapes
            items[index] = item
        return items
    holder = np.empty((), dtype=object)
    holder[()] = value
    return holder


def fetched_value(value: Any) -> Array:
    """The tensor in the ``OrtValue`` ``value`` as an array in host memory.

    Raises:
        BackendError: It is not a tensor.
    """
    if not value.is_tensor():
        raise BackendError("sequences and maps cannot be fetched beside bfloat16 or float8 tensors")
    kind = ir.DataType(value.element_type())
    if kind not in FOREIGN.values():
        array: Array = value.numpy()
        return array
    if value.device_name() != "cpu":
        value = _copied(value, "cpu")
    shape, size = value.shape(), value.tensor_size_in_bytes()
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=np.uint8)
    if kind.bitwidth < 8:
        return ir.PackedTensor(raw, kind, shape=ir.Shape(shape)).numpy()
    return raw.view(kind.numpy()).reshape(shape)
