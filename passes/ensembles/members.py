"""The members of an ensemble: private copies of models, under names that no other member has."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...backends.errors import ModelError
from ..graph import Names, graphs_of, nodes_of, subgraphs_of, values_in

_QUANT_PARAMETERS = "quant_parameter_tensor_names"
"""Where onnx_ir keeps a value's ``quantization_annotation``, which refers to tensors by name."""


@dataclass
class Member:
    """One model on its way into an ensemble.

    Attributes:
        name: What the user calls it.
        prefix: Goes before the names of its values and nodes, with a ``/``.
        ident: ``name`` as an identifier; goes before its functions and symbolic dimensions.
        model: A copy that may be rewritten; its tensors share the original's memory.
        inputs: The inputs that have to be fed: those without a default.
        output_names: What the original calls its outputs.
        details: What was done to make it fit, in JSON-ready form.
    """

    name: str
    prefix: str
    ident: str
    model: ir.Model
    inputs: list[ir.Value]
    output_names: list[str]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> list[ir.Value]:
        """What it answers with, each computed by a node of its own."""
        return list(self.model.graph.outputs)

    def values(self) -> Iterator[ir.Value]:
        """Every value of its graph, of subgraphs and of functions."""
        return (value for graph in graphs_of(self.model) for value in values_in(graph))

    @property
    def bodies(self) -> list[ir.Graph | ir.Function]:
        """The main graph and the local functions: whatever imports operator sets of its own."""
        return [self.model.graph, *self.model.functions.values()]


def member_names(paths: Iterable[str | Path]) -> tuple[str, ...]:
    """A name for each model file: its stem, with a number where two are the same."""
    return distinct(Path(path).stem for path in paths)


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` with an underscore for what would not do inside a name, and no two the same."""
    taken: set[str] = set()
    return tuple(unused(re.sub(r"[^\w.-]+", "_", name) or "model", taken) for name in names)


def unused(wanted: str, taken: set[str], separator: str = ".") -> str:
    """``wanted``, or ``wanted`` with the first free number from 2 on; ``taken`` grows by it."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}{separator}{number}", number + 1
    taken.add(name)
    return name


def admit(models: Sequence[ir.Model], names: Sequence[str]) -> list[Member]:
    """Members for ``models``, which stay as they are.

    Raises:
        ModelError: A model reads or returns what nothing computes.
    """
    for model, name in zip(models, names, strict=True):
        for body in (model.graph, *(function.graph for function in model.functions.values())):
            _check_scope(name, body, set())
    public = {v.name or "" for model in models for v in (*model.graph.inputs, *model.graph.outputs)}
    prefixes, idents = set(names), set[str]()
    members = []
    for model, name in zip(models, names, strict=True):
        prefix = name
        while any(value.startswith(f"{prefix}/") for value in public):
            prefix = unused(name, prefixes)
        ident = unused(re.sub(r"\W", "_", name, flags=re.ASCII), idents, separator="_")
        own = _copy(model)
        inputs = [value for value in own.graph.inputs if not value.is_initializer()]
        answers = [value.name or "" for value in own.graph.outputs]
        _isolate_outputs(own)
        members.append(Member(name, prefix, ident, own, inputs, answers))
    return members


def _isolate_outputs(model: ir.Model) -> None:
    """Compute an output that is an input, an initializer or another output by a node of its own."""
    graph, names = model.graph, Names(model)
    for place, value in enumerate(graph.outputs):
        if value.producer() is None or value in graph.outputs[:place]:
            name = names.fresh(f"{value.name}.output")
            copied = ir.Value(name=name, type=value.type, shape=value.shape)
            graph.append(ir.Node("", "Identity", [value], outputs=[copied], name=name))
            graph.outputs[place] = copied


def _check_scope(name: str, graph: ir.Graph, outer: set[ir.Value]) -> None:
    ready = {*outer, *graph.inputs, *graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in ready:
                raise ModelError(
                    f"member {name!r} is not valid: its node {node.name or node.op_type!r} reads "
                    f"{value.name!r}, which nothing before it computes"
                )
        for subgraph in subgraphs_of(node):
            _check_scope(name, subgraph, ready)
        ready.update(node.outputs)
    for value in graph.outputs:
        if value not in ready:
            raise ModelError(
                f"member {name!r} is not valid: nothing computes its output {value.name!r}"
            )


def _copy(model: ir.Model) -> ir.Model:
    copied = model.clone()
    for graph in copied.graphs():
        for value in graph.initializers.values():
            value.const_value = _renamable(value.const_value)
    return copied


def _renamable(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """A tensor over the same memory whose name is its own."""
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        # Its name lives in the protobuf message, and copying that would copy the data.
        return ir.LazyTensor(lambda: tensor, tensor.dtype, tensor.shape, name=tensor.name)
    return copy.copy(tensor)


def separate(members: Sequence[Member]) -> None:
    """Give every value, node and function of ``members`` a name that no other member uses."""
    _separate_functions(members)
    for member in members:
        _prefix_names(member)


def _prefix_names(member: Member) -> None:
    shared = set(member.inputs)
    values = (value for graph in member.model.graphs() for value in values_in(graph))
    named = [value for value in values if value.name and value not in shared]
    for value in named:
        if value.const_value is not None and not value.is_initializer():
            value.const_value = _renamable(value.const_value)
        if parameters := value.meta.get(_QUANT_PARAMETERS):
            value.meta[_QUANT_PARAMETERS] = {
                role: f"{member.prefix}/{tensor}" for role, tensor in parameters.items()
            }
    ir.convenience.rename_values(named, [f"{member.prefix}/{value.name}" for value in named])
    for node in ir.traversal.RecursiveGraphIterator(member.model.graph):
        node.name = f"{member.prefix}/{node.name}" if node.name else None


def _separate_functions(members: Sequence[Member]) -> None:
    """Rename each function whose identifier another member defines or calls."""
    spoken = [
        {*member.model.functions, *(node.op_identifier() for node in nodes_of(member.model))}
        for member in members
    ]
    taken = set[ir.OperatorIdentifier]().union(*spoken)
    for index, member in enumerate(members):
        others = set[ir.OperatorIdentifier]().union(*spoken[:index], *spoken[index + 1 :])
        functions, renamed = member.model.functions, {}
        for key in [key for key in functions if key in others]:
            function = functions.pop(key)
            function.name = f"{member.ident}_{function.name}"
            while function.identifier() in taken:
                function.name += "_"
            taken.add(function.identifier())
            functions[function.identifier()] = function
            renamed[key] = function.name
        for node in nodes_of(member.model) if renamed else ():
            node.op_type = renamed.get(node.op_identifier(), node.op_type)
