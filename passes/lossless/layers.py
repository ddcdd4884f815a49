"""Finding linear layers in a graph, and giving them new parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import feeds_only, graph_of, is_op, take_over
from .affine import Layer
from .constants import ConstantWriter, drop_unused, resolve, resolved_constant

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that :func:`match_layer` knows."""


def match_layer(node: ir.Node, add: ir.Node | None = None) -> Layer | str:
    """``node``, with ``add`` after it, as a layer, or why it is none.

    ``add``, if given, is an ``Add`` of what ``node`` computes and of a constant.
    """
    kind = node.op_type
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return f"an attribute of {kind} is set by the caller of the function"
    parameters = [resolve(value) for value in node.inputs[1:]]
    arrays = [resolved_constant(value) for value in parameters]
    for value, array, what in zip(parameters, arrays, ("weight", "bias"), strict=False):
        if value is not None and array is None:
            quantized = is_op(value.producer(), "DequantizeLinear")
            return f"the {what} of {kind} is {'quantized' if quantized else 'not constant'}"
    weight, bias = arrays[0], arrays[1] if len(arrays) > 1 else None
    if weight is None or weight.ndim < 2 or (kind == "MatMul" and weight.ndim != 2):
        return f"the weight of {kind} is not a matrix"
    layer = Layer(node, add, weight, np.zeros(()), *_layout(node))
    start = np.zeros(layer.outputs) if bias is None else bias.astype(np.float64)
    if kind == "Gemm":
        start = start * node.attributes.get_float("beta", 1.0)
    if add is not None:
        added = _added(add, weight.ndim, layer.outputs)
        if added is None:
            return f"the Add after {kind} does not add one constant per channel"
        start = start + added
    return replace(layer, bias=start)


def _layout(node: ir.Node) -> tuple[int, bool, float]:
    attributes = node.attributes
    if node.op_type == "Gemm":
        return 1, attributes.get_int("transB", 0) == 0, attributes.get_float("alpha", 1.0)
    swapped = node.op_type in {"ConvTranspose", "MatMul"}
    return attributes.get_int("group", 1), swapped, 1.0


def constant_side(add: ir.Node) -> int | None:
    """Which input of ``add`` is the constant one; ``None`` if not exactly one of them is."""
    known = [resolved_constant(value) is not None for value in add.inputs]
    return known.index(True) if known[0] != known[1] else None


def _added(add: ir.Node, rank: int, channels: int) -> Array | None:
    """What ``add`` adds to each channel of a value with ``rank`` axes, if to all places alike."""
    side = constant_side(add)
    array = None if side is None else resolved_constant(add.inputs[side])
    if array is None:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    flat = array.astype(np.float64).reshape(-1)
    return np.broadcast_to(flat, channels) if flat.size in {1, channels} else None


def bias_add(node: ir.Node) -> ir.Node | None:
    """The ``Add`` of a constant that alone reads what ``node`` computes, in the same graph."""
    for add in node.outputs[0].consumers():
        if is_op(add, "Add") and add.graph is node.graph and feeds_only(node.outputs[0], add):
            return add if constant_side(add) is not None else None
    return None


def hidden_taps(layer: Layer) -> str:
    """Why some outputs of ``layer`` see less than the whole kernel; empty if none does."""
    node, attributes = layer.node, layer.node.attributes
    kernel = layer.weight.shape[2:]
    mode = attributes.get_string("auto_pad", "NOTSET")
    padless = mode == "VALID" or (mode == "NOTSET" and not any(attributes.get_ints("pads", ())))
    if node.op_type == "ConvTranspose":
        one_tap = all(size == 1 for size in (*kernel, *attributes.get_ints("strides", ())))
        if not (one_tap and padless and "output_shape" not in attributes):
            return "outputs of ConvTranspose see different parts of the kernel"
    elif node.op_type == "Conv" and not padless:
        pointwise = mode.startswith("SAME") and all(size == 1 for size in kernel)
        return "" if pointwise else "Conv pads with zeros"
    return ""


class LayerWriter:
    """Gives layers new parameters; :meth:`finish` drops the old ones that nothing reads."""

    def __init__(self, model: ir.Model) -> None:
        self.constants = ConstantWriter(model)
        self._replaced: dict[ir.Value, int] = {}

    def write(self, layer: Layer, weight: Array, bias: Array, base: str) -> ir.Value:
        """Give ``layer`` the parameters ``weight`` and ``bias``, in its own type.

        New constants are called ``base.weight`` and ``base.bias``. Returns the value that is the
        layer's answer from now on.
        """
        node = layer.node
        if weight is not layer.weight:
            self.replace(node, 1, f"{base}.weight", weight)
        if node.op_type == "MatMul":
            if layer.add is not None:
                self.replace(layer.add, constant_side(layer.add) or 0, f"{base}.bias", bias)
                return layer.add.outputs[0]
            return self._append_add(node, bias, base) if bias.any() else node.outputs[0]
        if bias.any() or (len(node.inputs) > 2 and node.inputs[2] is not None):
            node.resize_inputs(3)
            self.replace(node, 2, f"{base}.bias", bias)
            node.attributes.pop("beta", None)
        return node.outputs[0]

    def replace(self, node: ir.Node, index: int, wanted: str, array: Array) -> None:
        """Let input ``index`` of ``node`` be the constant ``array``."""
        if (old := node.inputs[index]) is not None:
            self.retire(old, array.nbytes)
        constant = self.constants.add(graph_of(node), wanted, array, node)
        node.replace_input_with(index, constant)

    def retire(self, value: ir.Value, nbytes: int = 0) -> None:
        """Drop ``value`` at the end, if nothing reads it; ``nbytes`` were written in its place."""
        self._replaced[value] = self._replaced.get(value, 0) + nbytes

    def finish(self) -> int:
        """Drop what nothing reads; returns the bytes of new constants whose old ones stay.

        At the end, because asking who reads a constant takes as long as there are readers.
        """
        duplicated = 0
        for value, nbytes in self._replaced.items():
            source = resolve(value)
            drop_unused(value)
            if source is not None and source.uses():
                duplicated += nbytes
        return duplicated

    def _append_add(self, node: ir.Node, bias: Array, base: str) -> ir.Value:
        """Put an ``Add`` of ``bias`` after ``node``, in its place for all that read it."""
        product = node.outputs[0]
        total = ir.Value(type=product.type, shape=product.shape)
        take_over(total, product)
        product.name = self.constants.names.fresh(f"{base}.product")
        constant = self.constants.add(graph_of(node), f"{base}.bias", bias, node)
        add = ir.Node("", "Add", [product, constant], outputs=[total])
        graph_of(node).insert_after(node, add)
        return total
