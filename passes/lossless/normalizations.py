"""What a batch normalization does to each channel at inference."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .affine import Affine
from .constants import resolved_constant

EPSILON = float(np.float32(1e-5))
"""The default of ``epsilon``; attributes are single precision, whatever type is computed in."""


def inference_map(norm: ir.Node, opset: int) -> Affine | str:
    """The ``BatchNormalization`` ``norm`` as a per-channel map, or why it is none."""
    attributes = norm.attributes
    if any(attribute.is_ref() for attribute in attributes.values()):
        return "an attribute of it is set by the caller of the function"
    further = [output for output in norm.outputs[1:] if output.name]
    if attributes.get_int("training_mode", 0) or (opset < 14 and further):
        return "it runs in training mode"
    if any(output.uses() or output.is_graph_output() for output in further):
        return "one of its further outputs is read"
    if attributes.get_int("spatial", 1) == 0:
        return "it normalizes each position on its own (spatial=0)"
    known = [resolved_constant(value) for value in norm.inputs[1:5]]
    arrays = [array.astype(np.float64) for array in known if array is not None]
    if len(arrays) < 4:
        return "one of its statistics is not constant"
    gamma, beta, mean, variance = arrays
    spread = variance + attributes.get_float("epsilon", EPSILON)
    if not (spread > 0).all():
        return "a variance plus epsilon is not positive"
    scale = gamma / np.sqrt(spread)
    shift = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "one of its statistics is not finite"
    return Affine(scale, shift)
