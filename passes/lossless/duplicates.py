"""Merging nodes that compute the same, and constants that are the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant_tensor, is_constant, is_op, subgraphs_of, take_over
from .constants import drop_unused
from .foldable import refusal

_SMALL_BYTES = 1024
"""Constants up to this size count as the same if they hold the same, larger ones if they are."""
_LARGE_BYTES = 16_384
"""Floats of at least this size are merged; smaller ones are kept apart, layer by layer."""
_HEAD_BYTES = 4096
"""Constants that agree in their first bytes are compared as a whole."""
_MOST_ALIKE = 8
"""With how many others of the same first bytes a constant is compared at most."""


def merge_nodes(graph: ir.Graph) -> Iterator[str]:
    """Merge nodes that have the same operator, attributes and inputs; names those that go.

    A node in a subgraph may go in favour of one before it in an outer graph. Random and training
    nodes stay, and ``QuantizeLinear`` and ``DequantizeLinear`` do: ONNX Runtime matches groups in
    which each has one of its own.
    """
    yield from _merge_nodes(graph, [], {})


class _Seen:
    """The nodes of one graph so far; what they compute is looked at only where two may agree."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._rough: dict[Hashable, ir.Node | None] = {}
        self._exact: dict[Hashable, ir.Node] = {}

    def like(self, node: ir.Node, rough: Hashable) -> ir.Node | None:
        """A node that computes the same as ``node`` and can stand for it."""
        if rough not in self._rough:
            return None
        if (only := self._rough[rough]) is not None:
            self._rough[rough] = None
            self._exact[node_key(only, self._contents)] = only
        key = node_key(node, self._contents)
        found = None if key is None else self._exact.get(key)
        return found if found is not None and _can_stand_for(found, node) else None

    def add(self, node: ir.Node, rough: Hashable) -> None:
        if rough in self._rough:
            self._exact.setdefault(node_key(node, self._contents), node)
        else:
            self._rough[rough] = node


def _merge_nodes(graph: ir.Graph, outer: Sequence[_Seen], contents: Contents) -> Iterator[str]:
    seen = _Seen(contents)
    scopes = (*outer, seen)
    merged: list[ir.Value] = []
    for node in graph:
        inner = subgraphs_of(node)
        for subgraph in inner:
            yield from _merge_nodes(subgraph, scopes, contents)
        if inner or is_op(node, "Constant"):
            continue
        rough = _rough_key(node)
        first = next(filter(None, (scope.like(node, rough) for scope in scopes)), None)
        if first is None:
            seen.add(node, rough)
            continue
        yield node.name or node.op_type
        merged += node.outputs
        for new, old in zip(first.outputs, node.outputs, strict=True):
            if old.is_graph_output():
                take_over(new, old)
            else:
                old.replace_all_uses_with(new)
    drop_unused(*merged)


def _rough_key(node: ir.Node) -> Hashable:
    """Equal for nodes that may compute the same, and cheap."""
    computed = (id(value) for value in node.inputs if value is not None and not is_constant(value))
    return node.op_type, next(computed, None)


def node_key(node: ir.Node, contents: Contents) -> Hashable | None:
    """Equal for nodes that compute the same; ``None`` if ``node`` has to stay."""
    if refusal(node):
        return None
    attributes = []
    for attribute in sorted(node.attributes.values(), key=lambda attribute: attribute.name):
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            if value.nbytes > _SMALL_BYTES:
                return None
            value = _content(value)
        elif isinstance(value, (list, tuple)):
            value = tuple(value)
        attributes.append((attribute.name, value))
    inputs = tuple(_identity(value, contents) for value in node.inputs)
    outputs = tuple(bool(output.name) for output in node.outputs)
    return node.op_type, tuple(attributes), inputs, outputs


Contents: TypeAlias = dict[ir.Value, Hashable]
"""What tells the values apart that nodes read, as far as it was looked at."""


