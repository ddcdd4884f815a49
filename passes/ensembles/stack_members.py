"""Run the members of an ensemble as one network where they have the same architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, get_args

import onnx_ir as ir

from ...backends.errors import UsageError
from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import is_op
from .bundles import Bundle, find_bundles
from .stack_layers import LAYERS, SEEDS, Matrices
from .stack_recurrent import RECURRENT
from .stack_rules import RULES, Rule
from .stack_views import VIEWS
from .stacker import Stacked, Stacker, Unfit

Layers: TypeAlias = Literal["all", "shared"]
Form: TypeAlias = Literal["matmul", "conv"]

_CONTRIBUTED: Final = frozenset({"Gelu", "QuickGelu"})
_MEETINGS: Final = {"Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin"}


@dataclass(frozen=True)
class StackMembers(Pass):
    """Make one layer of layers that do the same with weights of their own, in one branch each.

    Branches begin where layers with equal attributes and weights of equal shape read one and the
    same value, and are followed as far as they are alike. Their values lie in one tensor, along the
    channels or along an axis of their own in front::

        Conv(x, W_1), .., Conv(x, W_n)        Conv(x, [W_1; ..; W_n])
        Conv(x_1, W_1), .., Conv(x_n, W_n)    Conv([x_1, .., x_n], [W_1; ..; W_n], group=n)
        x W_1, .., x W_n                      x [W_1, .., W_n]
        x_1 W_1, .., x_n W_n                  a batched MatMul, or a grouped Conv over one pixel
        LSTM(x, R_1), .., LSTM(x, R_n)        one LSTM with the blocks R_1, .., R_n on the diagonal

    Names and the order of nodes do not matter; sums and products may read a constant on either
    side. Where branches part ways, and where an operator has no stacked form, they go on apart;
    where they meet in a ``Sum``, ``Max`` or ``Min``, this becomes a reduction.

    Whether it pays depends on sizes, batch and machine: ``onnxpress merge --layout auto`` measures.

    Attributes:
        layers: ``shared`` stacks only layers that read what all branches share, and what follows
            entry by entry or pixel by pixel; ``all`` goes on as far as branches are alike.
        matrices: How the later ``Gemm`` and ``MatMul`` are written.
    """

    name: ClassVar[str] = "stack-members"
    summary: ClassVar[str] = "run members of one architecture as one network"

    layers: Layers = "all"
    matrices: Form = "matmul"

    def __post_init__(self) -> None:
        for option, known in (("layers", Layers), ("matrices", Form)):
            if getattr(self, option) not in get_args(known):
                raise UsageError(f"{option} is one of {', '.join(get_args(known))}")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Stack what is alike; ``details`` counts the nodes that became one, and the branches."""
        del context
        result = Result(model)
        bundles = find_bundles(model.graph)
        if not any(bundle.first.op_type in SEEDS for bundle in bundles):
            return result
        facts = Facts(model)
        facts.follow_all()
        run = _Run(self, Stacker(model, facts), result)
        for bundle in bundles:
            run.stack(bundle)
        run.finish()
        return result


class _Run:
    """Stacks bundle after bundle, then connects what stays apart."""

    def __init__(self, options: StackMembers, stacker: Stacker, result: Result) -> None:
        self.options = options
        self.stacker = stacker
        self.result = result
        self.rules: dict[str, Rule] = {**RULES, **VIEWS, **LAYERS}
        self.rules |= dict.fromkeys(("Gemm", "MatMul"), Matrices(options.matrices))
        self.stacked: dict[ir.Value, Stacked] = {}
        self.order: dict[Stacked, list[ir.Value]] = {}
        self.gone: dict[ir.Node, None] = {}
        self.layers: list[Bundle] = []

    def stack(self, bundle: Bundle) -> None:
        """Write ``bundle`` as one node, if it reads stacked values or is worth a beginning."""
        node = bundle.first
        inputs = [self._input(bundle, index) for index in range(len(node.inputs))]
        begins = not any(inputs)
        if begins and node.op_type not in SEEDS:
            return
        standard = is_op(node, node.op_type)
        rule = self.rules.get(node.op_type)
        if rule is None or not (standard or node.op_type in _CONTRIBUTED):
            if not begins:
                self._decline(bundle, f"{node.op_type} has no form that runs all branches at once")
            return
        if self.options.layers == "shared" and not begins and node.op_type in SEEDS:
            return
        last = self.stacker.mark()
        try:
            stacked = rule(self.stacker, bundle, inputs)
        except Unfit as reason:
            self.stacker.undo(last)
            if not begins or node.op_type in RECURRENT:
                self._decline(bundle, str(reason))
            return
        for at, one in enumerate([stacked] if isinstance(stacked, Stacked) else stacked):
            if one is not None:
                outputs = [node.outputs[at] for node in bundle.nodes]
                self.order[one] = outputs
                self.stacked.update(dict.fromkeys(outputs, one))
        self.gone.update(dict.fromkeys(bundle.nodes))
        self.layers.append(bundle)

    def _input(self, bundle: Bundle, index: int) -> Stacked | None:
        values = bundle.reads(index)
        first = None if values[0] is None else self.stacked.get(values[0])
        return first if first is not None and self.order[first] == values else None

    def _decline(self, bundle: Bundle, because: str) -> None:
        self.result.decline(bundle.first, because=because)

    def finish(self) -> None:
        """Meet, split for those that go on apart, and take the old nodes away."""
        if not self.gone:
            self.stacker.finish()
            return
        for stacked, values in list(self.order.items()):
            self._meet(stacked, values)
        for stacked, values in self.order.items():
            if any(map(self._read_apart, values)):
                for old, new in zip(values, self.stacker.apart(stacked), strict=True):
                    self._hand_over(old, new)
        graph = self.stacker.graph
        for node in self.gone:
            self.result.rewrote(node)
        for node in reversed(self.gone):
            graph.remove(node, safe=True)
        self.stacker.finish()
        self.result.details = {
            "nodes": sum(len(bundle.nodes) for bundle in self.layers),
            "layers": len(self.layers),
            "branches": max(len(bundle.nodes) for bundle in self.layers),
        }

    def _read_apart(self, value: ir.Value) -> bool:
        return value.is_graph_output() or any(use.node not in self.gone for use in value.uses())

    def _hand_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let ``new`` be what others than stacked nodes read where they read ``old``."""
        for use in list(old.uses()):
            if use.node not in self.gone:
                use.node.replace_input_with(use.idx, new)
        outputs = self.stacker.graph.outputs
        if old.is_graph_output():
            new.type, new.shape = old.type, old.shape
            new.name, old.name = old.name, None
            for place, value in enumerate(outputs):
                if value is old:
                    outputs[place] = new

    def _meet(self, stacked: Stacked, values: list[ir.Value]) -> None:
        """Make a reduction of the node in which just these values meet."""
        for node in {use.node for use in values[0].uses()}:
            kind = _MEETINGS.get(node.op_type)
            if kind is None or not is_op(node, node.op_type) or node in self.gone:
                continue
            if len(node.inputs) != len(values) or set(node.inputs) != set(values):
                continue
            last = self.stacker.mark()
            try:
                front = self.stacker.in_front(stacked)
            except Unfit:
                self.stacker.undo(last)
                continue
            reduced = self.stacker.reduce_branches(kind, front.value)
            old = node.outputs[0]
            self.gone[node] = None
            self._hand_over(old, reduced)
