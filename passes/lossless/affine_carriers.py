"""Operators that affine maps pass: what a map on one side of them is on the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..analysis.channel_reshapes import blocks
from ..base import Array
from ..graph import is_op
from .affine import Affine
from .affine_sizes import Sizes
from .constants import resolved_constant
from .foldable import trains

_MOVES = "which does not keep its channels"
_SHIFT = "which a shift does not pass"
_HALF = "which may overflow in half precision"
_NOTHING = ir.Value(name="")
_LIMIT = 1 << 20
"""Runs of axes that a Reshape joins or splits are followed up to this many elements."""


@dataclass(frozen=True)
class Passage:
    """An affine map at one side of a node, and what is known of the values there."""

    node: ir.Node
    affine: Affine
    forward: bool
    sizes: Sizes

    @property
    def near(self) -> ir.Value:
        """The value that the map is on."""
        return self._ends[0]

    @property
    def far(self) -> ir.Value:
        """The value that it is to pass to."""
        return self._ends[1]

    @property
    def _ends(self) -> tuple[ir.Value, ir.Value]:
        source, output = self.node.inputs[0] or _NOTHING, self.node.outputs[0]
        return (source, output) if self.forward else (output, source)

    @property
    def axis(self) -> int | None:
        """Where the channels lie in :attr:`near`."""
        return None if self.affine.spread else self.sizes.axis(self.affine, self.near)

    @property
    def is_half(self) -> bool:
        """Whether it is on values of half precision."""
        return self.sizes.dtype(self.near) == ir.DataType.FLOAT16

    def ints(self, index: int, name: str) -> list[int] | None:
        """What old versions of the operator take as an attribute and newer ones as an input."""
        if index < len(self.node.inputs) and self.node.inputs[index] is not None:
            array = resolved_constant(self.node.inputs[index])
            return None if array is None else [int(number) for number in array.reshape(-1)]
        return list(self.node.attributes.get_ints(name, ()))


Rule: TypeAlias = Callable[[Passage], "Affine | str"]
"""The map on the far side, or a clause that says why it does not pass."""


def carried(passage: Passage, rules: dict[str, Rule]) -> Affine | str | None:
    """What the map of ``passage`` becomes beyond its node; ``None`` if it is no carrier."""
    node = passage.node
    rule = rules.get(node.op_type)
    if rule is None or node.domain not in {"", "ai.onnx"}:
        return None
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "an attribute of which is set by the caller of the function"
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "a further output of which is read"
    return rule(passage)


def _same(passage: Passage) -> Affine | str:
    return _MOVES if trains(passage.node) else passage.affine


def _homogeneous(passage: Passage) -> Affine | str:
    """What is exact for factors that are not negative."""
    if passage.affine.shifts:
        return _SHIFT
    return "which needs positive factors" if (passage.affine.scale < 0).any() else passage.affine


def _pooling(passage: Passage) -> Affine | str:
    node, affine = passage.node, passage.affine
    if not affine.uniform and passage.axis != 1:
        return _MOVES
    if "Max" in node.op_type and (affine.scale < 0).any():
        return "which needs positive factors"
    if "Average" in node.op_type and passage.is_half:
        return _HALF
    counts = node.attributes.get_int("count_include_pad", 0)
    pads = any(node.attributes.get_ints("pads", ())) or bool(
        node.attributes.get_int("ceil_mode", 0)
    )
    automatic = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    if affine.shifts and counts and (pads or automatic):
        return _SHIFT
    return affine if affine.uniform else affine.along(1)


def _reduction(passage: Passage) -> Affine | str:
    node, affine = passage.node, passage.affine
    if node.op_type in {"ReduceMean", "ReduceSum"} and passage.is_half:
        return _HALF
    if node.op_type in {"ReduceMax", "ReduceMin"} and (affine.scale < 0).any():
        return "which needs positive factors"
    if node.op_type == "ReduceSum" and affine.shifts:
        return _SHIFT
    if affine.uniform:
        return affine
    source = node.inputs[0]
    rank = None if source is None else passage.sizes.rank(source)
    axes, axis = passage.ints(1, "axes"), passage.axis
    if rank is None or axis is None or not axes:
        return _MOVES
    gone = {one % rank for one in axes}
    if node.attributes.get_int("keepdims", 1):
        return _MOVES if axis in gone else affine.along(axis)
    left = [one for one in range(rank) if one not in gone]
    if not passage.forward:
        return affine.along(left[axis])
    return affine.along(left.index(axis)) if axis in left else _MOVES


def _keeps_axis(passage: Passage) -> Affine | str:
    """What changes some axes, but none whose size it keeps."""
    affine = passage.affine
    if affine.uniform:
        return affine
    if (axis := passage.axis) is None:
        return _MOVES
    ends = passage.near, passage.far
    ranks = {passage.sizes.rank(value) for value in ends}
    sizes = {passage.sizes.size(value, axis) for value in ends}
    kept = len(ranks) == 1 and None not in ranks and sizes == {affine.scale.size}
    return affine.along(axis) if kept else _MOVES


def _slice(passage: Passage) -> Affine | str:
    """As long as the channels do not change places, which is where a step is negative."""
    steps = passage.ints(4, "")
    backwards = steps is None or any(step < 0 for step in steps)
    return _MOVES if backwards and not passage.affine.uniform else _keeps_axis(passage)


def _pad(passage: Passage) -> Affine | str:
    node, affine = passage.node, passage.affine
    if node.attributes.get_string("mode", "constant") == "constant":
        value = node.attributes.get_float("value", 0.0)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            array = resolved_constant(node.inputs[2])
            if array is None or array.size != 1:
                return "the value of which is not constant"
            value = float(array.reshape(-1)[0])
        if not np.array_equal(
            value * affine.scale + affine.shift, np.full(affine.scale.shape, value)
        ):
            return "which puts the same value beside what is mapped"
    return _keeps_axis(passage)


def _resize(passage: Passage) -> Affine | str:
    mode = passage.node.attributes.get_string("coordinate_transformation_mode", "")
    cuts_out = mode == "tf_crop_and_resize"  # and puts one value where nothing is
    return _SHIFT if passage.affine.shifts and cuts_out else _keeps_axis(passage)


def _transpose(passage: Passage) -> Affine | str:
    affine = passage.affine
    if affine.uniform:
        return affine
    axis, rank = passage.axis, passage.sizes.rank(passage.near)
    perm = list(passage.node.attributes.get_ints("perm", ()))
    if not perm and rank is not None:
        perm = list(range(rank))[::-1]
    if axis is None or axis >= len(perm):
        return _MOVES
    return affine.along(perm.index(axis) if passage.forward else perm[axis])


def _reshape(passage: Passage) -> Affine | str:
    affine = passage.affine
    if affine.uniform:
        return affine
    moved = _regrouped(passage)
    if moved is not None:
        return moved
    flat = passage.forward and passage.axis == 1 and _flattens(passage)
    return Affine(affine.scale, affine.shift, 1, spread=True) if flat else _MOVES


def _regrouped(passage: Passage) -> Affine | None:
    """The map where runs of axes were joined or split, if it then lies along one axis."""
    sizes, axis = passage.sizes, passage.axis
    near, far = sizes.dims(passage.near), sizes.dims(passage.far)
    if near is None or far is None or axis is None or 0 in {*near, *far}:
        return None
    for before, after in blocks(near, far):
        if axis not in before:
            continue
        old = [size for one in before if isinstance(size := near[one], int)]
        new = [size for one in after if isinstance(size := far[one], int)]
        if len(old) < len(before) or len(new) < len(after) or math.prod(old) != math.prod(new):
            return None
        if math.prod(old) > _LIMIT or near[axis] != passage.affine.scale.size:
            return None
        place = before.index(axis)
        shape = [1] * place + [-1] + [1] * (len(old) - place - 1)
        parts = [
            np.broadcast_to(part.reshape(shape), old).reshape(new)
            for part in (passage.affine.scale, passage.affine.shift)
        ]
        return _on_one_axis(parts, after)
    return None


def _on_one_axis(parts: list[Array], axes: list[int]) -> Affine | None:
    varying = [
        place
        for place in range(len(axes))
        if any((part != part.take([0], place)).any() for part in parts)
    ]
    if len(varying) > 1:
        return None
    place = varying[0] if varying else 0
    scale, shift = (
        np.moveaxis(part, place, 0).reshape(part.shape[place], -1)[:, 0] for part in parts
    )
    return Affine(scale, shift, axes[place])


def _flattens(passage: Passage) -> bool:
    """Whether the node keeps the first axis and makes one of all others."""
    node = passage.node
    if is_op(node, "Flatten"):
        return node.attributes.get_int("axis", 1) == 1
    if is_op(node, "Reshape") and node.attributes.get_int("allowzero", 0) == 0:
        target = resolved_constant(node.inputs[1])
        return target is not None and target.tolist() == [0, -1]
    return False


def _anywhere(passage: Passage) -> Affine | str:
    """What takes elements from place to place."""
    return passage.affine if passage.affine.uniform else _MOVES


FLATTENING: Final[dict[str, Rule]] = {"Flatten": _reshape, "Reshape": _reshape}
"""What stands between convolutions and matrices."""

CARRIERS: Final[dict[str, Rule]] = {
    **FLATTENING,
    "AveragePool": _pooling,
    "DepthToSpace": _anywhere,
    "Dropout": _same,
    "Expand": _keeps_axis,
    "GlobalAveragePool": _pooling,
    "GlobalMaxPool": _pooling,
    "Identity": _same,
    "LeakyRelu": _homogeneous,
    "MaxPool": _pooling,
    "PRelu": _homogeneous,
    "Pad": _pad,
    "ReduceMax": _reduction,
    "ReduceMean": _reduction,
    "ReduceMin": _reduction,
    "ReduceSum": _reduction,
    "Relu": _homogeneous,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _anywhere,
    "Squeeze": _reshape,
    "Tile": _keeps_axis,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Upsample": _keeps_axis,
}
"""Operators that maps pass on the way to a layer."""
