"""What operators do to tensors with one more axis, of size one, before the last of three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, constant_tensor, graph_of, take_over
from .constants import ConstantWriter

AXIS: Final = 2
"""Where the new axis stands."""


class Wide:
    """The values of one graph that have a twin with the new axis, ``x[N, C, 1, L]``."""

    def __init__(self, graph: ir.Graph, opset: int, writer: ConstantWriter) -> None:
        self._graph = graph
        self._opset = opset
        self._writer = writer
        self._twins: dict[ir.Value, ir.Value] = {}
        self._lifted: dict[ir.Value, ir.Value] = {}
        self._parameters: dict[ir.Value, ir.Value] = {}
        self._axes: ir.Value | None = None

    def computes(self, value: ir.Value | None) -> bool:
        """Whether the twin of ``value`` is computed anyway."""
        return value in self._twins

    def has(self, value: ir.Value | None) -> bool:
        """Whether ``value`` has a twin."""
        return value in self._twins or value in self._lifted

    def twins(self, values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
        """The twins of ``values``, all of which have one."""
        return [self._twins.get(v) or self._lifted[v] for v in values if v is not None]

    def twin(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """The twin of ``value``, made of it before ``before`` if it has none."""
        found = self._twins.get(value) or self._lifted.get(value)
        if found is None:
            found = self._lifted[value] = self._moved("Unsqueeze", value, before)
            found.name = self._writer.names.fresh(f"{value.name}.wide")
        return found

    def emit(self, node: ir.Node, inputs: Sequence[ir.Value | None], **changed: ir.Attr) -> None:
        """Put the twin of ``node`` before it: on ``inputs``, with some attributes ``changed``."""
        attributes = {**node.attributes, **changed}
        wide = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(attributes.values()),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for old, new in zip(node.outputs, wide.outputs, strict=True):
            new.name = self._writer.names.fresh(f"{old.name}.wide") if old.name else ""
            new.type = old.type
            self._twins[old] = new
        self._graph.insert_before(node, wide)

    def narrow(self, value: ir.Value, node: ir.Node) -> None:
        """Compute ``value``, an output of ``node``, from its twin."""
        take_over(self._moved("Squeeze", self._twins[value], node), value)

    def parameter(self, value: ir.Value, array: Array, before: ir.Node) -> ir.Value:
        """The constant ``value``, which holds ``array``, with the new axis before the last."""
        if value not in self._parameters:
            name, longer = f"{value.name}.wide", np.expand_dims(array, -2)
            self._parameters[value] = self._writer.add(self._graph, name, longer, before)
        return self._parameters[value]

    def local(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """``value``, as a constant of the graph itself if it is one of a graph around it.

        ONNX Runtime blocks convolutions whose parameters stand in their own graph only.
        """
        tensor = constant_tensor(value)
        if tensor is None or value.graph is self._graph:
            return value
        if value not in self._parameters:
            name = f"{value.name}.wide"
            self._parameters[value] = self._writer.add(self._graph, name, tensor, before)
        return self._parameters[value]

    def _moved(self, op_type: str, value: ir.Value, before: ir.Node) -> ir.Value:
        """``value`` with the axis put in or taken out, before ``before``."""
        if self._opset < 13:
            node = ir.Node("", op_type, [value], [ir.AttrInt64s("axes", [AXIS])])
        else:
            if self._axes is None:
                axes = np.array([AXIS], np.int64)
                self._axes = self._writer.add(self._graph, "wide.axes", axes, before)
            node = ir.Node("", op_type, [value, self._axes])
        node.outputs[0].type = value.type
        graph_of(before).insert_before(before, node)
        return node.outputs[0]


Rule: TypeAlias = Callable[[Wide, ir.Node], bool]
"""Emits the twin of a node if it may; says whether it has."""


def _elementwise(wide: Wide, node: ir.Node) -> bool:
    """One tensor with a twin, and others with one, or constants."""
    if not any(wide.computes(value) for value in node.inputs):
        return False
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        array = None if value is None else constant(value)
        if value is None or wide.has(value):
            inputs.append(value and wide.twin(value, node))
        elif array is None or array.ndim > 3:
            return False
        elif array.ndim < 2:
            inputs.append(value)
        else:
            inputs.append(wide.parameter(value, array, node))
    wide.emit(node, inputs)
    return True


def _first(wide: Wide, node: ir.Node) -> bool:
    """Each channel, or element, of the first input alone; the others are parameters."""
    if not wide.computes(node.inputs[0]) or len([o for o in node.outputs if o.name]) > 1:
        return False
    wide.emit(node, [*wide.twins(node.inputs[:1]), *node.inputs[1:]])
    return True


def _pool(wide: Wide, node: ir.Node) -> bool:
    if not wide.computes(node.inputs[0]) or len([o for o in node.outputs if o.name]) > 1:
        return False
    wide.emit(node, wide.twins(node.inputs), **widened(node))
    return True


def widened(node: ir.Node) -> dict[str, ir.Attr]:
    """The attributes of a window over one axis, for a window over two."""
    found = {}
    for name, fill in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        if name in node.attributes:
            found[name] = ir.AttrInt64s(name, [fill, *node.attributes.get_ints(name, ())])
    if "pads" in node.attributes:
        first, last = node.attributes.get_ints("pads", ())
        found["pads"] = ir.AttrInt64s("pads", [0, first, 0, last])
    return found


def _concat(wide: Wide, node: ir.Node) -> bool:
    computed = any(wide.computes(value) for value in node.inputs)
    if not computed or not all(wide.has(value) for value in node.inputs):
        return False
    axis = node.attributes.get_int("axis", 0)
    axis += 3 if axis < 0 else 0
    axis += axis >= AXIS
    wide.emit(node, wide.twins(node.inputs), axis=ir.AttrInt64("axis", axis))
    return True


# fmt: off
_ALONE: Final = (
    "Abs", "Celu", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus",
    "Softsign", "Sqrt", "Tanh", "ThresholdedRelu", "BatchNormalization", "GlobalAveragePool",
    "GlobalMaxPool",
)
"""Operators that treat every element, or every channel, of their first input alone."""
# fmt: on

RULES: Final[dict[tuple[str, str], Rule]] = {
    **{("", kind): _first for kind in _ALONE},
    **{("", kind): _elementwise for kind in ("Add", "Div", "Max", "Min", "Mul", "Sub")},
    **{("", kind): _pool for kind in ("AveragePool", "MaxPool")},
    **{("com.microsoft", kind): _first for kind in ("Gelu", "QuickGelu")},
    ("", "Concat"): _concat,
}
"""Operators that can follow a convolution into four axes, by domain and type."""
