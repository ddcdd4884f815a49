"""Average the weights of models of one architecture: a soup, at the cost of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from ...backends.base import Feeds, Session
from ...backends.errors import UsageError
from ..base import Array
from ..graph import constant, constant_tensor, graphs_of, is_op, subgraphs_of
from .bundles import reads
from .combine import FLOATS

Group = tuple[ir.Value, ...]
"""Constants that play the same part, one a model."""


def match_weights(models: Sequence[ir.Model], names: Sequence[str]) -> list[Group]:
    """The weights of ``models`` that belong together, found by what is computed with them.

    All are followed at once from their outputs to their inputs, so that names and the order of
    nodes do not matter.

    Raises:
        UsageError: The models are not of one architecture; the message names the member and what
            differs.
    """
    walk = _Walk(names)
    graphs = [model.graph for model in models]
    walk.equal("outputs", [len(graph.outputs) for graph in graphs], "the model")
    walk.equal("inputs", [len(graph.inputs) for graph in graphs], "the model")
    for values in zip(*(graph.inputs for graph in graphs), strict=True):
        walk.know(values)
    for model, name in zip(models, names, strict=True):
        if model.functions or any(True for graph in graphs_of(model) if graph is not model.graph):
            raise UsageError(
                f"member {name!r} has functions or subgraphs, whose weights are not averaged",
                hint="inline them first: onnxpress optimize --passes inline-functions",
            )
    for outputs in zip(*(graph.outputs for graph in graphs), strict=True):
        walk.follow(outputs)
    return walk.weights


class _Walk:
    """Goes through several graphs in step."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._met: dict[ir.Value, Group] = {}
        self.weights: list[Group] = []

    def equal(self, what: str, found: Sequence[object], where: str) -> None:
        """Refuse members that differ in ``what``."""
        for name, one in zip(self._names, found, strict=True):
            if one != found[0]:
                raise UsageError(
                    f"member {name!r} is of another architecture than {self._names[0]!r}: the "
                    f"{what} of {where} differ, {_short(one)} and {_short(found[0])}",
                    hint="only models of one architecture have weights to average; combine their "
                    "answers instead, by mean",
                )

    def know(self, values: Group) -> bool:
        """Note that ``values`` belong together; whether that was known."""
        known = [self._met.get(value) for value in values]
        if all(one is None for one in known):
            self._met.update(dict.fromkeys(values, values))
            return False
        self.equal("connections", [one == values for one in known], repr(values[0].name))
        return True

    def follow(self, values: Group) -> None:
        """Go back from ``values`` to the inputs."""
        waiting = [values]
        while waiting:
            values = waiting.pop()
            if self.know(values):
                continue
            where = repr(values[0].name)
            tensors = [constant_tensor(value) for value in values]
            self.equal("constants", [tensor is None for tensor in tensors], where)
            if tensors[0] is not None:
                kinds = [
                    None if tensor is None else (tensor.dtype.name, tuple(tensor.shape.numpy()))
                    for tensor in tensors
                ]
                self.equal("types or shapes", kinds, where)
                if tensors[0].dtype in FLOATS:
                    self.weights.append(values)
                else:
                    contents = [None if one is None else one.tobytes() for one in tensors]
                    self.equal("numbers", contents, where)
                continue
            nodes = [value.producer() for value in values]
            self.equal("inputs", [node is None for node in nodes], where)
            found = [node for node in nodes if node is not None]
            if not found:
                continue
            where = f"the node {found[0].name or found[0].op_type!r}"
            self.equal("operators", [(node.domain, node.op_type) for node in found], where)
            self.equal("outputs", [value.index() for value in values], where)
            self.equal("attributes", [_attributes(node) for node in found], where)
            self.equal("inputs", [_given(node) for node in found], where)
            waiting += zip(*map(_present, found), strict=True)


def _present(node: ir.Node) -> list[ir.Value]:
    return [value for value in reads(node) if value is not None]


def _given(node: ir.Node) -> list[bool]:
    return [value is not None for value in reads(node)]


def _attributes(node: ir.Node) -> list[str]:
    return sorted(str(attribute) for attribute in node.attributes.values())


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def average(
    models: Sequence[ir.Model], groups: Sequence[Group], weights: Sequence[float]
) -> ir.Model:
    """The first of ``models`` with averaged weights, computed in float64; all stay as they are.

    Args:
        models: Of one architecture.
        groups: What :func:`match_weights` found.
        weights: How much each model counts; their sum is 1.
    """
    soup = models[0].clone()
    places = {value.name: value for value in _constants(soup)}
    for group in groups:
        arrays = [constant(value) for value in group]
        if any(array is None for array in arrays):
            continue
        mixed = sum(
            weight * np.asarray(array, np.float64)
            for weight, array in zip(weights, arrays, strict=True)
        )
        set_constant(places[group[0].name], np.asarray(mixed))
    return soup


def _constants(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.initializers.values()
    for node in model.graph:
        if is_op(node, "Constant"):
            yield from node.outputs


def set_constant(value: ir.Value, content: Array) -> None:
    """Let the constant ``value`` hold ``content`` in its own type."""
    tensor = constant_tensor(value)
    dtype = ir.DataType.FLOAT if tensor is None else tensor.dtype
    new = ir.tensor(content.astype(dtype.numpy()), name=value.name)
    node = value.producer()
    if node is None:
        value.const_value = new
        return
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", new)
    value.const_value = None


def reestimate_batch_norm(
    model: ir.Model,
    open_session: Callable[[ir.Model, Sequence[str]], Session],
    batches: Callable[[], Iterable[Feeds]],
) -> int:
    """Measure the mean and the variance of every BatchNormalization of ``model`` anew.

    Averaged weights have other statistics than the average of the statistics. One layer after the
    other, since what a layer reads depends on those before it.

    Args:
        model: Changed in place.
        open_session: Makes a session that answers with the named values.
        batches: Gives the samples, as often as called.

    Returns:
        How many layers were measured.
    """
    count = 0
    for node in list(model.graph):
        if not is_op(node, "BatchNormalization") or subgraphs_of(node):
            continue
        source, mean, variance = node.inputs[0], node.inputs[3], node.inputs[4]
        if source is None or mean is None or variance is None or constant(mean) is None:
            continue
        session = open_session(model, [source.name or ""])
        total, sums, squares = 0, np.zeros(()), np.zeros(())
        for feeds in batches():
            (array,) = session.run(feeds).values()
            rows = np.moveaxis(array.astype(np.float64), 1, -1).reshape(-1, array.shape[1])
            total, sums = total + len(rows), sums + rows.sum(0)
            squares = squares + (rows**2).sum(0)
        middle = sums / max(total, 1)
        set_constant(mean, middle)
        set_constant(variance, np.maximum(squares / max(total, 1) - middle**2, 0))
        count += 1
    return count
