"""Compute sizes of tensors in fewer nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Item
from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..graph import constant, feeds_only, graph_of, is_op, nodes_in, take_over
from .constants import ConstantWriter, drop_unused

_SINCE: Final = 15
"""The version since which ``Shape`` gives some of the sizes."""


@dataclass(frozen=True)
class SimplifyShapes(Pass):
    """Read sizes where they are needed, and not at all where they need not be known. ::

        Gather(Shape(x), [1, 2])  =  Shape<start=1, end=3>(x)        Slice(Shape(x), 1:3)  likewise
        Unsqueeze(Gather(Shape(x), 1))  =  Shape<start=1, end=2>(x)
        Reshape(x, Concat(Shape(x)[0:1], [4], n))  =  Reshape(x, Concat([0, 4], n))

    In the target of a ``Reshape``, 0 copies the size that the same axis has already; in that of
    an ``Expand``, 1 leaves it as it is. Exact for all sizes, also zero. The first needs version
    15 of ONNX's operators, and indices that follow one another.
    """

    name: ClassVar[str] = "simplify-shapes"
    summary: ClassVar[str] = "read sizes in fewer nodes, and only those that are needed"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Shorten what computes sizes."""
        del context
        simplifier = _Simplifier(model)
        for root in (model.graph, *(function.graph for function in model.functions.values())):
            opset = root.opset_imports.get("", 0)
            for node in nodes_in(root):
                if node.domain or any(a.is_ref() for a in node.attributes.values()):
                    continue
                if node.op_type in _REACHES and opset >= _SINCE:
                    simplifier.read_directly(node)
                elif node.op_type in {"Expand", "Reshape"}:
                    simplifier.copy_sizes(node)
        drop_unused(*simplifier.replaced)
        return simplifier.result


class _Simplifier:
    """Shortens the shapes of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.result = Result(model)
        self.replaced: list[ir.Value | None] = []
        self._model = model

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._model)

    @cached_property
    def _writer(self) -> ConstantWriter:
        return ConstantWriter(self._model)

    def read_directly(self, node: ir.Node) -> None:
        """Make one ``Shape`` of ``node`` and the ``Shape`` that it takes sizes from."""
        taking = node.inputs[0].producer() if node.inputs[0] is not None else None
        shape = taking
        if is_op(node, "Unsqueeze") and is_op(taking, "Gather"):
            if not feeds_only(taking.outputs[0], node) or taking.inputs[0] is None:
                return
            shape = taking.inputs[0].producer()
        if not is_op(shape, "Shape") or shape.attributes:
            return
        if (reach := _REACHES[node.op_type](node)) is None:
            return
        start, end = reach
        attributes = [ir.AttrInt64("start", start)]
        if end is not None:
            attributes.append(ir.AttrInt64("end", end))
        direct = ir.Node("", "Shape", shape.inputs, attributes, name=node.name)
        graph_of(node).insert_before(node, direct)
        self.result.rewrote(node)
        old = node.outputs[0]
        take_over(direct.outputs[0], old)
        self.replaced.append(old)

    def copy_sizes(self, node: ir.Node) -> None:
        """Leave those sizes out of the target of ``node`` that its input has already."""
        source, target = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        if source is None or target is None or not is_op(join := target.producer(), "Concat"):
            return
        if not feeds_only(target, node) or node.attributes.get_int("allowzero", 0) != 0:
            return
        self._facts.follow_to(target)
        self._facts.follow_to(source)
        sizes, dims = self._facts.partial(target), self._facts.dims(source)
        if sizes is None or dims is None or len(join.inputs) < 2:
            return
        items: list[Item] = sizes.items.tolist()
        offset = len(items) - len(dims) if node.op_type == "Expand" else 0
        for place, item in enumerate(items):
            axis = place - offset
            if not isinstance(item, int) and 0 <= axis < len(dims) and dims[axis] == item:
                items[place] = int(node.op_type == "Expand")
        parts = self._parts(join, items)
        if parts is None:
            return
        inputs = [
            self._writer.add(graph_of(join), f"{target.name}.sizes", part, join)
            if isinstance(part, np.ndarray)
            else part
            for part in parts
        ]
        again = ir.Node("", "Concat", inputs, [ir.AttrInt64("axis", 0)], name=join.name)
        graph_of(join).insert_before(join, again)
        self.result.rewrote(join)
        take_over(again.outputs[0], target)
        self.replaced.append(target)

    def _parts(self, join: ir.Node, items: Sequence[Item]) -> list[ir.Value | Array] | None:
        """What ``join`` has to join where ``items`` are known; ``None`` if no less than it does."""
        parts: list[ir.Value | Array] = []
        place, gained = 0, False
        for value in join.inputs:
            dims = None if value is None else self._facts.dims(value)
            if value is None or dims is None or len(dims) != 1 or not isinstance(dims[0], int):
                return None
            own = items[place : place + dims[0]]
            place += dims[0]
            if not all(isinstance(item, int) for item in own):
                parts.append(value)
                continue
            gained |= constant(value) is None
            known = np.array(own, np.int64)
            if parts and isinstance(parts[-1], np.ndarray):
                parts[-1] = np.concatenate([parts[-1], known])
            else:
                parts.append(known)
        return parts if gained and place == len(items) else None


def _gathered(node: ir.Node) -> tuple[int, int | None] | None:
    """The sizes that ``node`` takes, from one up to another; the last one where there is none."""
    indices = constant(node.inputs[1])
    if indices is None or indices.ndim != 1 or not indices.size:
        return None
    first, last = int(indices[0]), int(indices[-1])
    if indices.tolist() != list(range(first, last + 1)) or (first < 0) != (last < 0):
        return None
    return first, None if last == -1 else last + 1


def _sliced(node: ir.Node) -> tuple[int, int | None] | None:
    arrays = [None if value is None else constant(value) for value in node.inputs[1:]]
    given = [value for value in node.inputs[1:] if value is not None]
    if len(arrays) < 2 or any(a is None or a.size != 1 for a in arrays[: len(given)]):
        return None
    numbers = [int(array.item()) for array in arrays if array is not None]
    if numbers[2:] not in ([], [0], [0, 1], [-1], [-1, 1]):
        return None
    start, end = numbers[:2]
    return start, None if end >= 2**31 - 1 else end


def _unsqueezed(node: ir.Node) -> tuple[int, int | None] | None:
    """The size that a ``Gather`` takes which ``node`` makes a vector of."""
    gather = node.inputs[0].producer() if node.inputs[0] is not None else None
    if gather is None or len(node.inputs) < 2 or node.inputs[1] is None:
        return None
    index = constant(gather.inputs[1]) if is_op(gather, "Gather") else None
    if index is None or index.ndim:
        return None
    return int(index), None if int(index) == -1 else int(index) + 1


_REACHES: Final = {"Gather": _gathered, "Slice": _sliced, "Unsqueeze": _unsqueezed}
"""For each operator that takes sizes from a ``Shape``, which ones."""
