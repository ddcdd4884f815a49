"""Rules as data, trees of operators and what to write in their place, and applying them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Array, Context, Result, label_of
from ..graph import graph_of, nodes_in, nodes_of, take_over
from .constants import ConstantWriter, drop_unused
from .patterns import Anything, Computed, Const, Match, Number, OneOf, Op, Pattern, match, needed

CONTRIB: Final = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
_WITHOUT_DOUBLE: Final = frozenset(
    {"Gelu", "GlobalAveragePool", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish"}
)
"""Operators that ONNX Runtime has no kernels of for double."""

Tree: TypeAlias = Op | Callable[[Match], Op | None]
"""What to write, or what makes it of a match; ``None`` if the match is none after all."""


def _nothing(_found: Match, _facts: Facts) -> str:
    """No objection."""
    return ""


@dataclass(frozen=True)
class Rule:
    """Trees of operators that compute one thing, and what is written in their place.

    Every pattern binds ``x``, a float tensor, and the answer has its type.

    Attributes:
        name: What is computed.
        patterns: Its spellings. A constant in them that is a number does not widen the answer.
        writes: What to write, the best first. The first that there is for the type of ``x`` in
            the model's opset is taken; one that stands there already is left alone.
        on_cpu: What is better still where ONNX Runtime's CPU kernels run it.
        objection: Why a match has to stay; empty if nothing is wrong with it.
        dtypes: The types that it is right for.
        since: The first version of the operators that it is right for.
    """

    name: str
    patterns: tuple[Op | OneOf, ...]
    writes: tuple[Tree, ...]
    on_cpu: tuple[Tree, ...] = ()
    objection: Callable[[Match, Facts], str] = _nothing
    dtypes: frozenset[ir.DataType] = _FLOATS
    since: int = 0


@dataclass(frozen=True)
class _Spelling:
    rule: Rule
    pattern: Op
    needs: frozenset[str]


@dataclass(frozen=True)
class Rules:
    """Rules, by the operators at the roots of their patterns."""

    by_root: dict[str, list[_Spelling]] = field(default_factory=dict)

    @staticmethod
    def of(*rules: Rule) -> Rules:
        """Index ``rules``; where several match a node, the first is taken."""
        table: dict[str, list[_Spelling]] = {}
        for rule in rules:
            for pattern in _roots(rule.patterns):
                spelling = _Spelling(rule, pattern, needed(pattern))
                table.setdefault(pattern.op_type, []).append(spelling)
        return Rules(table)


def _roots(patterns: Iterable[Pattern]) -> Iterator[Op]:
    for pattern in patterns:
        if isinstance(pattern, OneOf):
            yield from _roots(pattern.choices)
        elif isinstance(pattern, Op):
            yield pattern


def contrib(op_type: str, *inputs: Pattern, **attributes: Any) -> Op:
    """A node of one of ONNX Runtime's own operators, to be written."""
    return Op(op_type, inputs, attributes, CONTRIB)


class Rewriter:
    """Applies rules to one model: one walk over its nodes, in order."""

    def __init__(self, model: ir.Model, context: Context, *, for_target: bool) -> None:
        self._model = model
        self._facts = Facts(model)
        self._constants = ConstantWriter(model)
        self._result = Result(model)
        self._contrib = for_target and context.target.contrib_operators
        self._cpu = for_target and context.target.name == "cpu"
        self._present = {node.op_type for node in nodes_of(model)}
        self._retired: dict[ir.Value, None] = {}

    def run(self, rules: Rules) -> Result:
        """Rewrite what matches; ``details`` of the result counts the rules that did."""
        model = self._model
        bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for body in bodies:
            opset = body.opset_imports.get("", 0)
            for node in list(nodes_in(body)):
                root: ir.Node | None = node
                while root is not None and root.graph is not None:
                    root = self._rewrite(root, rules, body, opset)
        drop_unused(*self._retired)
        return self._result

    def _rewrite(
        self, root: ir.Node, rules: Rules, body: ir.Graph | ir.Function, opset: int
    ) -> ir.Node | None:
        """Apply the first rule that matches at ``root``; returns what stands there then."""
        if root.domain:
            return None
        for spelling in rules.by_root.get(root.op_type, ()):
            if not spelling.needs <= self._present:
                continue
            found = match(spelling.pattern, root)
            tree = None if found is None else self._choose(spelling.rule, found, opset)
            if found is None or tree is None:
                continue
            if isinstance(tree, str):
                self._result.decline(root, because=tree)
                continue
            if tree.domain:
                for holder in (body, self._model.graph):
                    holder.opset_imports.setdefault(tree.domain, 1)
            self._result.rewrote(root)
            self._result.declined.pop(label_of(root), None)  # by another rule
            name = spelling.rule.name
            self._result.details[name] = self._result.details.get(name, 0) + 1
            return self._replace(found, tree, opset)
        return None

    def _choose(self, rule: Rule, found: Match, opset: int) -> Op | str | None:
        """What to write for ``found``, why nothing, or ``None`` where there is nothing to do."""
        dtype = self._dtype(found)
        if opset < rule.since or (dtype is not None and dtype not in rule.dtypes):
            return None
        because: str | None = None
        for tree in (*(rule.on_cpu if self._cpu else ()), *rule.writes):
            made = tree if isinstance(tree, Op) else tree(found)
            if made is None or _stands(made, found):
                return None
            if dtype is None:
                return "the type of its input is not known"
            why = _unavailable(made, dtype, opset, contrib_operators=self._contrib)
            if not why:
                return self._objection(rule, found) or made
            because = because or why
        return because

    def _dtype(self, found: Match) -> ir.DataType | None:
        """The type of ``x``; nothing tells it in a function but the constants that it meets."""
        reads = [value for node in found.nodes.values() for value in node.inputs]
        for value in (found["x"], *reads):
            if value is not None and (dtype := self._facts.dtype(value)) is not None:
                return dtype
        return None

    def _objection(self, rule: Rule, found: Match) -> str:
        if (inner := found.read_elsewhere()) is not None:
            producer = inner.producer()
            kind = "" if producer is None else producer.op_type
            return f"what {kind} computes inside of it is read elsewhere as well"
        if found.rank:
            self._facts.follow_to(found["x"])
            dims = self._facts.dims(found["x"])
            if dims is None or len(dims) < found.rank:
                return "a constant in it may have more axes than what it meets"
        return rule.objection(found, self._facts)

    def _replace(self, found: Match, tree: Op, opset: int) -> ir.Node:
        root = found.root
        dtype = self._dtype(found)
        new = _TreeWriter(found, self._facts, self._constants, dtype, opset).write(tree)
        old = root.outputs[0]
        self._present.update(needed(tree))
        take_over(new.outputs[0], old)
        new.name = root.name
        new.doc_string = root.doc_string
        new.metadata_props.update(root.metadata_props)
        nodes = set(found.nodes.values())
        for node in nodes:
            for value in node.inputs:
                if value is not None and value.producer() not in nodes:
                    self._retired[value] = None
        graph_of(root).remove(nodes, safe=True)
        return new


