"""Cuts a model down to the few nodes on which a pass still goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backends.base import Array, Feeds
from ..backends.errors import BackendError, DataError, OnnxpressError
from ..backends.guess import fed_inputs
from ..backends.ort import session_of
from ..passes.base import Contract
from ..passes.graph import subgraphs_of
from .verify import Verifier
from .verify.reference import EXACTLY

TESTS = 400
"""How often a smaller model is tried at most; what is left then is what is reported."""

Apply = Callable[[ir.Model], ir.Model | None]
"""Runs the pass on a model that it may change; returns the result, ``None`` if nothing changed."""


@dataclass(frozen=True)
class Reduced:
    """A model on which a pass goes wrong, and the inputs that show it.

    ``reason`` is what is wrong, ``nodes`` the node count of the main graph before and after the
    reduction, ``tests`` how many smaller models were tried.
    """

    model: ir.Model
    feeds: Feeds
    reason: str
    nodes: tuple[int, int]
    tests: int


def reduce_fault(
    model: ir.Model, apply: Apply, contract: Contract, feeds: Sequence[Feeds]
) -> Reduced | None:
    """Find a small part of ``model`` on which ``apply`` still changes answers or fails.

    Delta debugging over the nodes of the main graph: subsets and their complements are tried,
    halves first, until no single node can be left out. What a left-out node computes becomes an
    input, fed with the values recorded while the whole model ran. So every model that is tried
    is a real part of the original, at the values that it sees there.

    Args:
        model: The model on which the pass is wrong; it is not changed.
        apply: The pass.
        contract: What the pass promises.
        feeds: Inputs on which it may be wrong; the first that shows it is recorded.

    Returns:
        The smallest part found, or ``None`` if the fault does not show on any of ``feeds``.
    """
    for one in feeds:
        try:
            recorded = _record(model, one)
        except BackendError:
            continue
        nodes = list(model.graph)
        for raises in (False, True):
            search = _Search(model, apply, contract, recorded, raises)
            if reason := search.fault(nodes):
                return search.shrink(nodes, reason)
    return None


def _record(model: ir.Model, feeds: Feeds) -> dict[str, Array]:
    """Every tensor of the main graph, as it is when the model runs on ``feeds``."""
    names = [output.name for node in model.graph for output in node.outputs if output.name]
    tensors = session_of(model, EXACTLY, outputs=names).run(feeds)
    return {**feeds, **tensors}


class _Search:
    def __init__(
        self,
        model: ir.Model,
        apply: Apply,
        contract: Contract,
        recorded: Mapping[str, Array],
        raises: bool,
    ) -> None:
        """Look for parts on which the pass ``raises``, or for those on which answers change."""
        self.model = model
        self.apply = apply
        self.contract = contract
        self.recorded = recorded
        self.raises = raises
        self.tests = 0
        self.reads = {node: list(_read(node)) for node in model.graph}
        self.readers: dict[ir.Value, set[ir.Node]] = {}
        for node, values in self.reads.items():
            for value in values:
                self.readers.setdefault(value, set()).add(node)

    def shrink(self, nodes: list[ir.Node], reason: str) -> Reduced:
        """Leave out as much as possible: the ``ddmin`` of Zeller and Hildebrandt (2002)."""
        before, parts = len(nodes), 2
        while len(nodes) > 1 and self.tests < TESTS:
            for candidate, whole in _candidates(nodes, parts):
                if found := self.fault(candidate):
                    nodes, reason = candidate, found
                    parts = 2 if whole else max(parts - 1, 2)
                    break
            else:
                if parts >= len(nodes):
                    break
                parts = min(2 * parts, len(nodes))
        part = self.part(nodes)
        return Reduced(part, self.feeds_of(part), reason, (before, len(nodes)), self.tests)

    def fault(self, nodes: Sequence[ir.Node]) -> str:
        """What is wrong with the pass on these nodes alone; empty if nothing is."""
        if not nodes or self.tests >= TESTS:
            return ""
        self.tests += 1
        try:
            part = self.part(nodes)
        except (ValueError, KeyError):
            return ""  # these nodes make no model of their own
        failure, result = "", None
        try:
            result = self.apply(part.clone())
        except OnnxpressError as error:
            failure = error.message
        if bool(failure) is not self.raises or (result is None and not failure):
            return ""
        try:
            verifier = Verifier(part, data=_Recorded(self.feeds_of(part)), cases=0)
        except DataError:
            return ""  # a model that does not run
        if not verifier.feeds:
            return ""  # or that does not load
        if result is None:
            return failure
        found = verifier.check(result, self.contract)
        return found.reason if found.status == "failed" else ""

    def part(self, nodes: Sequence[ir.Node]) -> ir.Model:
        """A model of ``nodes`` alone: what they read is its input, what is read of them its output.

        Raises:
            ValueError: They read what was not recorded, or nothing of them is read.
        """
        chosen = set(nodes)
        made = {output for node in nodes for output in node.outputs}
        read = dict.fromkeys(value for node in nodes for value in self.reads[node])
        inputs = [value for value in read if value not in made and not value.is_initializer()]
        outputs = [
            output
            for output in dict.fromkeys(output for node in nodes for output in node.outputs)
            if output.is_graph_output() or self.readers.get(output, set()) - chosen
        ]
        graph = ir.convenience.extract(self.model.graph, inputs, outputs)
        part = ir.Model(
            graph,
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
            functions=[function.clone() for function in self.model.functions.values()],
        )
        part.opset_imports.update(self.model.opset_imports)
        for value in (*graph.inputs, *graph.outputs):
            _describe(value, self.recorded[value.name or ""])
        return part

    def feeds_of(self, part: ir.Model) -> Feeds:
        return {value.name or "": self.recorded[value.name or ""] for value in fed_inputs(part)}


def _candidates(nodes: list[ir.Node], parts: int) -> Iterator[tuple[list[ir.Node], bool]]:
    """The subsets that ``nodes`` fall into, and what is left without each of them."""
    step = -(-len(nodes) // parts)
    chunks = [nodes[at : at + step] for at in range(0, len(nodes), step)]
    for chunk in chunks:
        yield chunk, True
    if len(chunks) > 2:
        for at in range(len(chunks)):
            yield [node for chunk in chunks[:at] + chunks[at + 1 :] for node in chunk], False


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What ``node`` reads of its graph, through its subgraphs as well."""
    inner = [one for graph in subgraphs_of(node) for one in graph.all_nodes()]
    for one in (node, *inner):
        for value in one.inputs:
            if value is not None and (value.graph is node.graph):
                yield value


def _describe(value: ir.Value, array: Array) -> None:
    """Give ``value`` the type and rank of ``array``, where it has none."""
    if value.type is None:
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    if value.shape is None:
        value.shape = ir.Shape(array.shape)


@dataclass(frozen=True)
class _Recorded:
    """One run's inputs, as data."""

    feeds: Feeds

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield the one run, whatever ``size`` is."""
        del size
        yield self.feeds
