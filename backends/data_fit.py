"""Whether an array fits an input of the model, and what to tell the user if it does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np

from .base import Array, TensorSpec
from .errors import DataError

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    **{name: np.dtype(name) for name in ("float16", "bool", "complex64", "complex128")},
    **{
        f"{sign}int{bits}": np.dtype(f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
}


def check_names(found: Iterable[str], inputs: Sequence[TensorSpec], where: str) -> None:
    """See that there is an array for every input, and none beside.

    Raises:
        DataError: One is missing or too many.
    """
    names, wanted = list(found), [spec.name for spec in inputs]
    hint = f"the model's inputs are {', '.join(map(repr, wanted))}"
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    if missing:
        also = f", but one named {extra[0]!r}" if extra else ""
        raise DataError(f"{where} has no array named {missing[0]!r}{also}", hint=hint)
    if extra:
        raise DataError(f"{where} has an array {extra[0]!r} that is no input", hint=hint)


def check_dtype(dtype: np.dtype[Any], spec: TensorSpec, where: str, mend: str) -> None:
    """See that ``dtype`` is the type of ``spec``.

    NumPy files hold ``bfloat16`` and ``float8`` as raw bytes of the same size, which fits.

    Raises:
        DataError: It is not; ``mend`` with the wanted type in it becomes the hint.
    """
    if spec.dtype == "string":
        fits, wanted = dtype.kind in "USTO", "str"
    elif spec.dtype in _DTYPES:
        expected = _DTYPES[spec.dtype]
        raw = dtype.kind == expected.kind == "V" and dtype.itemsize == expected.itemsize
        fits, wanted = dtype.newbyteorder("=") == expected or raw, expected.name
    else:
        raise DataError(
            f"the input {spec.name!r} is {spec.dtype}, and only tensors can be fed",
            hint="leave the data out, or give the input a tensor type",
        )
    if not fits:
        cast = f"ml_dtypes.{wanted}" if getattr(ml_dtypes, wanted, None) else f"np.{wanted}"
        raise DataError(
            f"{where} is {dtype.name}, but the model's input {spec.name!r} is {wanted}",
            hint=mend.replace("DTYPE", cast),
        )


def restore(array: Array, spec: TensorSpec) -> Array:
    """``array``, read from a NumPy file, under the type that the file cannot name."""
    dtype = _DTYPES.get(spec.dtype)
    if dtype is not None and dtype.kind == "V" and array.dtype != dtype:
        return array.view(dtype)
    return array


def check_shape(shape: Sequence[int], spec: TensorSpec, where: str, *, samples: bool) -> bool:
    """See that an array of ``shape`` fits ``spec``; whether each entry is one whole input.

    ``samples`` tells arrays of samples, whose first axis may be of any length or one axis too
    many (see :func:`~onnxpress.backends.data.open_data`), from the exact input of one run.

    Raises:
        DataError: The rank or a fixed dimension is another one.
    """
    if spec.shape is None and (shape or not samples):
        return False
    want_shape = spec.shape or ()
    whole = samples and len(shape) == len(want_shape) + 1
    dims = tuple(shape[1:] if whole else shape)
    start = 1 if samples and not whole else 0
    same_rank = len(dims) == len(want_shape) and not (samples and not shape)
    if same_rank and all(
        not isinstance(want, int) or have == want
        for have, want in list(zip(dims, want_shape, strict=True))[start:]
    ):
        return whole
    declared = ", ".join("?" if dim is None else str(dim) for dim in want_shape)
    hint = (
        f"samples go along the first axis of [{declared}], or along one axis before it"
        if samples
        else "the function has to yield the input of one run"
    )
    raise DataError(
        f"{where} has the shape {list(shape)}, but the model's input {spec.name!r} is [{declared}]",
        hint=hint,
    )