class _TreeWriter:
    """Writes the nodes of one tree before the root of the match that it replaces."""

    def __init__(
        self,
        found: Match,
        facts: Facts,
        constants: ConstantWriter,
        dtype: ir.DataType | None,
        opset: int,
    ) -> None:
        self._found = found
        self._facts = facts
        self._constants = constants
        self._dtype = dtype or ir.DataType.FLOAT
        self._opset = opset
        self._nodes: dict[Op, ir.Node] = {}
        self._base = found.root.outputs[0].name or found.root.op_type

    def write(self, tree: Op) -> ir.Node:
        """The node of ``tree``, new the first time."""
        if tree in self._nodes:
            return self._nodes[tree]
        inputs = [self._input(one) for one in tree.inputs]
        attributes = {name: self._attribute(value) for name, value in tree.attributes.items()}
        if tree.op_type == "Clip" and self._opset < 11:
            bounds = zip(("min", "max"), tree.inputs[1:], strict=False)
            attributes |= {name: self._number(one) for name, one in bounds if one is not None}
            inputs = inputs[:1]
        root = self._found.root
        name = self._constants.names.fresh(f"{self._base}.{tree.op_type.lower()}")
        output = ir.Value(name=name, type=ir.TensorType(self._dtype))
        made = ir.convenience.convert_attributes(attributes)
        node = ir.Node(tree.domain, tree.op_type, inputs, made, outputs=[output])
        graph_of(root).insert_before(root, node)
        self._nodes[tree] = node
        return node

    def _input(self, tree: Pattern | None) -> ir.Value | None:
        if tree is None:
            return None
        if isinstance(tree, Op):
            return self.write(tree).outputs[0]
        if isinstance(tree, Number):
            return self._constant("number", np.array(self._number(tree), self._dtype.numpy()))
        if isinstance(tree, Computed):
            return self._constant("vector", tree.make(self._found, self._facts))
        if isinstance(tree, Anything | Const):
            return self._found[tree.name]
        raise TypeError("a choice cannot be written")

    def _constant(self, role: str, array: Array) -> ir.Value:
        root = self._found.root
        return self._constants.add(graph_of(root), f"{self._base}.{role}", array, root)

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Number):
            value = self._number(value)
        return float(np.float32(value)) if isinstance(value, float) else value

    def _number(self, tree: Any) -> float:
        return self._found.numbers[tree.name] if tree.value is None else float(tree.value)


def _stands(tree: Op, found: Match) -> bool:
    """Whether ``tree`` is what ``found`` found."""
    there = None if tree.domain else match(tree, found.root)
    return there is not None and there["x"] is found["x"]


def _unavailable(tree: Op, dtype: ir.DataType, opset: int, *, contrib_operators: bool) -> str:
    """Why ``tree`` cannot be written; empty if it can."""
    for one in _operators(tree):
        if one.domain:
            if not contrib_operators or dtype == ir.DataType.DOUBLE:
                return "only operators of ONNX Runtime's own do it"
        elif dtype == ir.DataType.DOUBLE and one.op_type in _WITHOUT_DOUBLE:
            return f"ONNX Runtime has no {one.op_type} for double"
        elif dtype not in _types(one.op_type, opset):
            return f"there is no {one.op_type} for its type in version {opset} of the operators"
    return ""


def _operators(tree: Op) -> Sequence[Op]:
    inner = [one for child in tree.inputs if isinstance(child, Op) for one in _operators(child)]
    return [tree, *inner]


@cache
def _types(op_type: str, opset: int) -> frozenset[ir.DataType]:
    """The types among floats that the first input of an operator may have."""
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return frozenset()
    names = {"tensor(float)": "FLOAT", "tensor(float16)": "FLOAT16", "tensor(double)": "DOUBLE"}
    taken = schema.inputs[0].types
    return frozenset(ir.DataType[short] for name, short in names.items() if name in taken)
