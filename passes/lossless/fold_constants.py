"""Compute at compile time what does not depend on the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..errors import UsageError
from ..graph import add_initializer, graph_of, is_op, nodes_of, take_over
from .branch_choice import choose_branches
from .branches import take_known_branches
from .constant_region import Region, find_region, plan_region
from .constants import ConstantWriter, constant_node, drop_unused, is_unused, remove_node
from .evaluate import Evaluator, as_tensor
from .shape_targets import expand_target, reshape_target
from .weights import is_weight

_ROUNDS = 8
"""How often shapes are followed anew at most, with what ONNX Runtime evaluated meanwhile."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace what does not depend on the inputs by its value.

    Constant nodes are evaluated by ONNX Runtime, all in one session and without optimizations,
    so that values are bit for bit what the model would compute. Integers computed from shapes
    are followed one by one: ``Shape(x)[1]`` is constant where that axis has a fixed size, whatever
    the batch. A ``Reshape`` or ``Expand`` whose target is known but for the batch gets a constant
    target. Shapes come from the declared graph inputs alone, never from ``value_info``. An ``If``
    whose condition is constant makes way for the branch that it takes; so does one whose other
    branch gives a recurrent layer or a convolution, further on, a tensor that it cannot read.

    Not evaluated: random and training operators, ``QuantizeLinear`` and its relatives, sequences,
    and domains other than ONNX's. Nodes inside subgraphs and functions are folded as well.

    Attributes:
        max_growth: The number of bytes by which a stored value may exceed the constants that it
            alone is computed from. ``Expand``, ``Tile``, ``ConstantOfShape``, ``Range`` and
            ``OneHot`` make much of little, and ONNX Runtime evaluates them when it loads a model.
        max_weight: The same for a value that layers read as their weight, and nothing else does,
            if that is more. A weight that is stored can be folded with what stands beside it.
    """

    name: ClassVar[str] = "fold-constants"
    summary: ClassVar[str] = "evaluate constant nodes and what follows from known shapes"

    max_growth: int = 256
    max_weight: int = 0

    def __post_init__(self) -> None:
        """Check the options. Raises ``UsageError``."""
        for name in ("max_growth", "max_weight"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}, it cannot be negative")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fold what is constant; ``details`` counts the nodes that ONNX Runtime evaluated."""
        result = Result(model)
        arrays: dict[ir.Value, Array] = {}
        for _ in range(_ROUNDS):
            facts, done = Facts(model), len(result.rewritten)
            kinds = {node.op_type for node in nodes_of(model)}
            reads_sizes, decided = not kinds.isdisjoint({"Shape", "Size"}), {}
            if reads_sizes or "If" in kinds:
                facts.follow_all()
                arrays.update(facts.arrays())
                _fix_targets(model, facts, result)
                decided = choose_branches(model, facts) if "If" in kinds else {}
            evaluated = 0
            for root in (model.graph, *(body.graph for body in model.functions.values())):
                opsets = root.opset_imports
                evaluator = Evaluator(context.sessions, model.ir_version, opsets, arrays)
                self._fold(root, facts, evaluator, result)
                evaluated += evaluator.nodes
            if evaluated:
                result.details["evaluated"] = result.details.get("evaluated", 0) + evaluated
            taken = take_known_branches(model, result, decided)
            if not (taken or (reads_sizes and evaluated and len(result.rewritten) > done)):
                break
        return result

    def _growth(self, facts: Facts, value: ir.Value) -> int:
        is_larger = self.max_weight > self.max_growth
        return self.max_weight if is_larger and is_weight(value, facts) else self.max_growth

    def _fold(self, root: ir.Graph, facts: Facts, evaluator: Evaluator, result: Result) -> None:
        arrays = evaluator.arrays
        while True:
            region = find_region(root, arrays, evaluator.failures)
            facts.follow(region.reads)
            plan = plan_region(region, arrays, facts.nbytes, partial(self._growth, facts))
            if not plan.missing:
                break
            evaluator.run(_leading_to(plan.missing, region, arrays), plan.missing)
        for node, why in (*region.refused.items(), *evaluator.failures.items()):
            result.decline(node, because=why)
        for node in plan.kept:
            result.decline(node, because="its value takes much more room than what it comes from")
        for node in reversed(region.reads):
            # It would go on reading outputs whose names are taken over here.
            if node.graph is not None and is_unused(node):
                result.rewrote(node)
                drop_unused(*remove_node(node))
        for node, outputs in plan.store.items():
            if node.graph is None:  # it went with the last of its readers
                continue
            result.rewrote(node)
            for output in outputs:
                as_node = output.graph is root and root is not result.model.graph
                _store(output, as_tensor(arrays[output]), node, as_node=as_node)
        drop_unused(*(output for node in plan.store for output in node.outputs))


def _fix_targets(model: ir.Model, facts: Facts, result: Result) -> None:
    """Give ``Reshape`` and ``Expand`` a constant target where it means the same."""
    writer = None
    replaced: list[ir.Value | None] = []
    for node in nodes_of(model):
        if not is_op(node, "Reshape", "Expand") or len(node.inputs) < 2:
            continue
        source, old = node.inputs[:2]
        target = None if old is None else facts.partial(old)
        if target is None or source is None or target.known() is not None:
            continue
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            continue
        sizes, dims = target.items.tolist(), facts.dims(source)
        if node.op_type == "Expand":
            array = expand_target(sizes, dims)
        else:
            allow_zero = node.attributes.get_int("allowzero", 0) != 0
            array = reshape_target(sizes, dims, allow_zero=allow_zero)
        if isinstance(array, str):
            result.decline(node, because=array)
            continue
        writer = writer or ConstantWriter(model)
        wanted = f"{node.outputs[0].name}.target"
        node.replace_input_with(1, writer.add(graph_of(node), wanted, array, node))
        result.rewrote(node)
        replaced.append(old)
    drop_unused(*replaced)


def _leading_to(
    wanted: Iterable[ir.Value], region: Region, arrays: Mapping[ir.Value, Array]
) -> dict[ir.Node, Sequence[ir.Value]]:
    """The nodes of ``region`` that have to be evaluated for ``wanted``, with what they read."""
    waiting = list(wanted)
    seen: set[ir.Node] = set()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value not in arrays and node in region.reads and node not in seen:
            seen.add(node)
            waiting.extend(region.reads[node])
    return {node: values for node, values in region.reads.items() if node in seen}


def _store(output: ir.Value, tensor: ir.TensorProtocol, node: ir.Node, *, as_node: bool) -> None:
    """Let ``tensor`` stand for ``output``, an answer of ``node``, under its name.

    A graph output stays the output of a node, as some runtimes want it; so does a constant in the
    body of a function, which has no initializers.
    """
    graph, name = graph_of(node), output.name or ""
    if as_node or output.is_graph_output():
        constant = constant_node(tensor, name)
        graph.insert_before(node, constant)
        new = constant.outputs[0]
    else:
        new = add_initializer(graph, name, tensor)
    if not output.is_graph_output():
        output.shape = None  # a stale one might contradict the tensor
    take_over(new, output)
