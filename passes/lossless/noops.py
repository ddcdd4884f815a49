"""Nodes that answer with one of their inputs as it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final, TypeAlias

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..graph import constant, is_op
from .foldable import trains
from .movement import Places


class NoOps:
    """Says of nodes what they repeat, looking at sizes only where a node depends on them."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._facts = Facts(model)

    @cached_property
    def places(self) -> Places:
        """Where constants are written."""
        return Places(self._model)

    def repeated(self, node: ir.Node) -> ir.Value | None:
        """The value that the first output of ``node`` repeats exactly, if it does.

        That is for certain: the operator, its attributes and constants, and the types and sizes
        that are known say so. Its other outputs are not read then.
        """
        rule = _RULES.get(node.op_type)
        if rule is None or node.domain or any(a.is_ref() for a in node.attributes.values()):
            return None
        source = node.inputs[0] if node.inputs else None
        if source is None or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            return None
        return rule(self, node, source)

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``, if its rank is known."""
        self._facts.follow_to(value)
        return self._facts.dims(value)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type of ``value``."""
        return self._facts.dtype(value)


def _may_have_rank(value: ir.Value, rank: int) -> bool:
    """Whether ``value`` is not declared to have another rank; if it is, why look further."""
    return value.shape is None or len(value.shape) == rank


_Rule: TypeAlias = Callable[[NoOps, ir.Node, ir.Value], ir.Value | None]


def _numbers(node: ir.Node, index: int, name: str) -> list[float] | None:
    """What old versions of an operator take as an attribute and newer ones as a constant input."""
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constant(node.inputs[index])
        return None if array is None else array.reshape(-1).tolist()
    return list(node.attributes[name].value) if name in node.attributes else None


def _always(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    del known, node
    return source


def _alone(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    del known
    return source if len(node.inputs) == len(node.outputs) == 1 else None


def _dropout(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    del known
    return None if trains(node) else source


def _cast(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    target = ir.DataType(node.attributes.get_int("to", 0))
    return source if known.dtype(source) == target else None


def _cast_like(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    like = node.inputs[1]
    same = like is not None and known.dtype(source) == known.dtype(like) is not None
    return source if same else None


def _transpose(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    """Also of a ``Transpose`` that undoes the one before."""
    del known
    perm = node.attributes.get_ints("perm", ())
    if perm and list(perm) == sorted(perm):
        return source
    before = source.producer()
    if not perm or not is_op(before, "Transpose") or before.inputs[0] is None:
        return None
    first = before.attributes.get_ints("perm", ())
    undone = len(first) == len(perm) and [first[axis] for axis in perm] == sorted(perm)
    return before.inputs[0] if undone else None


def _pad(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    del known
    pads = _numbers(node, 1, "pads")
    return source if pads is not None and not any(pads) else None


def _tile(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    del known
    repeats = _numbers(node, 1, "repeats")
    return source if repeats is not None and all(times == 1 for times in repeats) else None


def _slice(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    starts, ends = _numbers(node, 1, "starts"), _numbers(node, 2, "ends")
    steps = _numbers(node, 4, "steps")
    if starts is None or ends is None or any(starts) or any(step != 1 for step in steps or ()):
        return None
    if len(node.inputs) > 4 and node.inputs[4] is not None and steps is None:
        return None
    if all(end >= 2**31 - 1 for end in ends):
        return source
    axes = _numbers(node, 3, "axes")
    if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
        return None
    places = [int(axis) for axis in axes] if axes is not None else list(range(len(ends)))

    def is_whole(dims: ir.Shape | Dims) -> bool:
        pairs = zip((dims[axis] for axis in places), ends, strict=True)
        return all(isinstance(size, int) and end >= size for size, end in pairs)

    if source.shape is not None and not is_whole(source.shape):
        return None
    dims = known.dims(source)
    return source if dims is not None and is_whole(dims) else None


def _expand(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    target = _numbers(node, 1, "shape")
    if target is None:
        return None
    return source if _fits(known.dims(source), tuple(int(size) for size in target)) else None


def _reshape(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    """Copies every size, or names it, but for one that is left over."""
    target = _numbers(node, 1, "shape")
    if target is None or not _may_have_rank(source, len(target)):
        return None
    dims = known.dims(source)
    if dims is None or len(dims) != len(target):
        return None
    copies = node.attributes.get_int("allowzero", 0) == 0
    same = [size == dim or (size == 0 and copies) for size, dim in zip(target, dims, strict=True)]
    left_over = same.count(False) == 1 and target[same.index(False)] == -1
    return source if all(same) or left_over else None


def _flatten(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    if node.attributes.get_int("axis", 1) not in {1, -1} or not _may_have_rank(source, 2):
        return None
    return source if len(known.dims(source) or ()) == 2 else None


def _neutral(known: NoOps, node: ir.Node, source: ir.Value) -> ir.Value | None:
    """One added, subtracted, multiplied or divided by what changes nothing."""
    neutral = 1 if node.op_type in {"Mul", "Div"} else 0
    both = node.op_type in {"Add", "Mul"}
    pairs = [(source, node.inputs[1]), (node.inputs[1], source)][: 2 if both else 1]
    for kept, other in pairs:
        array = constant(other)
        if kept is None or array is None or not array.size or array.flat[0] != neutral:
            continue
        if (array == neutral).all() and (array.ndim == 0 or _fits(known.dims(kept), array.shape)):
            return kept
    return None


def _fits(dims: Dims | None, shape: tuple[int, ...]) -> bool:
    """Whether what has ``dims`` keeps them if it meets a constant of ``shape``."""
    if dims is None or len(dims) < len(shape):
        return False
    last = dims[len(dims) - len(shape) :]
    return all(size in {1, dim} for size, dim in zip(shape, last, strict=True))


_RULES: Final[dict[str, _Rule]] = {
    "Add": _neutral,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _alone,
    "Div": _neutral,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _always,
    "Max": _alone,
    "Mean": _alone,
    "Min": _alone,
    "Mul": _neutral,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _alone,
    "Sub": _neutral,
    "Sum": _alone,
    "Tile": _tile,
    "Transpose": _transpose,
}
"""For each operator that may repeat an input, when it does."""
