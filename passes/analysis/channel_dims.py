"""The sizes of tensors as the search for channels needs them: with names that are comparable."""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import onnx_ir as ir

from ..graph import subgraphs_of
from ..held import is_standard
from .dim_rules import named
from .partial import Item
from .shapes import inferred_shapes
from .values import Facts

Dims: TypeAlias = tuple[int | str | None, ...]
"""A shape: a number, a name or nothing known per axis."""


class KnownDims:
    """The sizes of all values of the main graph of a model and of the graphs inside it.

    They are those of :class:`~.values.Facts`; where an operator of another domain stops it, those
    that ``onnx.shape_inference`` finds, or what the model says of such an operator.

    Raises:
        ModelError: Shapes cannot be inferred at all.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._facts = Facts(model)
        self._follow(model.graph)

    @cached_property
    def _inferred(self) -> dict[ir.Value, Dims]:
        """What ``onnx.shape_inference`` finds; most models never need it."""
        return {
            value: tuple(dim if isinstance(dim, int) else dim.value for dim in shape)
            for value, shape in inferred_shapes(self._model).items()
        }

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``; ``None`` if not even its rank is known."""
        found = self._facts.dims(value)
        return self._inferred.get(value) if found is None else found

    def items(self, value: ir.Value | None) -> list[Item] | None:
        """The integers in a vector: numbers, names of sizes, ``None`` for unknown ones."""
        partial = None if value is None else self._facts.partial(value)
        if partial is None or partial.items.ndim != 1:
            return None
        return list(partial.items)

    def _follow(self, graph: ir.Graph) -> None:
        for node in graph:
            for inner in subgraphs_of(node):
                self._follow(inner)
            self._facts.follow([node])
            for output in node.outputs:
                if self._facts.dims(output) is None and (dims := self._guess(node, output)):
                    self._facts.suppose(output, dims, None)

    def _guess(self, node: ir.Node, output: ir.Value) -> tuple[int | str, ...] | None:
        """The sizes of what an operator computes that facts do not follow."""
        dims = self._inferred.get(output)
        if dims is None and output.shape is not None and not is_standard(node.domain):
            dims = tuple(dim if isinstance(dim, int) else dim.value for dim in output.shape)
        return None if dims is None else named(dims, output)
