"""What operators ask of their inputs: which indices, lengths, shapes and domains they accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from .base import Array
from .kinds import Argument, Kind, Size

_Table: TypeAlias = dict[str, dict[int, Kind]]

_ONE = Kind("ones")
_ZERO = Kind("zeros")
_FEW = Kind("integers", (1, 4))
_POSITIVE = Kind("uniform", (0.5, 2))
_TRUE_FALSE = Kind("choice", (1, 0))

_FIXED: _Table = {
    # Operands that give a shape, an axis, a count: small, and valid for any data.
    "ConstantOfShape": {0: _FEW},
    "CumSum": {1: _ZERO},
    "Expand": {1: _ONE},
    "OneHot": {1: Kind("integers", (2, 9))},
    "Range": {0: _ZERO, 1: Kind("integers", (2, 9)), 2: _ONE},
    "Reshape": {1: _ZERO},
    "Slice": {1: _ZERO, 2: _FEW, 3: _ZERO, 4: _ONE},
    "Tile": {1: _FEW},
    "TopK": {1: _ONE},
    "Trilu": {1: _ZERO},
    "Unsqueeze": {1: _ZERO},
    "Squeeze": {1: _ZERO},
    "Pad": {1: Kind("integers", (0, 3))},
    "Resize": {2: _ONE},
    "Upsample": {1: _ONE},
    "NonMaxSuppression": {2: _FEW, 3: Kind("constant", (0.5,)), 4: Kind("constant", (0.1,))},
    "RoiAlign": {2: _ZERO},
    # Control flow: both branches in turn, few iterations.
    "If": {0: _TRUE_FALSE},
    "Loop": {0: _FEW, 1: _ONE},
    # Operands with a restricted domain.
    "Div": {1: _POSITIVE},
    "Mod": {1: Kind("integers", (1, 10))},
    "Log": {0: _POSITIVE},
    "Sqrt": {0: _POSITIVE},
    "Reciprocal": {0: _POSITIVE},
    "Acosh": {0: Kind("uniform", (1, 3))},
    "Acos": {0: Kind("uniform", (-1, 1))},
    "Asin": {0: Kind("uniform", (-1, 1))},
    "Atanh": {0: Kind("uniform", (-0.9, 0.9))},
    "BatchNormalization": {4: _POSITIVE},
    # A condition that hides what it is false for hides at most a tail.
    "Where": {0: Kind("mask")},
}


def demand(node: ir.Node, index: int) -> Kind | None:
    """What ``node`` asks of its input ``index``, or ``None`` if anything will do."""
    if node.domain == "ai.onnx.ml":
        return _vocabulary(node)
    rule = _RULES.get(node.op_type)
    if rule is not None and (kind := rule(node, index)) is not None:
        return kind
    return _FIXED.get(node.op_type, {}).get(index)


def _constant(value: ir.Value | None) -> Array | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _dims(value: ir.Value | None) -> list[int | Size | None]:
    """The shape of ``value`` as arguments of a kind; ``None`` where a size is not known."""
    if value is None:
        return []
    tensor = ir.convenience.get_const_tensor(value)
    shape = tensor.shape if tensor is not None else value.shape
    if shape is None:
        return []
    sizes = [dim if isinstance(dim, int) else Size(dim.value or "") for dim in shape]
    return [None if size in {-1, Size("")} else size for size in sizes]


def _index_into(sizes: list[int | Size | None]) -> Kind:
    """Indices below the smallest of ``sizes``; index 0 only where a size is not known."""
    known = [size for size in sizes if isinstance(size, int)]
    if known:
        return Kind("integers", (0, max(1, min(known))))
    named = [size for size in sizes if isinstance(size, Size)]
    return Kind("integers", (0, named[0])) if named else _ZERO


def _along_axis(node: ir.Node, index: int) -> Kind | None:
    if index != 1:
        return None
    dims = _dims(node.inputs[0])
    axis = node.attributes.get_int("axis", 0)
    return _index_into(dims[axis : axis + 1] if axis != -1 else dims[-1:])


def _gather_nd(node: ir.Node, index: int) -> Kind | None:
    if index != 1:
        return None
    dims = _dims(node.inputs[0])[node.attributes.get_int("batch_dims", 0) :]
    depth = _dims(node.inputs[1])[-1:]
    return _index_into(dims[: depth[0]] if depth and isinstance(depth[0], int) else dims)


def _one_hot(node: ir.Node, index: int) -> Kind | None:
    depth = _constant(node.inputs[1])
    if index != 0 or depth is None:
        return None
    return Kind("integers", (0, max(1, int(depth.reshape(-1)[0]))))


def _embed_layer_norm(node: ir.Node, index: int) -> Kind | None:
    table = {0: 2, 1: 4}.get(index)
    return None if table is None else _index_into(_dims(node.inputs[table])[:1])


def _recurrent_lengths(node: ir.Node, index: int) -> Kind | None:
    if index != 4:
        return None
    return _lengths(_dims(node.inputs[0]), node.attributes.get_int("layout", 0))


def _reverse_lengths(node: ir.Node, index: int) -> Kind | None:
    if index != 1:
        return None
    return _lengths(_dims(node.inputs[0]), node.attributes.get_int("time_axis", 0))


def _lengths(dims: list[int | Size | None], axis: int) -> Kind:
    size = dims[axis] if axis < len(dims) else None
    return Kind("lengths", (size,)) if size else _ONE


def _compared(node: ir.Node, index: int) -> Kind | None:
    other = _constant(node.inputs[1 - index])
    if other is None or other.size == 0:
        return None
    first = other.reshape(-1)[0]
    if other.size > 1:  # compared with 0, 1, 2, … at once: a one-hot encoding
        return _numbers_in(other)
    return Kind("choice", (_plain(first),))


def _hidden(node: ir.Node, index: int) -> Kind | None:
    """A mask if ``node`` is ``1 - mask`` and its product with a large number hides what is 0."""
    one = _constant(node.inputs[0])
    if index != 1 or one is None or one.size != 1 or one.reshape(-1)[0] != 1:
        return None
    for use in node.outputs[0].uses():
        factor = _constant(use.node.inputs[1 - use.idx]) if use.node.op_type == "Mul" else None
        if factor is not None and factor.size == 1 and abs(float(factor.reshape(-1)[0])) >= 1e3:
            return Kind("mask")
    return None


def _power(node: ir.Node, index: int) -> Kind | None:
    exponent = _constant(node.inputs[1])
    whole = exponent is not None and bool(np.all(exponent == np.rint(exponent)))
    return _POSITIVE if index == 0 and not whole else None


def _numbers_in(table: Array) -> Kind | None:
    if table.dtype.kind not in "iuf":
        return None
    return Kind("integers", (int(table.min()), int(table.max()) + 1))


def _vocabulary(node: ir.Node) -> Kind | None:
    """The categories, or the range of thresholds, that an operator of ``ai.onnx.ml`` knows."""
    for name in ("keys_strings", "cats_strings", "pool_strings"):
        if name in node.attributes:
            return Kind("choice", tuple(node.attributes[name].as_strings())[:32])
    for name in ("keys_int64s", "cats_int64s", "pool_int64s"):
        if name in node.attributes:
            return _numbers_in(np.array(node.attributes[name].as_ints()))
    if "nodes_values" in node.attributes:
        thresholds = node.attributes["nodes_values"].as_floats()
        return Kind("uniform", (float(min(thresholds)) - 1, float(max(thresholds)) + 1))
    return None


def _plain(value: Any) -> Argument:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else np.asarray(value).item()


_RULES: dict[str, Callable[[ir.Node, int], Kind | None]] = {
    "Gather": _along_axis,
    "GatherElements": _along_axis,
    "ScatterElements": _along_axis,
    "GatherND": _gather_nd,
    "ScatterND": _gather_nd,
    "OneHot": _one_hot,
    "EmbedLayerNormalization": _embed_layer_norm,
    "LSTM": _recurrent_lengths,
    "GRU": _recurrent_lengths,
    "RNN": _recurrent_lengths,
    "ReverseSequence": _reverse_lengths,
    "Equal": _compared,
    "Pow": _power,
    "Sub": _hidden,
}
