"""Where Q/DQ pairs pay: the operators that ONNX Runtime's CPU provider runs on 8-bit integers.

ONNX Runtime turns ``DequantizeLinear -> operator -> QuantizeLinear`` into one integer kernel when
every input of the operator is dequantized, its types agree, and its output goes to nothing but
that one ``QuantizeLinear`` (``onnxruntime/core/optimizer/qdq_transformer/selectors_actions``). What
it cannot fuse it runs as three operators, slower than float. So a plan holds the operators that
will be fused, and no others:

- ``Conv``, ``MatMul`` and ``Gemm`` with constant weights, wherever they stand;
- what lies between two of those and has an integer kernel or only moves data, so that the numbers
  need not become float in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, is_constant, is_op

WEIGHTED = ("Conv", "MatMul", "Gemm")

INTEGER = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid")
"""Operators without weights for which ONNX Runtime has a kernel on 8-bit integers."""

MOVES_DATA = (
    "MaxPool", "Resize", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Gather", "Split", "Expand", "Tile",
)  # fmt: skip
"""Operators that give out values they were given: they keep the quantization parameters."""

READS_SHAPE = ("Shape", "Size")
"""Operators that do not care what a tensor holds."""


@dataclass(frozen=True)
class Kernel:
    """An operator that is to run on integers.

    Attributes:
        node: The operator.
        inputs: Which of its inputs are activations in 8 bits.
        outputs: What leaves the kernel: the outputs of ``node``, or of what is merged into it.
        weight: The constant weight in float, factors of ``Gemm`` included; ``None`` without one.
        axis: The axis of ``weight`` with one entry per output channel, ``None`` for none.
        bias: One constant per output channel, if there is a bias.
        bias_add: The ``Add`` of the bias behind a ``MatMul``; the two become a ``Gemm``.
        activation: The ``Relu`` or ``Clip`` behind it, which rounding into 8 bits makes redundant.
        float_output: It can give out float, so that its output is quantized only where that is
            of use.
    """

    node: ir.Node
    inputs: tuple[int, ...]
    outputs: tuple[ir.Value, ...]
    weight: Array | None = None
    axis: int | None = None
    bias: Array | None = None
    bias_add: ir.Node | None = None
    activation: ir.Node | None = None
    float_output: bool = False

    @property
    def moves_data(self) -> bool:
        """Whether the output has the quantization parameters of the input."""
        return is_op(self.node, *MOVES_DATA)

    def reads(self) -> Iterator[ir.Value]:
        """The activations it reads in 8 bits."""
        for index in self.inputs:
            value = self.node.inputs[index]
            if value is not None:
                yield value


@dataclass
class Plan:
    """The kernels of a graph in topological order, and the tensors between them.

    ``roots`` maps each tensor that is quantized to the one whose range it is quantized by: itself,
    or what an operator that only moves data made it from.
    """

    kernels: list[Kernel] = field(default_factory=list)
    roots: dict[ir.Value, ir.Value] = field(default_factory=dict)
    declined: dict[ir.Node, str] = field(default_factory=dict)


Unwanted = Callable[[ir.Node], str]
"""Says why the user does not want a node quantized, or nothing."""


def find_plan(graph: ir.Graph, unwanted: Unwanted, unusable: Mapping[ir.Value, str]) -> Plan:
    """Choose the kernels of ``graph``.

    Args:
        graph: A main graph of opset 13 or newer, topologically sorted, with inferred shapes where
            possible: the rank of a ``MatMul`` decides how ONNX Runtime treats its bias.
        unwanted: What the user excludes.
        unusable: Tensors that cannot be quantized, and why.
    """
    found = Plan()
    kernels: dict[ir.Node, Kernel] = {}
    available: set[ir.Value] = set()
    for node in graph:
        weighted = is_op(node, *WEIGHTED)
        if not weighted and not is_op(node, *INTEGER, *MOVES_DATA):
            continue
        if not weighted and not available.intersection(filter(None, node.inputs)):
            continue
        kernel = unwanted(node) or (_weighted(node) if weighted else _between(node))
        if isinstance(kernel, Kernel):
            kernel = _usable(kernel, unusable) or kernel
        if isinstance(kernel, Kernel) and not weighted:
            missing = [value for value in kernel.reads() if value not in available]
            if missing:
                kernel = f"its input {missing[0].name!r} does not come from an integer kernel"
        if isinstance(kernel, str):
            found.declined[node] = kernel
        else:
            kernels[node] = kernel
            available.update(kernel.outputs)

    wanted: set[ir.Value] = set()
    for kernel in reversed(list(kernels.values())):
        if kernel.weight is None and not wanted.intersection(kernel.outputs):
            del kernels[kernel.node]
            found.declined[kernel.node] = "no integer kernel reads its output"
        else:
            wanted.update(kernel.reads())

    found.kernels = list(kernels.values())
    for kernel in found.kernels:
        for value in kernel.reads():
            found.roots.setdefault(value, value)
        if not kernel.float_output or wanted.intersection(kernel.outputs):
            source = next(kernel.reads())
            for value in kernel.outputs:
                found.roots[value] = found.roots[source] if kernel.moves_data else value
    _find_islands(graph, found, kernels)
    return found


def _find_islands(graph: ir.Graph, found: Plan, kernels: Mapping[ir.Node, Kernel]) -> None:
    """Name the operators that cut the integers in two because no kernel is there for them."""
    inside = {kernel.activation for kernel in found.kernels}
    inside |= {kernel.bias_add for kernel in found.kernels}
    for node in graph:
        if node in kernels or node in inside or node in found.declined or is_op(node, *READS_SHAPE):
            continue
        if any(v in found.roots for v in node.inputs if v) and any(
            v in found.roots for v in node.outputs
        ):
            found.declined[node] = f"ONNX Runtime has no integer kernel for {node.op_type}"


def _usable(kernel: Kernel, unusable: Mapping[ir.Value, str]) -> str:
    touched = [*kernel.reads(), *(() if kernel.float_output else kernel.outputs)]
    return next((unusable[value] for value in touched if value in unusable), "")


def _weighted(node: ir.Node) -> Kernel | str:
    """The kernel of a ``Conv``, ``MatMul`` or ``Gemm``, or why there is none."""
    source, weight_value = node.inputs[0], node.inputs[1]
    if source is None or any(is_op(v.producer(), "DequantizeLinear") for v in node.inputs if v):
        return "it is quantized already"
    if is_constant(source):
        return "its first input is constant"
    weight = constant(weight_value)
    if weight is None:
        return "its weight is not constant"
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}, and only float32 is quantized"
    if weight.ndim < 2 or weight.size == 0:
        return f"its weight has the shape {list(weight.shape)}"
    if not np.isfinite(weight).all():
        return "its weight holds infinities or NaN"
    output = node.outputs[0]
    if not output.uses() and not output.is_graph_output():
        return "nothing reads its output"
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if bias_value is not None and bias is None:
        return "its bias is not constant"

    if is_op(node, "Conv"):
        return _finish(node, weight, 0, bias)
    if is_op(node, "MatMul"):
        return _matmul(node, weight)
    transposed = bool(node.attributes.get_int("transB", 0))
    weight = weight * np.float32(node.attributes.get_float("alpha", 1.0))
    axis = 0 if transposed else 1
    if bias is not None:
        channels = weight.shape[axis]
        if bias.size not in {1, channels} or (bias.size > 1 and bias.shape[-1] != channels):
            return "its bias is not one number per column"
        bias = np.broadcast_to(bias.reshape(-1), (channels,))
        bias = bias * np.float32(node.attributes.get_float("beta", 1.0))
    return _finish(node, weight, axis, bias, float_output=True)


def _matmul(node: ir.Node, weight: Array) -> Kernel | str:
    """A ``MatMul``, with the bias behind it where ONNX Runtime would make the two a ``Gemm``.

    It does so where it knows the shapes (``matmul_add_fusion.cc``), and then finds a bias that is
    not quantized and runs the ``Gemm`` in float.
    """
    if weight.ndim > 2:
        return _finish(node, weight, None, None, float_output=True)
    add = sole_reader(node.outputs[0])
    source = node.inputs[0]
    rank = None if source is None or source.shape is None else len(source.shape)
    if rank == 2 and is_op(add, "Add") and add is not None:
        bias = next((c for value in add.inputs if (c := constant(value)) is not None), None)
        columns = weight.shape[1]
        if bias is not None and (bias.size == 1 or bias.shape in {(columns,), (1, columns)}):
            bias = np.broadcast_to(bias.reshape(-1), (columns,))
            return _finish(node, weight, 1, bias, bias_add=add, float_output=True)
    return _finish(node, weight, 1, None, float_output=True)


def _finish(
    node: ir.Node,
    weight: Array,
    axis: int | None,
    bias: Array | None,
    bias_add: ir.Node | None = None,
    *,
    float_output: bool = False,
) -> Kernel | str:
    if bias is not None and not np.isfinite(bias).all():
        return "its bias holds infinities or NaN"
    output = (bias_add or node).outputs[0]
    activation = sole_reader(output)
    if not is_op(activation, "Relu", "Clip"):
        activation = None
    if activation is not None:
        after = activation.outputs[0]
        # ONNX Runtime takes a Relu with one reader for part of the kernel, and then wants the one
        # reader to be a QuantizeLinear (NodeGroupSelector::GetQDQSelection).
        if len(after.uses()) == 1 and not after.is_graph_output():
            float_output = False
        if _redundant(activation):
            output = after
        else:
            activation = None
    return Kernel(node, (0,), (output,), weight, axis, bias, bias_add, activation, float_output)


def _between(node: ir.Node) -> Kernel | str:
    """The kernel of an operator without weights, or why there is none."""
    if is_op(node, "MaxPool") and any(value.uses() for value in node.outputs[1:]):
        return "its indices are read"
    if is_op(node, "Split") and not all(v.uses() or v.is_graph_output() for v in node.outputs):
        return "nothing reads one of its outputs"
    if is_op(node, "Resize") and (
        node.attributes.get_string("mode", "nearest") == "cubic"
        or node.attributes.get_int("antialias", 0) != 0
    ):
        return "it gives out values beyond those it was given"
    if is_op(node, *MOVES_DATA):
        outputs = tuple(node.outputs) if is_op(node, "Split") else (node.outputs[0],)
        return Kernel(node, (0,), outputs)
    if is_op(node, "AveragePool") and set(node.attributes.get_ints("dilations", [1])) != {1}:
        return "ONNX Runtime has no integer kernel for a dilated AveragePool"
    if any(is_constant(value) for value in node.inputs):
        return "one of its inputs is constant, and 8 bits would lose too much of it"
    output, activation = node.outputs[0], sole_reader(node.outputs[0])
    if activation is not None and is_op(activation, "Relu", "Clip") and _redundant(activation):
        output = activation.outputs[0]
    else:
        activation = None
    return Kernel(node, tuple(range(len(node.inputs))), (output,), activation=activation)


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, in the same graph, if nothing else does."""
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    reader = next(iter(uses)).node
    producer = value.producer()
    return reader if producer is not None and reader.graph is producer.graph else None


def _redundant(activation: ir.Node) -> bool:
    """Whether a range of 8-bit values that was seen behind ``activation`` makes it redundant.

    Behind a ``Relu`` the zero point is 0. A ``Clip`` has to have both bounds, with zero in
    between (``IsClipMadeRedundantByQ``).
    """
    if is_op(activation, "Relu"):
        return True
    bounds = [constant(value) for value in activation.inputs[1:3]]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    return -1e6 <= float(bounds[0]) <= 0 <= float(bounds[1]) <= 1e6


def matches(node: ir.Node, patterns: Iterable[str]) -> Iterator[str]:
    """The ``patterns`` (as in :mod:`fnmatch`) that name, operator or an output of ``node`` fits."""
    from fnmatch import fnmatchcase

    names = {node.name, node.op_type, *(value.name for value in node.outputs)}
    for pattern in patterns:
        if any(name and fnmatchcase(name, pattern) for name in names):
            yield pattern
