"""Where ONNX Runtime's CPU provider runs a graph in its blocked (NCHWc) layout.

The rules of ``onnxruntime/core/optimizer/nchwc_transformer.cc``, as far as
``python -m benchmarks layout`` shows them: what becomes blocked, what goes along, and where a
tensor has to be brought into the layout or back.
"""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from ..graph import is_constant, is_op

_PLAIN: Final = 7
"""Input channels up to which the first layer of a network reads them unblocked."""
_FUSED: Final = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")
"""Activations that are part of a blocked convolution in front of them."""
_POOLS: Final = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
_ALONG: Final = frozenset(("BatchNormalization", "Gelu", "QuickGelu", *_FUSED, *_POOLS))
"""Operators of one tensor that run on a blocked one."""
_TOGETHER: Final = frozenset(("Add", "Concat", "Mul", "Sum"))
"""Operators of several tensors that run on blocked ones of the same shape."""


class BlockedLayout:
    """Where one graph, without its subgraphs, is blocked. Its values have fixed shapes.

    Attributes:
        convolutions: The convolutions that run on blocked kernels.
        fused: What ONNX Runtime makes part of a convolution: constant factors, summands and
            BatchNormalization behind it, and an activation of a blocked one.
        reorders: How often a tensor is brought into the layout or back.
        reordered: The elements of all those tensors.
    """

    def __init__(self, graph: ir.Graph, features: frozenset[str]) -> None:
        self.convolutions: set[ir.Node] = set()
        self.fused: set[ir.Node] = set()
        self.reorders = 0
        self.reordered = 0
        self._block = 16 if not features or "avx512f" in features else 8
        self._blocked: set[ir.Value] = set()
        self._both: set[ir.Value] = set()
        for node in graph:
            self._visit(node)
        for output in graph.outputs:
            self._leave(output)

    def is_depthwise(self, node: ir.Node) -> bool:
        """Whether ``node`` is a convolution of which each filter reads one channel."""
        weight = _shape(node.inputs[1]) if len(node.inputs) > 1 else None
        groups = node.attributes.get_int("group", 1)
        return groups > 1 and weight is not None and len(weight) > 1 and weight[1] == 1

    def _visit(self, node: ir.Node) -> None:
        if node in self.fused:
            self._blocked.add(node.outputs[0])
        elif is_op(node, "Conv"):
            if self._has_kernel(node):
                self._convolve(node)
            else:
                self._leave_all(node)
        elif self._goes_along(node):
            self._blocked.add(node.outputs[0])
        else:
            self._leave_all(node)

    def _has_kernel(self, node: ir.Node) -> bool:
        held = node.inputs[1]
        weight = _shape(held)
        if weight is None or len(weight) != 4 or node.inputs[0] is None:
            return False
        if held is None or held.dtype not in {None, ir.DataType.FLOAT}:
            return False
        outputs, inputs = weight[:2]
        groups = node.attributes.get_int("group", 1)
        if groups > 1 and inputs == 1 and groups == outputs:
            return outputs % self._block == 0
        if groups > 1:
            return inputs % self._block == 0 and (outputs // groups) % self._block == 0
        return outputs >= self._block and (inputs <= _PLAIN or inputs % 4 == 0)

    def _convolve(self, node: ir.Node) -> None:
        source, answer = node.inputs[0], node.outputs[0]
        weight = _shape(node.inputs[1]) or [0, 0]
        plain = weight[1] <= _PLAIN and node.attributes.get_int("group", 1) == 1
        if source is not None and not plain:
            self._enter(source)
        self.convolutions.add(node)
        self._blocked.add(answer)
        while (reader := _only_reader(answer)) is not None and _folds(reader):
            self.fused.add(reader)
            answer = reader.outputs[0]
            self._blocked.add(answer)
        if reader is not None and is_op(reader, *_FUSED):
            self.fused.add(reader)

    def _goes_along(self, node: ir.Node) -> bool:
        tensors = [value for value in node.inputs if value is not None]
        if is_op(node, "Mul") and _scales_channels(node):
            tensors = [value for value in tensors if not is_constant(value)]
        if not tensors or tensors[0] not in self._blocked:
            return False
        if node.op_type in _ALONG:
            return True
        if node.op_type not in _TOGETHER or not all(one in self._blocked for one in tensors):
            return False
        shapes = [_shape(one) for one in tensors]
        return node.op_type == "Concat" or all(shape == shapes[0] for shape in shapes)

    def _leave_all(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is not None:
                self._leave(value)

    def _enter(self, value: ir.Value) -> None:
        if value not in self._blocked and value not in self._both:
            self._count(value)

    def _leave(self, value: ir.Value) -> None:
        if value in self._blocked and value not in self._both:
            self._count(value)

    def _count(self, value: ir.Value) -> None:
        self._both.add(value)
        self.reorders += 1
        self.reordered += math.prod(_shape(value) or [0])


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def _folds(node: ir.Node) -> bool:
    """Whether ONNX Runtime folds ``node`` into the weights of the convolution in front of it."""
    if is_op(node, "BatchNormalization"):
        return all(is_constant(value) for value in node.inputs[1:])
    if not is_op(node, "Add", "Mul"):
        return False
    return _scales_channels(node)


def _scales_channels(node: ir.Node) -> bool:
    """Whether one of two inputs is a constant for each channel."""
    constants = [one for one in node.inputs if is_constant(one)]
    shape = _shape(constants[0]) if len(constants) == 1 else None
    return shape is not None and shape[-2:] == [1, 1] and math.prod(shape) > 1


def _shape(value: ir.Value | None) -> list[int] | None:
    if value is None:
        return None
    if value.const_value is not None:
        return [int(size) for size in value.const_value.shape.numpy()]
    if value.shape is None or not value.shape.is_static():
        return None
    return [int(str(size)) for size in value.shape]
