"""Which integer kernels are worth the conversions around them, estimated from shapes.

Each dense layer gains by its multiply-accumulates, a depthwise one loses: the float kernel of the
blocked layout is faster. A tensor that is float on one side and 8-bit on the other costs by its
elements. What one group of connected kernels gains and costs in all decides; see the rates below.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from ...backends.errors import ModelError
from ..analysis.macs import node_macs, with_fixed_shapes
from ..graph import graphs_of, is_op, nodes_in, values_in
from .kernels import Kernel
from .placement import Plan

_PRODUCT: Final = 1.4e-5
"""Microseconds that a multiply-accumulate takes less in 8 bits, with VNNI or AVX2."""
_DEPTHWISE: Final = 5e-4
"""Microseconds that an element takes longer in a depthwise convolution of 8 bits."""
_BORDER: Final = 2.9e-4
"""Microseconds for one element from float to 8 bits or back, changes of the layout included."""
_START: Final = 1.0
"""Microseconds that a conversion takes to start."""

REASON = "its conversions would take longer than 8 bits save"


@dataclass(frozen=True)
class Sizes:
    """How large tensors are and how much operators multiply, by the names of their values."""

    elements: Mapping[str, int]
    macs: Mapping[str, int]

    @classmethod
    def of(cls, model: ir.Model, dims: Mapping[str, int]) -> Sizes:
        """Those of ``model`` and its subgraphs at ``dims``; what is not known is missing."""
        try:
            fixed = with_fixed_shapes(model, dims)
        except ModelError:
            return cls({}, {})
        elements: dict[str, int] = {}
        macs: dict[str, int] = {}
        for value in (value for graph in graphs_of(fixed) for value in values_in(graph)):
            if value.name and value.shape is not None and value.shape.is_static():
                elements[value.name] = _product(value.shape.numpy())
        for node in nodes_in(fixed.graph):
            if is_op(node, "Conv", "MatMul", "Gemm") and (count := node_macs(node)) is not None:
                macs[node.outputs[0].name or ""] = count
        return cls(elements, macs)


def find_dear(plan: Plan, sizes: Sizes) -> dict[ir.Node, str]:
    """The kernels of ``plan`` that do not pay, each with the reason; groups of them or single ones.

    Call again with the plan that is left: it has other borders.
    """
    balance = _Balance(plan, sizes)
    dear: dict[ir.Node, str] = {}
    for group in _connected(plan, balance.makers):
        total = balance.of(group)
        if total is None:
            continue
        for kernel in group:
            if kernel.weight is not None and (total <= 0 or balance.is_better_in_float(kernel)):
                dear[kernel.node] = REASON
    return dear


def _connected(plan: Plan, makers: Mapping[ir.Value, Kernel]) -> list[list[Kernel]]:
    """The kernels in groups that exchange 8-bit tensors."""
    group_of: dict[ir.Node, list[Kernel]] = {}
    for kernel in plan.kernels:
        own = [kernel]
        for value in kernel.reads():
            maker = makers.get(value)
            if maker is not None and group_of[maker.node] is not own:
                other = group_of[maker.node]
                small, own = sorted((own, other), key=len)
                own.extend(small)
                group_of |= {one.node: own for one in small}
        group_of[kernel.node] = own
    return list({id(group): group for group in group_of.values()}.values())


@dataclass
class _Balance:
    """What kernels gain and tensors cost, in microseconds; ``None`` where a size is unknown."""

    plan: Plan
    sizes: Sizes
    makers: dict[ir.Value, Kernel] = field(default_factory=dict)
    readers: defaultdict[ir.Value, list[Kernel]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for kernel in self.plan.kernels:
            self.makers.update(dict.fromkeys(kernel.outputs, kernel))
            for value in dict.fromkeys(kernel.reads()):
                self.readers[value].append(kernel)

    def of(self, group: list[Kernel]) -> float | None:
        """What ``group`` saves in all, the conversions around it taken off."""
        values = [value for kernel in group for value in (*kernel.reads(), *kernel.outputs)]
        touched = [value for value in dict.fromkeys(values) if value in self.plan.roots]
        terms = [self.gain(kernel) for kernel in group]
        for value in touched:
            cost = self.conversion(value)
            terms.append(-cost if cost is not None and self.is_border(value) else cost and 0.0)
        return None if None in terms else sum(filter(None, terms))

    def gain(self, kernel: Kernel) -> float | None:
        """What ``kernel`` itself saves; negative if it is slower in 8 bits."""
        name, weight = kernel.node.outputs[0].name or "", kernel.weight
        if weight is None:
            return 0.0
        group = kernel.node.attributes.get_int("group", 1)
        if is_op(kernel.node, "Conv") and weight.shape[1] == 1 and group > 1:
            elements = self.sizes.elements.get(name)
            return None if elements is None else -elements * _DEPTHWISE
        macs = self.sizes.macs.get(name)
        return None if macs is None else macs * _PRODUCT

    def conversion(self, value: ir.Value) -> float | None:
        """What it takes to convert ``value``."""
        elements = self.sizes.elements.get(value.name or "")
        return None if elements is None else _START + elements * _BORDER

    def is_border(self, value: ir.Value) -> bool:
        """Whether ``value`` is float on one side and 8-bit on the other."""
        if value not in self.makers or value.is_graph_output():
            return True
        inside = {kernel.node for kernel in self.readers[value]}
        return any(use.node not in inside for use in value.uses())

    def is_better_in_float(self, kernel: Kernel) -> bool:
        """Whether a kernel that is slower in 8 bits costs more than the borders that it avoids."""
        gain = self.gain(kernel)
        if gain is None or gain >= 0:
            return False
        change = -gain
        for value in kernel.reads():
            if value in self.makers:
                change -= 0.0 if self.is_border(value) else self.conversion(value) or 0.0
            elif self.readers[value] == [kernel]:
                change += self.conversion(value) or 0.0
        for value in kernel.outputs:
            if not self.readers[value]:
                change += self.conversion(value) or 0.0
            elif not self.is_border(value):
                change -= self.conversion(value) or 0.0
        return change > 0


def _product(sizes: tuple[int | ir.SymbolicDim, ...]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))