def _identity(value: ir.Value | None, contents: Contents) -> Hashable:
    if value is None:
        return None
    if value not in contents:
        tensor = constant_tensor(value)
        large = tensor is None or tensor.nbytes > _SMALL_BYTES
        contents[value] = id(value) if tensor is None or large else _content(tensor)
    return contents[value]


def _content(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.dtype.is_string():
        held: Hashable = tuple(tensor.numpy().reshape(-1).tolist())
    else:
        held = tensor.tobytes()
    return tensor.dtype, tuple(tensor.shape.numpy()), held


def _can_stand_for(first: ir.Node, node: ir.Node) -> bool:
    """Whether the outputs of ``first`` may take the names of graph outputs of ``node``."""
    return all(
        not old.is_graph_output() or (first.graph is node.graph and not new.is_graph_output())
        for new, old in zip(first.outputs, node.outputs, strict=True)
    )


def merge_initializers(graph: ir.Graph) -> Iterator[str]:
    """Merge initializers that hold the same, also with one of an outer graph; names what goes.

    Those that ``QuantizeLinear`` or ``DequantizeLinear`` reads stay, as do small vectors of floats:
    biases of two layers are no less two parameters if they are equal.
    """
    yield from _merge_initializers(graph, [])


class _Held:
    """The initializers of one graph; what they hold is read only where two may hold the same."""

    def __init__(self) -> None:
        self._rough: dict[Hashable, ir.Value | None] = {}
        self._exact: dict[Hashable, list[ir.Value]] = {}

    def like(self, tensor: ir.TensorProtocol, rough: Hashable) -> ir.Value | None:
        """An initializer that holds the same as ``tensor``."""
        if rough not in self._rough:
            return None
        if (only := self._rough[rough]) is not None:
            self._rough[rough] = None
            self._keep(only)
        return next((v for v in self._exact.get(_head(tensor), ()) if _holds(v, tensor)), None)

    def add(self, value: ir.Value, rough: Hashable) -> None:
        if rough in self._rough:
            self._keep(value)
        else:
            self._rough[rough] = value

    def _keep(self, value: ir.Value) -> None:
        if value.const_value is not None:
            alike = self._exact.setdefault(_head(value.const_value), [])
            if len(alike) < _MOST_ALIKE:
                alike.append(value)


def _merge_initializers(graph: ir.Graph, outer: Sequence[_Held]) -> Iterator[str]:
    held = _Held()
    scopes = (*outer, held)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or not _may_merge(value, tensor):
            continue
        rough = tensor.dtype, tuple(tensor.shape.numpy())
        same = next(filter(None, (scope.like(tensor, rough) for scope in scopes)), None)
        if same is None:
            held.add(value, rough)
        else:
            yield value.name or ""
            value.replace_all_uses_with(same)
            drop_unused(value)
    for node in graph:
        for subgraph in subgraphs_of(node):
            yield from _merge_initializers(subgraph, scopes)


def _may_merge(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    if value.is_graph_input() or value.is_graph_output():
        return False
    dtype = tensor.dtype
    if not dtype.is_string() and dtype.bitwidth < 8:
        return False  # packed weights of a quantized model, which are unpacked to be read
    if dtype.is_floating_point() and tensor.nbytes < _LARGE_BYTES:
        return False
    return not any(is_op(use.node, "QuantizeLinear", "DequantizeLinear") for use in value.uses())


def _head(tensor: ir.TensorProtocol) -> Hashable:
    """Equal for tensors that may hold the same."""
    if tensor.dtype.is_string():
        return _content(tensor)
    return tensor.dtype, tuple(tensor.shape.numpy()), _bytes(tensor)[:_HEAD_BYTES].tobytes()


def _holds(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    other = value.const_value
    if other is None or tensor.dtype.is_string():
        return other is not None
    return np.array_equal(_bytes(tensor), _bytes(other))


def _bytes(tensor: ir.TensorProtocol) -> Array:
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
