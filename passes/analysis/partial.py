"""What can be known of a tensor without running: its type, its sizes, some of its integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..base import Array

Dims: TypeAlias = tuple[int | str, ...]
"""One entry per axis: its size, or a name; two axes with one name have one size."""

Item: TypeAlias = int | str | None
"""An element: its value, the name of the size that it is (never negative), or unknown."""

LIMIT: Final = 1024
"""Tensors with more elements are not followed."""

TYPES: Final[dict[ir.DataType, Any]] = {
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
    ir.DataType.BOOL: np.bool_,
}
"""The types that are followed."""


@dataclass(frozen=True)
class Partial:
    """A tensor of integers or booleans of which some elements may be known.

    ``items`` is an object array of :data:`Item` in the tensor's own shape; booleans are 0 and 1.
    """

    dtype: ir.DataType
    items: Array

    def known(self) -> Array | None:
        """The whole tensor as an array of its own type, if every element is known."""
        if all(isinstance(item, int) for item in self.items.flat):
            return self.items.astype(TYPES[self.dtype])
        return None


class UnknownError(Exception):
    """Too little is known of a node's inputs to tell anything of its outputs."""


@dataclass(frozen=True)
class Call:
    """A node that is looked at.

    Attributes:
        node: The node.
        opset: The version of ONNX's own operators.
        values: What is known of the elements of a value.
        sizes: The sizes of a value, if its rank is known.
        types: The element type of a value, if it is a tensor and known.
    """

    node: ir.Node
    opset: int
    values: Callable[[ir.Value], Partial | None]
    sizes: Callable[[ir.Value], Dims | None]
    types: Callable[[ir.Value], ir.DataType | None]

    def has(self, index: int) -> bool:
        """Whether the node has an input at ``index``."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def partial(self, index: int) -> Partial:
        """What is known of the input at ``index``. Raises ``UnknownError`` where nothing is."""
        value = self.node.inputs[index]
        if value is None or (found := self.values(value)) is None:
            raise UnknownError
        return found

    def ints(self, index: int) -> Array:
        """The input at ``index``. Raises ``UnknownError`` where not all of it is known."""
        if (known := self.partial(index).known()) is None:
            raise UnknownError
        return known

    def dims(self, index: int = 0) -> Dims:
        """The sizes of an input. Raises ``UnknownError`` where its rank is not known."""
        value = self.node.inputs[index]
        if value is None or (dims := self.sizes(value)) is None:
            raise UnknownError
        return dims

    def number(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self.node.attributes.get_int(name, default)

    def numbers(self, index: int, name: str) -> list[int] | None:
        """Integers that old versions of the operator take as an attribute, newer ones as input."""
        if self.has(index):
            return [int(number) for number in self.ints(index).flat]
        given = self.node.attributes.get_ints(name, ())
        return list(given) if name in self.node.attributes else None


def as_items(items: Any) -> Array:
    """``items`` as an object array of its own; NumPy unwraps those without axes."""
    if isinstance(items, np.ndarray):
        return items.astype(object)
    holder = np.empty((), object)
    holder[()] = items
    return holder
