"""Which inputs and outputs of an operator may be of 16 bits, by ONNX's type constraints."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..held import is_standard

UNSAFE = frozenset({
    "CumSum", "Multinomial", "NonMaxSuppression", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Resize", "RoiAlign", "Upsample",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
})  # fmt: skip
"""Operators that stay in float: they count or place things, which 16 bits are too coarse for, draw
other numbers in other types, or have no kernel of 16 bits in ONNX Runtime."""

CONTRIB = frozenset({
    "Attention", "BiasGelu", "FastGelu", "Gelu", "GroupNorm", "MultiHeadAttention", "QuickGelu",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
})  # fmt: skip
"""Operators of ONNX Runtime whose floats are all of one type, which may be of 16 bits."""

HOLDS_TYPE = {"Cast": "to", "EyeLike": "dtype"}
"""Operators that have the type of their output in an attribute."""


@dataclass(frozen=True)
class Slots:
    """Whether each input and output of an operator may be of 16 bits; the last one repeats."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]

    def input(self, index: int) -> bool:
        """Whether input ``index`` may be."""
        return bool(self.inputs) and self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> bool:
        """Whether output ``index`` may be."""
        return bool(self.outputs) and self.outputs[min(index, len(self.outputs) - 1)]


def slots_of(node: ir.Node, opset: int, kind: ir.DataType) -> Slots | None:
    """What of ``node`` may be of type ``kind``; ``None`` if it has to stay in float."""
    if node.domain == "com.microsoft":
        return Slots((True,), (True,)) if node.op_type in CONTRIB else None
    if not is_standard(node.domain) or node.op_type in UNSAFE:
        return None
    if node.op_type == "LayerNormalization":
        return Slots((True,), (True, False))  # the type of its statistics is an attribute
    slots = _schema_slots(node.op_type, opset, f"tensor({kind.name.lower()})")
    return slots if slots is not None and any((*slots.inputs, *slots.outputs)) else None


@functools.cache
def _schema_slots(op_type: str, opset: int, kind: str) -> Slots | None:
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return None
    if any(a.type == onnx.defs.OpSchema.AttrType.GRAPH for a in schema.attributes.values()):
        return None
    return Slots(
        tuple(kind in formal.types for formal in schema.inputs),
        tuple(kind in formal.types for formal in schema.outputs),
    )
