"""What operators make of partly known integers; the semantics are those of ONNX's operators.

See https://onnx.ai/onnx/operators/. Only what computes on shapes is here: whatever is wholly
constant is left to ONNX Runtime.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..base import Array
from .partial import LIMIT, TYPES, Call, Item, Partial, UnknownError, as_items

Rule: TypeAlias = Callable[[Call], Sequence[Partial]]
"""What is known of the outputs of a node, in order. Raises ``UnknownError`` if nothing is."""


def _same(change: Callable[[Array, Call], Any]) -> Rule:
    """The rule of an operator that only moves elements of its first input."""

    def rule(call: Call) -> Sequence[Partial]:
        first = call.partial(0)
        return [Partial(first.dtype, as_items(change(first.items, call)))]

    return rule


def _elementwise(function: Callable[[Item, Item], Item], dtype: ir.DataType | None = None) -> Rule:
    """The rule of a binary, or variadic, operator with broadcasting."""
    ufunc = np.frompyfunc(function, 2, 1)

    def rule(call: Call) -> Sequence[Partial]:
        parts = [call.partial(index) for index in range(len(call.node.inputs))]
        items = functools.reduce(ufunc, [part.items for part in parts])
        return [Partial(dtype or parts[0].dtype, as_items(items))]

    return rule


def _add(a: Item, b: Item) -> Item:
    if a == 0 or b == 0:
        return b if a == 0 else a
    return a + b if isinstance(a, int) and isinstance(b, int) else None


def _sub(a: Item, b: Item) -> Item:
    if b == 0 or (a == b and a is not None):
        return a if b == 0 else 0
    return a - b if isinstance(a, int) and isinstance(b, int) else None


def _mul(a: Item, b: Item) -> Item:
    if a == 0 or b == 0:
        return 0
    if a == 1 or b == 1:
        return b if a == 1 else a
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def _div(a: Item, b: Item) -> Item:
    if b == 1:
        return a
    if not (isinstance(a, int) and isinstance(b, int)) or b == 0:
        return None
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _min(a: Item, b: Item) -> Item:
    smaller = _less(a, b)
    return None if smaller is None else a if smaller else b


def _max(a: Item, b: Item) -> Item:
    smaller = _less(a, b)
    return None if smaller is None else b if smaller else a


def _range_of(item: Item) -> tuple[float, float]:
    if isinstance(item, int):
        return item, item
    return (0, math.inf) if isinstance(item, str) else (-math.inf, math.inf)


def _less(a: Item, b: Item) -> int | None:
    if a == b and a is not None:
        return 0
    (low_a, high_a), (low_b, high_b) = _range_of(a), _range_of(b)
    if high_a < low_b:
        return 1
    return 0 if low_a >= high_b else None


def _equal(a: Item, b: Item) -> int | None:
    if a == b and a is not None:
        return 1
    (low_a, high_a), (low_b, high_b) = _range_of(a), _range_of(b)
    return 0 if high_a < low_b or high_b < low_a else None


def _not(item: Item) -> Item:
    return None if item is None else int(item == 0)


def _and(a: Item, b: Item) -> Item:
    if a == 0 or b == 0:
        return 0
    return None if a is None or b is None else 1


def _or(a: Item, b: Item) -> Item:
    if a == 1 or b == 1:
        return 1
    return None if a is None or b is None else 0


def _choose(condition: Item, a: Item, b: Item) -> Item:
    if condition is None:
        return a if a == b else None
    return a if condition else b


def _where(call: Call) -> Sequence[Partial]:
    condition, a, b = (call.partial(index) for index in range(3))
    items = np.frompyfunc(_choose, 3, 1)(condition.items, a.items, b.items)
    return [Partial(a.dtype, as_items(items))]


def _mod(call: Call) -> Sequence[Partial]:
    a, b = call.partial(0), call.partial(1)
    truncating = call.number("fmod", 0) != 0

    def mod(x: Item, y: Item) -> Item:
        if not (isinstance(x, int) and isinstance(y, int)) or y == 0:
            return None
        return int(math.copysign(1, x)) * (abs(x) % abs(y)) if truncating else x % y

    return [Partial(a.dtype, as_items(np.frompyfunc(mod, 2, 1)(a.items, b.items)))]


def _shape(call: Call) -> Sequence[Partial]:
    dims = call.dims()
    part = dims[call.number("start", 0) : call.number("end", len(dims))]
    return [Partial(ir.DataType.INT64, _line(part))]


def _size(call: Call) -> Sequence[Partial]:
    one: Item = 1
    return [Partial(ir.DataType.INT64, as_items(functools.reduce(_mul, call.dims(), one)))]


def _line(items: Sequence[Item]) -> Array:
    line = np.empty(len(items), object)
    line[:] = items
    return line


def _cast(call: Call) -> Sequence[Partial]:
    first, dtype = call.partial(0), ir.DataType(call.number("to", 0))
    if dtype not in TYPES:
        raise UnknownError
    if dtype != ir.DataType.BOOL:
        return [Partial(dtype, first.items.copy())]
    truth = np.frompyfunc(lambda item: _not(_equal(item, 0)), 1, 1)
    return [Partial(dtype, as_items(truth(first.items)))]


def _unsqueeze(items: Array, call: Call) -> Array:
    return np.expand_dims(items, tuple(call.numbers(1, "axes") or ()))


def _squeeze(items: Array, call: Call) -> Array:
    axes = call.numbers(1, "axes")
    return np.squeeze(items, None if axes is None else tuple(axes))


def _reshape(items: Array, call: Call) -> Array:
    target = [int(size) for size in call.ints(1)]
    if not call.number("allowzero", 0):
        target = [size or items.shape[axis] for axis, size in enumerate(target)]
    return items.reshape(target)


def _gather(items: Array, call: Call) -> Any:
    return np.take(items, call.ints(1), axis=call.number("axis", 0))


def _slice(items: Array, call: Call) -> Array:
    starts, ends = call.numbers(1, "starts"), call.numbers(2, "ends")
    axes, steps = call.numbers(3, "axes"), call.numbers(4, "steps")
    if starts is None or ends is None:
        raise UnknownError
    where = [slice(None)] * items.ndim
    axes = list(range(len(starts))) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        where[axis] = slice(start, end, step)
    return items[tuple(where)]


def _concat(call: Call) -> Sequence[Partial]:
    parts, dtype = [], None
    for index, value in enumerate(call.node.inputs):
        try:
            part = call.partial(index)
            dtype, items = part.dtype, part.items
        except UnknownError:
            sizes = [size for size in call.dims(index) if isinstance(size, int)]
            if value is None or len(sizes) < len(call.dims(index)) or math.prod(sizes) > LIMIT:
                raise
            items = np.full(sizes, None, object)
        parts.append(items)
    if dtype is None:
        raise UnknownError
    return [Partial(dtype, np.concatenate(parts, axis=call.number("axis", 0)))]


def _split(call: Call) -> Sequence[Partial]:
    first, axis = call.partial(0), call.number("axis", 0)
    sizes = call.numbers(1, "split")
    if sizes is None:
        count = len(call.node.outputs)
        longest = -(-first.items.shape[axis] // count)
        cuts = [longest * part for part in range(1, count)]
    else:
        cuts = np.cumsum(sizes)[:-1].tolist()
    return [Partial(first.dtype, part.copy()) for part in np.split(first.items, cuts, axis)]


def _expand(items: Array, call: Call) -> Array:
    shape = np.broadcast_shapes(items.shape, tuple(call.ints(1).tolist()))
    if math.prod(shape) > LIMIT:
        raise UnknownError
    return np.broadcast_to(items, shape)


def _constant_of_shape(call: Call) -> Sequence[Partial]:
    given = call.node.attributes.get("value")
    value: ir.TensorProtocol | None = None if given is None else given.value
    shape = call.ints(0).tolist()
    if value is None or value.dtype not in TYPES or math.prod(shape) > LIMIT:
        raise UnknownError
    return [Partial(value.dtype, np.full(shape, int(value.numpy().item()), object))]


def _range(call: Call) -> Sequence[Partial]:
    start, limit, delta = (int(call.ints(index).item()) for index in range(3))
    if delta == 0 or (limit - start) // delta > LIMIT:
        raise UnknownError
    return [Partial(call.partial(0).dtype, _line(list(range(start, limit, delta))))]


def _reduce_prod(call: Call) -> Sequence[Partial]:
    first, axes = call.partial(0), call.numbers(1, "axes")
    if not axes:
        if call.number("noop_with_empty_axes", 0):
            return [first]
        axes = list(range(first.items.ndim))
    items: Any = first.items
    for axis in sorted((axis % items.ndim for axis in axes), reverse=True):
        items = as_items(np.frompyfunc(_mul, 2, 1).reduce(items, axis, initial=1))
        if call.number("keepdims", 1):
            items = np.expand_dims(items, axis)
    return [Partial(first.dtype, items)]


def _unary(function: Callable[[Item], Item]) -> Rule:
    return _same(lambda items, _: np.frompyfunc(function, 1, 1)(items))


_BOOL = ir.DataType.BOOL

RULES: Final[dict[str, Rule]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same(lambda items, _: items),
    "Cast": _cast,
    "Unsqueeze": _same(_unsqueeze),
    "Squeeze": _same(_squeeze),
    "Reshape": _same(_reshape),
    "Gather": _same(_gather),
    "Slice": _same(_slice),
    "Concat": _concat,
    "Split": _split,
    "Expand": _same(_expand),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Add": _elementwise(_add),
    "Sub": _elementwise(_sub),
    "Mul": _elementwise(_mul),
    "Div": _elementwise(_div),
    "Mod": _mod,
    "Min": _elementwise(_min),
    "Max": _elementwise(_max),
    "Neg": _unary(lambda item: _sub(0, item)),
    "ReduceProd": _reduce_prod,
    "Equal": _elementwise(_equal, _BOOL),
    "Less": _elementwise(_less, _BOOL),
    "Greater": _elementwise(lambda a, b: _less(b, a), _BOOL),
    "LessOrEqual": _elementwise(lambda a, b: _not(_less(b, a)), _BOOL),
    "GreaterOrEqual": _elementwise(lambda a, b: _not(_less(a, b)), _BOOL),
    "And": _elementwise(_and),
    "Or": _elementwise(_or),
    "Not": _unary(_not),
    "Where": _where,
}
"""The operators that are followed, by type; all of ONNX's own domain."""
