"""Evaluating constant nodes with ONNX Runtime: all of them in one session where possible."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...backends.base import SessionConfig
from ...backends.errors import BackendError
from ..base import Array, SessionFactory
from ..graph import constant_tensor, is_constant, subgraphs_of

_CONFIG = SessionConfig(level="disabled", threads=1)
"""No optimization: what is computed here is what the untouched model would compute."""


class Evaluator:
    """Evaluates nodes that read nothing but constants.

    Args:
        sessions: Loads the models that it makes.
        ir_version: The IR version of those models.
        opsets: Their operator sets.
        arrays: What is known of the values of nodes; what is evaluated is put in.

    Attributes:
        failures: The nodes that ONNX Runtime cannot evaluate, with what it says of them.
        nodes: How many nodes it has evaluated.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        ir_version: int,
        opsets: Mapping[str, int],
        arrays: dict[ir.Value, Array],
    ) -> None:
        self.arrays = arrays
        self.failures: dict[ir.Node, str] = {}
        self.nodes = 0
        self._sessions = sessions
        self._ir_version = ir_version
        self._opsets = opsets

    def run(
        self, reads: Mapping[ir.Node, Sequence[ir.Value]], wanted: Collection[ir.Value]
    ) -> None:
        """Evaluate ``wanted`` into :attr:`arrays`.

        ``reads`` holds the nodes that lead there, sorted, each with all that it reads. Where a
        session fails, its nodes are halved until those that are at fault stand alone; what
        depends on them is not evaluated.
        """
        self._run(list(reads), reads, set(wanted))

    def _run(
        self,
        nodes: Sequence[ir.Node],
        reads: Mapping[ir.Node, Sequence[ir.Value]],
        wanted: set[ir.Value],
    ) -> None:
        nodes = list(self._computable(nodes, reads))
        fetched = [output for node in nodes for output in node.outputs if output in wanted]
        if not fetched:
            return
        try:
            model = self._extract(nodes, reads, fetched)
            answers = self._sessions(model, _CONFIG).run({})
        except BackendError as error:
            if len(nodes) == 1:
                self.failures[nodes[0]] = f"ONNX Runtime cannot evaluate it: {error.message}"
                return
            first, second = nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]
            self._run(first, reads, wanted.union(*(reads[node] for node in second)))
            self._run(second, reads, wanted)
            return
        self.nodes += len(nodes)
        self.arrays.update(zip(fetched, answers.values(), strict=True))

    def _computable(
        self, nodes: Sequence[ir.Node], reads: Mapping[ir.Node, Sequence[ir.Value]]
    ) -> Iterator[ir.Node]:
        """Those of ``nodes`` that do not depend on one that failed."""
        ready: set[ir.Value] = set()
        for node in nodes:
            if node not in self.failures and all(
                value in ready or value in self.arrays or is_constant(value)
                for value in reads[node]
            ):
                ready.update(node.outputs)
                yield node

    def _extract(
        self,
        nodes: Sequence[ir.Node],
        reads: Mapping[ir.Node, Sequence[ir.Value]],
        fetched: Sequence[ir.Value],
    ) -> ir.Model:
        """A model of ``nodes`` alone, whose names are its own, that answers ``fetched``."""
        twins: dict[ir.Value, ir.Value] = {}
        initializers: list[ir.Value] = []
        copies: list[ir.Node] = []
        for node in nodes:
            for value in reads[node]:
                if value not in twins:
                    known = self.arrays.get(value)
                    tensor = constant_tensor(value) if known is None else as_tensor(known)
                    twins[value] = ir.Value(name=_name(len(twins)), const_value=tensor)
                    initializers.append(twins[value])
            copy = _copy(node, twins)
            copies.append(copy)
            for output, twin in zip(node.outputs, copy.outputs, strict=True):
                twin.name = _name(len(twins)) if output.name else ""
                twins[output] = twin
        graph = ir.Graph(
            [],
            [twins[value] for value in fetched],
            nodes=copies,
            initializers=initializers,
            opset_imports=dict(self._opsets),
            name="constants",
        )
        return ir.Model(graph, ir_version=self._ir_version)


def _name(number: int) -> str:
    return f"onnxpress.constant.{number}"


def _copy(node: ir.Node, twins: Mapping[ir.Value, ir.Value]) -> ir.Node:
    attributes = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = attribute.as_graph().clone(allow_outer_scope_values=True)
            attributes.append(ir.AttrGraph(attribute.name, graph))
        else:
            attributes.append(attribute)
    inputs = [None if value is None else twins[value] for value in node.inputs]
    copy = ir.Node("", node.op_type, inputs, attributes, num_outputs=len(node.outputs))
    for graph in subgraphs_of(copy):
        for inner in graph.all_nodes():
            for index, value in enumerate(inner.inputs):
                if value is not None and value in twins:
                    inner.replace_input_with(index, twins[value])
    return copy


def as_tensor(array: Array) -> ir.TensorProtocol:
    """``array`` as a tensor; ``str`` objects become strings."""
    if array.dtype == object:
        texts = [text.encode() for text in array.flat]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape))
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))


def nbytes_of(array: Array) -> int:
    """The bytes of :func:`as_tensor` of ``array``."""
    return as_tensor(array).nbytes if array.dtype == object else int(array.nbytes)
