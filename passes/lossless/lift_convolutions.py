"""Run one-dimensional convolutions as two-dimensional ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..base import Context, Pass, Result
from ..graph import graph_of, is_op, take_over
from .constants import ConstantWriter, drop_unused, resolve, resolved_constant

BLOCK = 16
"""Channels in a block with AVX-512; a multiple of it is one of AVX2's 8 as well."""

_ELEMENTWISE = frozenset(
    {"Add", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Tanh"}
)
"""What ONNX Runtime fuses into a blocked convolution or computes on its blocked answer."""
_POOLS = frozenset({"AveragePool", "MaxPool"})
_LISTS = ("kernel_shape", "strides", "dilations")


@dataclass(frozen=True)
class LiftConvolutions(Pass):
    """Give one-dimensional convolutions a height of one, where that is faster.

    ``Conv(x, w)`` of ``x[N, C, L]`` is ``Squeeze(Conv(Unsqueeze(x), w[:, :, None]))`` with every
    list of the attributes led by its neutral element. ONNX Runtime's CPU provider has blocked
    kernels (NCHWc) for two dimensions alone
    (``onnxruntime/core/optimizer/nchwc_transformer.cc``); others take im2col and GEMM, one
    channel at a time where the convolution is depthwise. Convolutions that feed each other
    directly or through activations, sums and pools are lifted together, so that what is between
    them stays blocked.

    Measured on one thread with AVX-512 (``python -m benchmarks probe``): depthwise 1.8 to 16
    times faster, strided ones of 64 channels and more 1.1 to 2 times, rows of two and more 1.1 to
    1.4 times; one alone with stride 1 is no faster, nor are channels that do not fill a block or
    sums over fewer than 128 or at least 1536 products. Those stay.
    """

    name: ClassVar[str] = "lift-convolutions"
    summary: ClassVar[str] = "run one-dimensional convolutions on the kernels for two dimensions"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Lift every group of convolutions that gains."""
        result = Result(model)
        if context.target.name != "cpu":
            result.decline("the model", because="only ONNX Runtime's CPU provider gains")
            return result
        lifter = _Lifter(model, result)
        for root in (model.graph, *(function.graph for function in model.functions.values())):
            lifter.opset = root.opset_imports.get("", 0)
            for graph in (root, *root.subgraphs()):
                for group in _groups(graph, result):
                    lifter.lift(group)
        drop_unused(*lifter.replaced)
        return result


def _groups(graph: ir.Graph, result: Result) -> Iterator[list[ir.Node]]:
    """The nodes to lift, each group connected, sorted and worth it."""
    group_of: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        if is_op(node, "Conv"):
            if (why := _unfit(node)) is None:
                continue
            if why:
                result.decline(node, because=why)
                continue
        elif not _follows(node, group_of):
            continue
        around = _before(node, group_of)
        joined = max(around, key=len, default=[])
        added = [node, *(one for group in around if group is not joined for one in group)]
        joined += added
        group_of.update(dict.fromkeys(added, joined))
    order = {node: place for place, node in enumerate(graph)} if group_of else {}
    for group in list({id(group): group for group in group_of.values()}.values()):
        convs = [node for node in group if node.op_type == "Conv"]
        if len(convs) > 1 or _pays_alone(convs[0]):
            yield sorted(group, key=order.__getitem__)
        else:
            result.decline(convs[0], because="alone and with these sizes it would be no faster")


def _before(node: ir.Node, group_of: dict[ir.Node, list[ir.Node]]) -> list[list[ir.Node]]:
    """The groups that ``node`` reads from, each once."""
    found: dict[int, list[ir.Node]] = {}
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None and (group := group_of.get(producer)) is not None:
            found[id(group)] = group
    return list(found.values())


def _unfit(node: ir.Node) -> str | None:
    """Why blocked kernels would not run ``node``; ``None`` if it has another number of axes."""
    weight = resolved_constant(node.inputs[1])
    if weight is None or weight.ndim != 3 or node.inputs[0] is None:
        return None
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "an attribute of it is set by the caller of the function"
    if weight.dtype != np.float32:
        return "only float32 has blocked kernels"
    outputs, inputs, _ = weight.shape
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        fits = inputs < 8 or (inputs % BLOCK == 0 and outputs % BLOCK == 0)
    else:
        depthwise = inputs == 1 and outputs == groups
        full = inputs % BLOCK == 0 and (outputs // groups) % BLOCK == 0
        fits = outputs % BLOCK == 0 and (depthwise or full)
    return "" if fits else "its channels do not fill blocks"


def _pays_alone(node: ir.Node) -> bool:
    weight = resolved_constant(node.inputs[1])
    if weight is None:
        return False
    if node.attributes.get_int("group", 1) > 1:
        return True
    strided = any(stride > 1 for stride in node.attributes.get_ints("strides", ()))
    return strided and 128 <= weight.shape[1] * weight.shape[2] < 1536


def _follows(node: ir.Node, group_of: dict[ir.Node, list[ir.Node]]) -> bool:
    """Whether ``node`` can be computed on lifted answers of the groups it reads from."""
    if not is_op(node, *_ELEMENTWISE, *_POOLS) or len(node.outputs) > 1:
        return False
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return False
    return all(value.producer() in group_of for value in _tensors(node))


def _tensors(node: ir.Node) -> Sequence[ir.Value]:
    """What ``node`` reads that has the axes of its answer."""
    values = node.inputs if is_op(node, "Add", "Mul") else node.inputs[:1]
    return [value for value in values if value is not None]


class _Lifter:
    """Lifts the groups of one model."""

    def __init__(self, model: ir.Model, result: Result) -> None:
        self.model = model
        self.result = result
        self.opset = 0
        self.replaced: list[ir.Value | None] = []
        self.weights: dict[tuple[ir.Graph, ir.Value], ir.Value] = {}

    @cached_property
    def constants(self) -> ConstantWriter:
        return ConstantWriter(self.model)

    def lift(self, group: Sequence[ir.Node]) -> None:
        """Put two-dimensional nodes in the place of those of ``group``."""
        lifted: dict[ir.Value, ir.Value] = {}
        for node in group:
            graph = graph_of(node)
            for value in _tensors(node):
                if value not in lifted:
                    up = self._move("Unsqueeze", value, node)
                    graph.insert_before(node, up)
                    lifted[value] = up.outputs[0]
            new = self._node(node, lifted)
            graph.insert_before(node, new)
            lifted[node.outputs[0]] = new.outputs[0]
        inside = set(group)
        for node in reversed(group):
            self.result.rewrote(node)
            old = node.outputs[0]
            if old.is_graph_output() or any(use.node not in inside for use in old.uses()):
                down = self._move("Squeeze", lifted[old], node)
                graph_of(node).insert_before(node, down)
                take_over(down.outputs[0], old)
            self.replaced += node.inputs[1:]
            graph_of(node).remove(node, safe=True)

    def _node(self, node: ir.Node, lifted: dict[ir.Value, ir.Value]) -> ir.Node:
        inputs = [value if value is None else lifted.get(value, value) for value in node.inputs]
        attributes = dict(node.attributes)
        if is_op(node, "Conv", *_POOLS):
            attributes |= {
                name: ir.AttrInt64s(name, [1, *node.attributes[name].as_ints()])
                for name in _LISTS
                if name in node.attributes
            }
            if "pads" in node.attributes:
                before, after = node.attributes["pads"].as_ints()
                attributes["pads"] = ir.AttrInt64s("pads", [0, before, 0, after])
        if is_op(node, "Conv"):
            inputs[1] = self._weight(node)
        base = node.outputs[0].name or node.op_type
        output = ir.Value(name=self.constants.names.fresh(f"{base}.lifted"))
        output.type = node.outputs[0].type
        return ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(attributes.values()),
            name=node.name,
            outputs=[output],
            metadata_props=dict(node.metadata_props),
        )

    def _weight(self, node: ir.Node) -> ir.Value:
        value = resolve(node.inputs[1])
        array = resolved_constant(value)
        if value is None or array is None:
            raise ValueError("the weight is not constant")
        key = graph_of(node), value
        if key not in self.weights:
            lifted = array.reshape(*array.shape[:2], 1, array.shape[2])
            self.weights[key] = self.constants.add(key[0], f"{value.name}.lifted", lifted, node)
        return self.weights[key]

    def _move(self, kind: str, value: ir.Value, before: ir.Node) -> ir.Node:
        """An ``Unsqueeze`` or ``Squeeze`` of the height, the third axis."""
        name = self.constants.names.fresh(f"{value.name}.{kind.lower()}d")
        output = ir.Value(name=name, type=value.type)
        if self.opset < 13:
            return ir.Node("", kind, [value], [ir.AttrInt64s("axes", [2])], outputs=[output])
        axes = self.constants.add(graph_of(before), f"{name}.axes", np.array([2]), before)
        return ir.Node("", kind, [value, axes], outputs=[output])
