"""Turns floats of a graph into 16 bits, with a ``Cast`` wherever both meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..base import Array, Result
from ..graph import Names, add_initializer, constant_tensor, graph_of, graphs_of, is_op
from .half_rules import HOLDS_TYPE, Slots


@dataclass
class Converter:
    """One conversion of ``model``.

    Attributes:
        model: What is converted; every value of it has a type.
        kind: The type of 16 bits.
        keep_io: Leave the inputs and outputs of the main graph in float.
        slots: The operators that compute in 16 bits, and which of their inputs and outputs may.
    """

    model: ir.Model
    kind: ir.DataType
    keep_io: bool
    slots: Mapping[ir.Node, Slots]
    casts: int = 0
    _names: Names = field(init=False)
    _twins: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    _made: set[ir.Value] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = Names(self.model)

    def convert(self, result: Result) -> None:
        """Convert everything, and count what was rewritten."""
        if not self.keep_io:
            for value in self.model.graph.inputs:
                if value.dtype == ir.DataType.FLOAT and not value.is_initializer():
                    value.type = ir.TensorType(self.kind)  # clones share the old one
                    self._made.add(value)
        for graph in list(graphs_of(self.model)):  # outer graphs first
            for node in list(graph):
                slots = self.slots.get(node)
                self._read(node, slots)
                if slots is not None:
                    self._produce(node, slots)
                    result.rewrote(node)
            inner = graph is not self.model.graph
            self._give_out(graph, ir.DataType.FLOAT if inner or self.keep_io else self.kind)
        self._drop_useless_casts()
        self._drop_unread()
        result.modified = result.modified or bool(self.casts)
        result.details["casts"] = self.casts

    def _read(self, node: ir.Node, slots: Slots | None) -> None:
        if is_op(node, "Cast"):
            return  # it takes either
        for index, value in enumerate(node.inputs):
            if value is None or not (value.dtype == ir.DataType.FLOAT or value in self._made):
                continue
            wanted = self.kind if slots is not None and slots.input(index) else ir.DataType.FLOAT
            if value.dtype != wanted:
                node.replace_input_with(index, self._twin(value, wanted))

    def _produce(self, node: ir.Node, slots: Slots) -> None:
        for index, value in enumerate(node.outputs):
            if value.dtype == ir.DataType.FLOAT and slots.output(index):
                value.type = ir.TensorType(self.kind)  # clones share the old one
                self._made.add(value)
        if node.outputs[0] not in self._made:
            return
        if (attribute := HOLDS_TYPE.get(node.op_type)) is not None:
            node.attributes[attribute] = ir.AttrInt64(attribute, int(self.kind))
        if is_op(node, "ConstantOfShape"):
            given = node.attributes.get("value")
            array = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
            node.attributes["value"] = ir.AttrTensor("value", small(array, self.kind))

    def _twin(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """``value`` in the other type, made once where it is made itself."""
        if (value, wanted) not in self._twins:
            source = _uncast(value, wanted)
            self._twins[value, wanted] = source or self._converted(value, wanted)
        return self._twins[value, wanted]

    def _converted(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        name = self._names.fresh(f"{value.name}.{wanted.name.lower()}")
        tensor, producer = constant_tensor(value), value.producer()
        home = value.graph if producer is None else graph_of(producer)
        if not isinstance(home, ir.Graph):
            raise TypeError(f"{value.name} is in no graph")
        if tensor is not None:
            return add_initializer(home, name, small(tensor.numpy(), self.kind))
        cast = ir.node("Cast", [value], {"to": int(wanted)})
        made = cast.outputs[0]
        made.name, made.shape, made.type = name, value.shape, ir.TensorType(wanted)
        if producer is not None:
            home.insert_after(producer, cast)
        elif len(home):
            home.insert_before(home[0], cast)
        else:
            home.append(cast)
        self.casts += 1
        return made

    def _give_out(self, graph: ir.Graph, wanted: ir.DataType) -> None:
        """Make what ``graph`` gives out ``wanted``, under the name that it has."""
        for index, value in enumerate(graph.outputs):
            other = value.dtype in {ir.DataType.FLOAT, self.kind} and value.dtype != wanted
            if not other or not (value.dtype == ir.DataType.FLOAT or value in self._made):
                continue
            twin = self._twins.get((value, wanted))
            if twin is None or twin.producer() is None or twin.is_graph_output():
                twin = self._converted(value, wanted)
                self._twins.setdefault((value, wanted), twin)
            graph.outputs[index] = twin
            if not value.is_graph_input():
                name = value.name
                value.name = self._names.fresh(f"{name}.inner")
                twin.name = name

    def _drop_useless_casts(self) -> None:
        """Remove each ``Cast`` to the type that its input has by now."""
        for graph in graphs_of(self.model):
            for node in list(graph):
                source = node.inputs[0] if is_op(node, "Cast") else None
                if source is None or source not in self._made or node.outputs[0].is_graph_output():
                    continue
                if source.dtype == node.attributes.get_int("to", 0):
                    node.outputs[0].replace_all_uses_with(source)
                    graph.remove(node, safe=True)

    def _drop_unread(self) -> None:
        """Leave no float value behind that was replaced."""
        for value, wanted in self._twins:
            if wanted != self.kind or value.uses() or value.is_graph_output():
                continue
            producer = value.producer()
            if is_op(producer, "Constant", "Cast"):
                graph_of(producer).remove(producer, safe=True)
            elif value.is_initializer() and isinstance(value.graph, ir.Graph) and value.name:
                value.graph.initializers.pop(value.name)


def _uncast(value: ir.Value, wanted: ir.DataType) -> ir.Value | None:
    """What a ``Cast`` that only widened made ``value`` from, if that is of the type ``wanted``."""
    producer = value.producer()
    source = producer.inputs[0] if is_op(producer, "Cast") else None
    return source if source is not None and source.dtype == wanted else None


def small(array: Array, kind: ir.DataType) -> ir.TensorProtocol:
    """``array`` in 16 bits; what means infinity in masks becomes the largest number."""
    top = float(np.finfo(np.float16).max) if kind == ir.DataType.FLOAT16 else None
    finite = (
        array if top is None else np.where(np.isfinite(array), np.clip(array, -top, top), array)
    )
    return ir.Tensor(finite.astype(kind.numpy()), dtype=kind)


def store_small(
    model: ir.Model,
    kind: ir.DataType,
    unfit: Callable[[ir.TensorProtocol], str],
    result: Result,
    smallest: int = 256,
) -> None:
    """Store the weights of ``model`` in 16 bits, each with a ``Cast`` back to float behind it.

    Args:
        model: The model.
        kind: The type of 16 bits.
        unfit: Says why a tensor cannot be stored so, or nothing.
        result: Counts what was stored, with the reasons for what was not.
        smallest: Entries below which a tensor is not worth a node.
    """
    names = Names(model)
    before = after = 0
    for graph in graphs_of(model):
        for value in list(graph.initializers.values()):
            tensor = constant_tensor(value)
            if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < smallest:
                continue
            if not value.uses() or value.is_graph_output():
                continue
            if reason := unfit(tensor):
                result.decline(value.name or "", because=reason)
                continue
            name = names.fresh(f"{value.name}.{kind.name.lower()}")
            stored = add_initializer(graph, name, small(tensor.numpy(), kind))
            cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
            made = cast.outputs[0]
            made.shape, made.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
            graph.insert_before(graph[0], cast)
            value.replace_all_uses_with(made)
            if value.name is not None:
                graph.initializers.pop(value.name)
            made.name, value.name = value.name, None
            result.rewrote(made.name or "")
            before += tensor.nbytes
            after += tensor.nbytes // 2
    result.details["bytes"] = [before, after]
