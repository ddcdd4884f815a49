"""What can be told of the tensors in a model without running it, from its inputs alone."""

from __future__ import annotations

import copy
import math
from collections import ChainMap
from collections.abc import Iterable, MutableMapping

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, constant_tensor, is_op, subgraphs_of
from ..held import is_standard
from .dim_rules import infer, named
from .partial import LIMIT, TYPES, Call, Dims, Item, Partial, UnknownError, as_items
from .types import ElementTypes, is_contrib_activation
from .value_rules import RULES

_BOUNDS = {
    ir.DataType.INT64: (-(2**63), 2**63),
    ir.DataType.INT32: (-(2**31), 2**31),
    ir.DataType.BOOL: (0, 2),
}


class Facts:
    """Types, sizes and integers that hold whatever a model is fed.

    All is followed forward from the declared inputs of the main graph. Those are checked by
    runtimes when they are fed; equal names there mean equal sizes, as the ONNX specification has
    it. What the model says of intermediate tensors, of its outputs and of the inputs of subgraphs
    and functions (``value_info``) is not believed: exporters and rewrites leave it stale, and
    nothing enforces it. Only element types are taken from there, because runtimes do check those.

    A new instance knows inputs and constants; the ``follow`` methods learn more. The nodes of the
    model must be sorted.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._dims: MutableMapping[ir.Value, Dims | None] = {}
        self._types = ElementTypes(model.opset_imports.get("", 0))
        self._partials: MutableMapping[ir.Value, Partial | None] = {}
        self._done: set[ir.Node] = set()
        self._opsets = {
            graph: function.opset_imports.get("", 0)
            for function in model.functions.values()
            for graph in (function.graph, *function.graph.subgraphs())
        }
        for value in model.graph.inputs:
            if isinstance(value.type, ir.TensorType) and value.shape is not None:
                self._dims[value] = named([_declared(size) for size in value.shape], value)

    def follow_all(self) -> None:
        """Follow every node of the model."""
        for root in (self._model.graph, *(f.graph for f in self._model.functions.values())):
            self.follow_graph(root)

    def follow_graph(self, graph: ir.Graph) -> None:
        """Follow the nodes of ``graph``, inside its subgraphs as well."""
        for node in graph:
            for subgraph in subgraphs_of(node):
                self.follow_graph(subgraph)
            self._follow(node)

    def follow(self, nodes: Iterable[ir.Node]) -> None:
        """Follow ``nodes``, sorted, whose inputs are known as far as they will be."""
        for node in nodes:
            self._follow(node)

    def follow_to(self, value: ir.Value) -> None:
        """Follow what ``value`` is computed from, and nothing else."""
        waiting = [value]
        while waiting:
            node = waiting[-1].producer()
            if node is None or node in self._done:
                waiting.pop()
                continue
            reads = [*node.inputs]
            if is_op(node, "If"):
                reads += [out for branch in subgraphs_of(node) for out in branch.outputs]
            ahead = [v for v in reads if v is not None and v.producer() not in self._done]
            ahead = [v for v in ahead if v.producer() is not None]
            if ahead:
                waiting += ahead
            else:
                self._follow(node)

    def fork(self) -> Facts:
        """What is known here, to go on from and to suppose more, which this one never learns.

        Its nodes count as not followed yet, and what it says of a value is the supposition or
        what followed from it; else what is known here.
        """
        other = copy.copy(self)
        other._dims = ChainMap({}, self._dims)
        other._partials = ChainMap({}, self._partials)
        other._done = set()
        return other

    def suppose(self, value: ir.Value, dims: Dims | None, partial: Partial | None) -> None:
        """Take ``dims`` and ``partial`` for what is known of ``value``."""
        self._dims[value], self._partials[value] = dims, partial

    def dims(self, value: ir.Value) -> Dims | None:
        """The sizes of ``value``; ``None`` if not even its rank is known."""
        if value not in self._dims:
            tensor = constant_tensor(value)
            self._dims[value] = None if tensor is None else tuple(tensor.shape.numpy())
        return self._dims[value]

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type of ``value``, if it is a tensor; nothing need have been followed."""
        return self._types.of(value)

    def partial(self, value: ir.Value) -> Partial | None:
        """The integers in ``value`` as far as known; ``None`` if it is no such tensor."""
        if value not in self._partials:
            self._partials[value] = _constant(value) or self._unread(value)
        return self._partials[value]

    def arrays(self) -> dict[ir.Value, Array]:
        """Every output of a node that is known as a whole; constants are not among them."""
        return {
            value: array
            for value, partial in self._partials.items()
            if partial is not None
            and _is_computed(value)
            and (array := partial.known()) is not None
        }

    def nbytes(self, value: ir.Value) -> int | None:
        """The size of ``value`` in bytes, if it is fixed and known."""
        dims, dtype = self.dims(value), self.dtype(value)
        sizes = [size for size in dims or () if isinstance(size, int)]
        if dims is None or len(sizes) < len(dims) or dtype in {None, ir.DataType.STRING}:
            return None
        return math.ceil(math.prod(sizes) * dtype.itemsize)

    def _follow(self, node: ir.Node) -> None:
        if node in self._done:
            return
        self._done.add(node)
        if is_op(node, "If"):
            self._join_branches(node)
        elif is_contrib_activation(node):
            self._dims[node.outputs[0]] = None if (x := node.inputs[0]) is None else self.dims(x)
        elif is_standard(node.domain) and not any(a.is_ref() for a in node.attributes.values()):
            main = self._model.opset_imports.get("", 0)
            opset = main if node.graph is None else self._opsets.get(node.graph, main)
            self._visit(Call(node, opset, self.partial, self.dims, self.dtype))

    def _visit(self, call: Call) -> None:
        node = call.node
        if is_op(node, "Constant"):
            return
        try:
            for output, dims in zip(node.outputs, infer(call), strict=False):
                self._dims[output] = dims
        except (UnknownError, IndexError, ValueError):
            # Either too little is known, or the node fails whenever it runs.
            self._dims.update(dict.fromkeys(node.outputs))
        if (rule := RULES.get(node.op_type)) is not None:
            try:
                answers = rule(call)
            except (UnknownError, IndexError, ValueError):
                return
            for output, answer in zip(node.outputs, answers, strict=False):
                self._keep(output, answer)

    def _keep(self, output: ir.Value, answer: Partial) -> None:
        if answer.items.size > LIMIT:
            return
        low, high = _BOUNDS[answer.dtype]
        for index, item in np.ndenumerate(answer.items):
            if isinstance(item, int) and not low <= item < high:
                answer.items[index] = None  # it wraps around
        self._partials[output] = answer

    def _unread(self, value: ir.Value) -> Partial | None:
        """The integers that ``value``, an input of fixed sizes, is fed: so many, all unknown."""
        dims = self._dims.get(value) if value.is_graph_input() else None
        if dims is None or (dtype := self.dtype(value)) not in TYPES or dtype is None:
            return None
        sizes = [size for size in dims if isinstance(size, int)]
        if len(sizes) < len(dims) or math.prod(sizes) > LIMIT:
            return None
        return Partial(dtype, np.full(sizes, None, object))

    def _join_branches(self, node: ir.Node) -> None:
        """An output of ``If`` has the sizes that both branches give it, or the one it takes."""
        condition = None if node.inputs[0] is None else self.partial(node.inputs[0])
        taken = None if condition is None or condition.items.size != 1 else condition.known()
        if taken is not None:
            branch = node.attributes["then_branch" if taken.item() else "else_branch"].as_graph()
            for output, answer in zip(node.outputs, branch.outputs, strict=True):
                self.suppose(output, self.dims(answer), self.partial(answer))
            return
        branches = subgraphs_of(node)
        for index, output in enumerate(node.outputs):
            shapes = [self.dims(branch.outputs[index]) for branch in branches]
            known = [shape for shape in shapes if shape is not None]
            self._dims[output] = None
            if len(known) == len(shapes) and len({len(shape) for shape in known}) == 1:
                sizes = [ds[0] if len(set(ds)) == 1 else None for ds in zip(*known, strict=True)]
                self._dims[output] = named(sizes, output)


def _declared(size: int | ir.SymbolicDim) -> Item:
    if isinstance(size, int):
        return size if size >= 0 else None  # some exporters write -1 for what is not fixed
    return size.value


def _is_computed(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and not is_op(node, "Constant")


def _constant(value: ir.Value) -> Partial | None:
    tensor = value.const_value
    if tensor is None and not is_op(value.producer(), "Constant"):
        return None
    if tensor is not None and (tensor.dtype not in TYPES or tensor.size > LIMIT):
        return None
    array = constant(value)
    if array is None or array.size > LIMIT:
        return None
    for dtype, native in TYPES.items():
        if array.dtype == native:
            return Partial(dtype, as_items(np.frompyfunc(int, 1, 1)(array)))
    return None
