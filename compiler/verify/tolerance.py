"""When two answers count as the same: a rule of the number format, never of the case at hand.

A rewrite changes the order of sums, so floats differ by rounding, and deep networks magnify it.
The rule: **an answer keeps at least half of its significant digits.** With ``eps`` the spacing of
the number format at 1, each element may be off by ``sqrt(eps)`` of its size, and the root mean
square of all these errors by a quarter of that. The size of an element is its own magnitude or
that of its surroundings (:func:`~onnxpress.passes.analysis.fidelity.scale_of`). ONNX Runtime's
own optimizations move the float32 models we tried by up to a third of it, most of them by a
hundredth.

=================  =========  ===============  =====================
format             eps        each element     root mean square
=================  =========  ===============  =====================
float64            2^-52      1.5e-8           3.7e-9
float32            2^-23      3.5e-4           8.6e-5
float16            2^-10      3.1e-2           7.8e-3
bfloat16, int8     2^-7       8.8e-2           2.2e-2
float8, int4       2^-3       0.35             8.8e-2
=================  =========  ===============  =====================

The format is the coarsest that the output is computed in. Integers, truth values and text have to
be equal. What a bounded activation (``Sigmoid``, ``Softmax``) rounds at 1 is no error: 8 ``eps``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.base import Array
from ...passes.analysis.fidelity import as_floats, is_text, scale_of
from .ancestry import is_bounded, upstream

_EPS = {
    ir.DataType.DOUBLE: 2.0**-52,
    ir.DataType.COMPLEX128: 2.0**-52,
    ir.DataType.FLOAT: 2.0**-23,
    ir.DataType.COMPLEX64: 2.0**-23,
    ir.DataType.FLOAT16: 2.0**-10,
    ir.DataType.BFLOAT16: 2.0**-7,
}
_COARSEST = 2.0**-3
_QUANTIZED = {
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv"), 2.0**-7),
    **dict.fromkeys(("QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), 2.0**-7),
}
"""Operators that round to 8 bits; ``QuantizeLinear`` rounds to what its zero point says."""


@dataclass(frozen=True)
class Tolerance:
    """How far a float answer may be off; see the module's text.

    Attributes:
        element: The largest deviation of one element, as a share of its size.
        rms: The largest root mean square of all deviations.
        floor: A difference that is always rounding.
    """

    element: float
    rms: float
    floor: float = 0.0

    def accepts(self, deviations: Array) -> bool:
        """Whether ``deviations``, made by :func:`deviation`, are rounding errors."""
        if deviations.size == 0:
            return True
        largest = float(deviations.max())
        if not math.isfinite(largest) or largest > self.element:
            return False
        return math.sqrt(float(np.mean(np.square(deviations)))) <= self.rms


def tolerances(model: ir.Model) -> dict[str, Tolerance]:
    """The tolerance of every output of ``model``."""
    return {value.name or "": _tolerance(model, value) for value in model.graph.outputs}


def _tolerance(model: ir.Model, output: ir.Value) -> Tolerance:
    eps = max([_eps(output.dtype) or 0.0, *_formats(model, output)]) or _EPS[ir.DataType.FLOAT]
    root = math.sqrt(eps)
    return Tolerance(root, root / 4, 8 * eps if is_bounded(model, output) else 0.0)


def _eps(dtype: ir.DataType | None) -> float | None:
    if dtype is None or not (dtype.is_floating_point() or dtype in _EPS):
        return None
    return _EPS.get(dtype, _COARSEST)


def _formats(model: ir.Model, output: ir.Value) -> Iterator[float]:
    """The spacing of every number format that ``output`` is computed in."""
    for node in upstream(model, output):
        if node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            yield _eps(to) or 0.0
        elif node.op_type == "QuantizeLinear":
            zero = node.inputs[2] if len(node.inputs) > 2 else None
            bits = zero.dtype.bitwidth if zero is not None and zero.dtype is not None else 8
            yield 2.0 ** (1 - bits)
        elif node.op_type in _QUANTIZED:
            yield _QUANTIZED[node.op_type]
        else:
            yield from (_eps(value.dtype) or 0.0 for value in node.inputs if value is not None)


def deviation(reference: Array, candidate: Array, floor: float = 0.0) -> Array:
    """How far each element is off, as a share of its size; infinite where nothing excuses it.

    That is 0 or infinity for integers, truth values and text, and where one of the two is not
    finite. The arrays have the same shape.
    """
    if is_text(reference) or is_text(candidate) or reference.dtype.kind in "iub":
        return np.where(reference == candidate, 0.0, np.inf)
    a, b = as_floats(reference), as_floats(candidate)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
        off = distance / np.maximum(np.abs(a), scale_of(a))
    off = np.where(distance <= floor, 0.0, off)
    off = np.where(np.isfinite(a) & np.isfinite(b), off, np.inf)
    return np.where(same, 0.0, off)
