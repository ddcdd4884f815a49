"""Values of several branches in one tensor, and the nodes that put them there and take them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..base import Array
from ..graph import Names, constant, is_constant

NEW: Final = -1
"""The place of an axis of branches that stands before all others."""


class Unfit(Exception):  # noqa: N818 - it ends a branch, it is no error
    """What keeps nodes apart; the message is a reason for the report."""


@dataclass(frozen=True)
class Stacked:
    """Values of one shape in one tensor.

    Attributes:
        value: The tensor.
        count: How many values.
        dims: The shape of each, as far as known.
        axis: The axis along which they are concatenated; :data:`NEW` for one of their own in front.
        tail: How many axes of length 1 follow in ``value`` beyond those of ``dims``.
    """

    value: ir.Value
    count: int
    dims: Dims
    axis: int
    tail: int = 0

    @property
    def rank(self) -> int:
        """The rank of each value."""
        return len(self.dims)

    def size(self, axis: int) -> int:
        """The length of an axis of each value.

        Raises:
            Unfit: It is not fixed.
        """
        size = self.dims[axis]
        if not isinstance(size, int):
            raise Unfit("a size that the layout needs is not fixed")
        return size


class Stacker:
    """Writes nodes on stacked values."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.graph = model.graph
        self.opset = model.opset_imports.get("", 0)
        self.facts = facts
        self.names = Names(model)
        self._number = 0
        self._constants: list[ir.Value] = []

    def dims(self, value: ir.Value | None) -> Dims:
        """The shape of ``value``.

        Raises:
            Unfit: Not even its rank is known.
        """
        dims = None if value is None else self.facts.dims(value)
        if dims is None:
            raise Unfit("the number of axes is not known")
        return dims

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        like: ir.Node | None = None,
        outputs: Sequence[bool] = (True,),
    ) -> ir.Value:
        """The first output of a new node; with the domain and attributes of ``like``, if given.

        ``outputs`` says which there are; the others are left out.
        """
        kept = {} if like is None else {a.name: a for a in like.attributes.values()}
        for name, value in (attributes or {}).items():
            kept[name] = ir.convenience.convert_attribute(name, value)
        name = self.names.fresh(f"stacked/{op_type}.{self._number}")
        self._number += 1
        node = ir.Node(
            "" if like is None else like.domain,
            op_type,
            list(inputs),
            list(kept.values()),
            outputs=[
                ir.Value(name=(f"{name}/{at}" if at else name) if there else "")
                for at, there in enumerate(outputs)
            ],
            name=name,
        )
        self.graph.append(node)
        return node.outputs[0]

    def constant(self, array: Array) -> ir.Value:
        """A new initializer."""
        name = self.names.fresh("stacked/constant")
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        self._constants.append(value)
        return value

    def mark(self) -> ir.Node:
        """The last node so far, for :meth:`undo`."""
        return self.graph[-1]

    def undo(self, last: ir.Node) -> None:
        """Take away every node after ``last``."""
        while (node := self.graph[-1]) is not last:
            self.graph.remove(node, safe=True)

    def finish(self) -> None:
        """Take away constants that nothing reads, and put the nodes in order."""
        for value in self._constants:
            if not value.uses() and value.name:
                del self.graph.initializers[value.name]
        self.graph.sort()

    def reduce_branches(self, kind: str, value: ir.Value) -> ir.Value:
        """Reduce the axis of branches in front."""
        by_input = self.opset >= (13 if kind == "ReduceSum" else 18)
        if by_input:
            front = self.constant(np.array([0], np.int64))
            return self.op(kind, [value, front], {"keepdims": 0})
        return self.op(kind, [value], {"axes": [0], "keepdims": 0})

    def reshape(self, value: ir.Value, target: Sequence[int]) -> ir.Value:
        """``Reshape`` to ``target``: 0 keeps a size, -1 is what is left."""
        return self.op("Reshape", [value, self.constant(np.array(target, np.int64))])

    def untailed(self, stacked: Stacked) -> Stacked:
        """Without the axes of length 1 at the end."""
        if not stacked.tail:
            return stacked
        target = [0] * stacked.rank
        value = self.reshape(stacked.value, target)
        return Stacked(value, stacked.count, stacked.dims, stacked.axis)

    def in_front(self, stacked: Stacked) -> Stacked:
        """With an axis of branches of its own in front.

        Raises:
            Unfit: Too many sizes are not known.
        """
        stacked = self.untailed(stacked)
        if stacked.axis == NEW:
            return stacked
        axis, count = stacked.axis, stacked.count
        later = list(stacked.dims[axis:])
        unknown = [at for at, size in enumerate(later) if not isinstance(size, int)]
        if len(unknown) > 1:
            raise Unfit("more than one size is not fixed")
        target = [0] * axis + [count]
        target += [size if isinstance(size, int) else -1 for size in later]
        split = self.reshape(stacked.value, target)
        perm = [axis, *range(axis), *range(axis + 1, stacked.rank + 1)]
        value = self.op("Transpose", [split], {"perm": perm}) if axis else split
        return Stacked(value, count, stacked.dims, NEW)

    def along(self, stacked: Stacked, axis: int) -> Stacked:
        """Concatenated along ``axis``.

        Raises:
            Unfit: Too many sizes are not known.
        """
        stacked = self.untailed(stacked)
        if stacked.axis == axis:
            return stacked
        front = self.in_front(stacked)
        rank = front.rank
        perm = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
        moved = self.op("Transpose", [front.value], {"perm": perm}) if axis else front.value
        later = list(front.dims[axis + 1 :])
        target = [0] * axis + [front.count * front.size(axis)]
        unknown = sum(not isinstance(size, int) for size in later)
        if unknown > 1:
            raise Unfit("more than one size is not fixed")
        target += [size if isinstance(size, int) else -1 for size in later]
        return Stacked(self.reshape(moved, target), front.count, front.dims, axis)

    def apart(self, stacked: Stacked) -> list[ir.Value]:
        """Each of the values by itself."""
        stacked = self.untailed(stacked)
        axis = 0 if stacked.axis == NEW else stacked.axis
        count = stacked.count
        inputs = [stacked.value]
        attributes: dict[str, Any] = {"axis": axis}
        if self.opset >= 18:
            attributes["num_outputs"] = count
        name = self.names.fresh(f"stacked/Split.{self._number}")
        self._number += 1
        outputs = [ir.Value(name=self.names.fresh(f"{name}/{at}")) for at in range(count)]
        node = ir.Node(
            "",
            "Split",
            inputs,
            ir.convenience.convert_attributes(attributes),
            outputs=outputs,
            name=name,
        )
        self.graph.append(node)
        if stacked.axis != NEW:
            return outputs
        if self.opset < 13:
            return [self.op("Squeeze", [one], {"axes": [0]}) for one in outputs]
        front = self.constant(np.array([0], np.int64))
        return [self.op("Squeeze", [one, front]) for one in outputs]

    def weights(self, values: Sequence[ir.Value | None]) -> list[Array]:
        """What constants hold.

        Raises:
            Unfit: One is none, or their shapes differ.
        """
        found = []
        for value in values:
            array = constant(value)
            if array is None:
                raise Unfit("a weight is not constant")
            found.append(array)
        if len({array.shape for array in found}) > 1:
            raise Unfit("the weights differ in shape")
        return found

    def operand(self, values: Sequence[ir.Value | None], stacked: Stacked) -> ir.Value:
        """Constants that meet ``stacked`` in an elementwise operator, laid out like it.

        Raises:
            Unfit: They change its shape.
        """
        arrays = self.weights(values)
        rank, axis = stacked.rank, stacked.axis
        if arrays[0].ndim > rank:
            raise Unfit("a constant has more axes than what it meets")
        aligned = [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in arrays]
        for size, known in zip(aligned[0].shape, stacked.dims, strict=True):
            if size not in {1, known}:
                raise Unfit("a constant makes the values larger")
        first = values[0]
        same = all(np.array_equal(array, arrays[0]) for array in arrays)
        if same and first is not None and (axis == NEW or aligned[0].shape[axis] == 1):
            return first if not stacked.tail else self._tailed(aligned[0], stacked.tail)
        if axis == NEW:
            return self.constant(np.stack(aligned))
        size = stacked.size(axis)
        full = [
            np.repeat(array, size, axis) if array.shape[axis] == 1 else array for array in aligned
        ]
        return self._tailed(np.concatenate(full, axis), stacked.tail)

    def _tailed(self, array: Array, tail: int) -> ir.Value:
        return self.constant(array.reshape(array.shape + (1,) * tail))

    def shared(self, values: Sequence[ir.Value | None]) -> ir.Value | None:
        """The one value that all of ``values`` are, if they are; constants never."""
        first = values[0]
        if first is None or is_constant(first) or any(value is not first for value in values):
            return None
        return first
