"""Which groups of a quantized model become integer kernels, as ``inspect --quantization`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backends.data import Data
from ..backends.errors import BackendError, DataError
from ..backends.optimized import optimized_operators
from ..backends.targets import Target
from ..passes.base import Array, label_of
from ..passes.quantization.emulate import answers_on
from ..passes.quantization.groups import Group, find_groups, integer_kernels
from ..passes.quantization.saturation import EXACT_FEATURES

SAMPLES = 16
"""How many samples tell what saturation costs."""


def inspect_quantization(
    model: ir.Model, target: Target, data: Data | None = None
) -> dict[str, Any]:
    """What becomes of each operator of ``model`` that touches integers, in JSON-ready form.

    Returns:
        ``groups``, each ``node``, ``operator``, ``kernel`` (empty where it runs in float),
        ``reason``, ``advice``, ``channels`` and ``saturating`` (output channels, and how many of
        them can overflow 16 bits on the target); ``kernels``, how often each kernel was foretold;
        ``found``, how often ONNX Runtime made each on this machine, ``null`` if it could not load
        the model; ``confirmed``, whether both agree, ``null`` likewise. With ``data`` also
        ``saturation_db``: by output, the signal-to-noise ratio of the answers that the target's
        kernels give, in NumPy, to those of exact ones; ``null`` if both are the same.

    Raises:
        DataError: There is no sample.
        BackendError: The model cannot be run on the samples.
    """
    groups = find_groups(model, target)
    foretold = _counted(integer_kernels(group.kernel for group in groups))
    try:
        found = _counted(integer_kernels(optimized_operators(model).elements()))
    except BackendError:
        found = None
    return {
        "groups": [_described(group) for group in groups],
        "kernels": foretold,
        "found": found,
        "confirmed": None if found is None else found == foretold,
        **({} if data is None else {"saturation_db": _costs(model, target, data)}),
    }


def _costs(model: ir.Model, target: Target, data: Data) -> dict[str, float | None]:
    """By output, how far saturation on ``target`` brings the answers from exact kernels'."""
    feeds = next(iter(data.batches(SAMPLES)), None)
    if feeds is None:
        raise DataError("the data holds no samples")
    names = {value.name for value in model.graph.inputs}
    feeds = {name: array for name, array in feeds.items() if name in names}
    exact = answers_on(model, feeds, Target("cpu", EXACT_FEATURES))
    there = answers_on(model, feeds, target)
    return {
        name: None
        if np.array_equal(array, there[name])
        else round(_decibels(array, there[name]), 2)
        for name, array in exact.items()
        if array.dtype.kind == "f"
    }


def _decibels(reference: Array, other: Array) -> float:
    signal, noise = reference.astype(np.float64), reference.astype(np.float64) - other
    with np.errstate(divide="ignore"):
        return round(float(10 * np.log10((signal**2).sum() / (noise**2).sum())), 2)


def _counted(kernels: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kernels).items()))


def _described(group: Group) -> dict[str, Any]:
    return {
        "node": label_of(group.node),
        "operator": group.node.op_type,
        "kernel": group.kernel,
        "reason": group.reason,
        "advice": group.advice,
        "channels": group.channels,
        "saturating": group.saturating,
    }
