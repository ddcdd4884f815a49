"""Which values are the weights of layers."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from ..analysis.values import Facts

_PLACES: Final[dict[str, tuple[int, ...]]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RNN": (1, 2, 3),
}
"""Where operators read their weights."""

_PER_CHANNEL: Final = frozenset({"Add", "Div", "Mul", "Sub"})
"""Operators that scale and shift channels by vectors; larger operands are masks, or positions."""


def is_weight(value: ir.Value, facts: Facts) -> bool:
    """Whether something reads ``value``, and all that does reads it as a weight."""
    uses = value.uses()
    if value.is_graph_output() or not uses:
        return False
    dims = facts.dims(value)
    is_vector = dims is not None and sum(size != 1 for size in dims) <= 1
    return not any(use.node.domain for use in uses) and all(
        use.idx in _PLACES.get(use.node.op_type, ())
        or (is_vector and use.node.op_type in _PER_CHANNEL)
        for use in uses
    )
