"""A model and its inputs, moved by about what rounding errors add up to."""

from __future__ import annotations

import zlib

import numpy as np
import onnx_ir as ir

from ...backends.base import Array, Feeds

_SIZES = {
    np.dtype(np.float64): 2.0**-47,
    np.dtype(np.float32): 2.0**-18,
    np.dtype(np.float16): 2.0**-10,
    np.dtype(ir.DataType.BFLOAT16.numpy()): 2.0**-7,
}
"""32 units in the last place, and one where the format is coarse."""


def moved_model(model: ir.Model, seed: int, direction: int) -> ir.Model:
    """A copy whose weights are a little off, to the other side for the opposite ``direction``.

    Weights are float constants with at least two axes; shorter ones are left, because a scale
    of ``Resize`` or the step of a quantizer means something else as soon as it moves.
    """
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    model = model.clone()
    LiftConstantsToInitializersPass()(model)
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and len(tensor.shape) > 1 and tensor.dtype.is_floating_point():
                array = _moved(tensor.numpy(), name, seed, direction)
                value.const_value = ir.tensor(array, dtype=tensor.dtype, name=name)
    return model


def moved_feeds(feeds: Feeds, seed: int, direction: int) -> Feeds:
    """``feeds`` with the floats a little off; whole numbers stay, they may stand for indices."""
    return {name: _moved(array, name, seed, direction) for name, array in feeds.items()}


def _moved(array: Array, name: str, seed: int, direction: int) -> Array:
    size = _SIZES.get(array.dtype)
    if size is None:
        return array
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    signs = rng.integers(0, 2, array.shape, dtype=np.int8) * 2 - 1
    values = array.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = values * (1 + direction * size * signs)
        return np.where(values == np.rint(values), values, moved).astype(array.dtype)
