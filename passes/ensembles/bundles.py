"""Find the nodes of a graph that do the same with weights of their own, one in each branch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from ..graph import constant_tensor, subgraphs_of
from .combine import FLOATS

_CONTENT: Final = 64
"""Up to so many integers are told apart by what they are: they are shapes and axes, not weights."""

COMMUTATIVE: Final = frozenset({"Add", "Mul"})


@dataclass(frozen=True, eq=False)
class Bundle:
    """Nodes of one operator with equal attributes, one a branch, in the branches' order."""

    nodes: tuple[ir.Node, ...]

    @property
    def first(self) -> ir.Node:
        """One of them, to ask what holds of all."""
        return self.nodes[0]

    def reads(self, index: int) -> list[ir.Value | None]:
        """What each of them reads at ``index``, the constant last where the order is free."""
        return [reads(node)[index] for node in self.nodes]


def reads(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of ``node``, the constant last where their order does not matter."""
    if node.op_type in COMMUTATIVE and len(node.inputs) == 2:
        one, other = node.inputs
        if _is_constant(one) and not _is_constant(other):
            return (other, one)
    return node.inputs


def find_bundles(graph: ir.Graph) -> list[Bundle]:
    """Bundles of ``graph``, which is sorted, each after those that it reads from.

    Branches begin where equal layers read one and the same value. Nodes of different branches go
    together where they are equal up to the content of their weights and read what already goes
    together, whatever they are called and wherever they stand. A branch that goes on in another
    way than the others ends there.
    """
    return _Finder(graph).bundles


class _Finder:
    """Colours nodes by what they compute, tells branches apart, and matches across them."""

    def __init__(self, graph: ir.Graph) -> None:
        self._ids: dict[Hashable, int] = {}
        self._nodes = [node for node in graph if not subgraphs_of(node)]
        self._place = {node: at for at, node in enumerate(self._nodes)}
        self._own = {node: self._signature(node) for node in self._nodes}
        self._forward: dict[ir.Node, int] = {}
        self._depth: dict[ir.Node, int] = {}
        for node in self._nodes:
            self._colour(node)
        self._many = Counter(self._forward.values())
        self._parent: dict[ir.Node, ir.Node] = {}
        for node in self._nodes:
            self._join(node)
        self._backward: dict[ir.Node, int] = {}
        for node in reversed(self._nodes):
            self._look_ahead(node)
        self._bundle: dict[ir.Value, int] = {}
        self._owners: list[frozenset[ir.Node]] = []
        self.bundles: list[Bundle] = []
        levels: dict[int, list[ir.Node]] = defaultdict(list)
        for node in self._nodes:
            if self._many[self._forward[node]] > 1:
                levels[self._depth[node]].append(node)
        for depth in sorted(levels):
            self._match(levels[depth])

    def _id(self, key: Hashable) -> int:
        return self._ids.setdefault(key, len(self._ids))

    def _signature(self, node: ir.Node) -> int:
        attributes = tuple(sorted(map(_attribute, node.attributes.values())))
        constants = tuple(map(_constant, reads(node)))
        return self._id((node.domain, node.op_type, attributes, constants, len(node.outputs)))

    def _colour(self, node: ir.Node) -> None:
        """What ``node`` computes, up to the content of weights."""
        inputs: list[Hashable] = []
        depth = 0
        for value in reads(node):
            producer = None if value is None else value.producer()
            if producer is not None and producer in self._forward:
                inputs.append((self._forward[producer], value.index() if value else 0))
                depth = max(depth, self._depth[producer] + 1)
            else:
                inputs.append(None if value is None or _is_constant(value) else value)
        self._forward[node] = self._id((self._own[node], *inputs))
        self._depth[node] = depth

    def _repeated(self, node: ir.Node | None) -> bool:
        return node in self._forward and self._many[self._forward[node]] > 1

    def _join(self, node: ir.Node) -> None:
        """Put ``node`` into the branch of what it reads, where others do the same elsewhere.

        What has no equal, such as the node that all branches meet in, joins nothing.
        """
        self._parent[node] = node
        if self._repeated(node):
            for value in node.inputs:
                producer = None if value is None else value.producer()
                if producer is not None and self._repeated(producer):
                    one, other = self._owner(node), self._owner(producer)
                    late, early = sorted((one, other), key=self._place.__getitem__, reverse=True)
                    self._parent[late] = early

    def _owner(self, node: ir.Node) -> ir.Node:
        """The first node of the branch of ``node``, which stands for the branch."""
        while (parent := self._parent[node]) is not node:
            self._parent[node] = node = self._parent[parent]
        return node

    def _look_ahead(self, node: ir.Node) -> None:
        """What is done, within its branch, with what ``node`` computes: tells twins apart."""
        owner = self._owner(node)
        ahead = [
            (self._own[reader], _position(reader, index), self._backward[reader])
            for output in node.outputs
            for reader, index in output.uses()
            if reader in self._backward and self._owner(reader) is owner
        ]
        self._backward[node] = self._id(("ahead", *sorted(ahead)))

    def _match(self, level: Iterable[ir.Node]) -> None:
        groups: dict[tuple[int, tuple[Hashable, ...]], list[ir.Node]] = defaultdict(list)
        for node in level:
            inputs: tuple[Hashable, ...] = tuple(
                None
                if value is None or _is_constant(value)
                else (self._bundle[value], value.index())
                if value in self._bundle
                else value
                for value in reads(node)
            )
            groups[self._own[node], inputs].append(node)
        for (_, inputs), nodes in groups.items():
            needed = {self._owners[read[0]] for read in inputs if isinstance(read, tuple)}
            if len(needed) > 1:
                continue
            apart: dict[int, list[ir.Node]] = defaultdict(list)
            for node in nodes:
                apart[self._backward[node]].append(node)
            for twins in apart.values() if self._one_each(apart.values()) else [nodes]:
                self._pair(twins, next(iter(needed), None))

    def _one_each(self, groups: Iterable[list[ir.Node]]) -> bool:
        """Whether looking ahead leaves at least two nodes, and one a branch, in each group."""
        return all(len(group) == len(set(map(self._owner, group))) > 1 for group in groups)

    def _pair(self, nodes: list[ir.Node], needed: frozenset[ir.Node] | None) -> None:
        """One bundle for each turn that every branch has in ``nodes``."""
        turns: dict[ir.Node, list[ir.Node]] = defaultdict(list)
        for node in nodes:
            turns[self._owner(node)].append(node)
        owners = frozenset(turns)
        if len(owners) < 2 or (needed is not None and needed != owners):
            return
        if len({len(turn) for turn in turns.values()}) > 1:
            return
        ordered = sorted(owners, key=self._place.__getitem__)
        for group in zip(*(turns[owner] for owner in ordered), strict=True):
            for node in group:
                self._bundle.update(dict.fromkeys(node.outputs, len(self.bundles)))
            self._owners.append(owners)
            self.bundles.append(Bundle(group))


def _position(node: ir.Node, index: int) -> int:
    """Where ``node`` reads what is its input at ``index``, in the order of :func:`reads`."""
    return 0 if reads(node)[0] is not node.inputs[0] else index


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and constant_tensor(value) is not None


def _constant(value: ir.Value | None) -> Hashable:
    """Type and shape of a constant, and what it holds if that is not a weight."""
    tensor = None if value is None else constant_tensor(value)
    if tensor is None:
        return value is None
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype in FLOATS or tensor.size > _CONTENT:
        return (tensor.dtype.name, shape)
    return (tensor.dtype.name, shape, _content(tensor))


def _content(tensor: ir.TensorProtocol) -> bytes | tuple[bytes, ...]:
    """What ``tensor`` holds; strings have no bytes of their own."""
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().reshape(-1).tolist())
    return tensor.tobytes()


def _attribute(attribute: ir.Attr) -> tuple[str, str]:
    if attribute.is_ref():
        return (attribute.name, f"ref {attribute.ref_attr_name}")
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return (attribute.name, f"{tensor.dtype} {tensor.shape} {_content(tensor)!r}")
    return (attribute.name, repr(attribute.value))
