"""Re-solving the layers that read pruned channels, so that they give what they gave before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...backends.data import Data
from ...backends.errors import DataError
from ..base import Array, Context, Result
from ..errors import PassError
from ..graph import Names, add_initializer, constant, feeds_only, graph_of, is_op
from .activations import Clipped, clips
from .layers import Layer, layer_of
from .least_squares import Gathering, Solution, best_ridge
from .replay import Replay
from .shortcuts import comes_before, shortcut
from .slice import Cuts, Mask

INPUTS = 8192
"""A layer with more inputs is left as it is: the moments of twice as many take 2 GB."""


RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Penalties to choose from, relative to the variance of the inputs."""

COARSE = (0.01, 1.0)
"""Those for layers with more than :data:`MANY` inputs, where one solution takes seconds."""

MANY = 2048

RIDGE = 0.01
"""The penalty for such a layer where it has plenty of rows, which leaves little to choose."""

PLENTY = 5
"""So many rows for each input are plenty."""

HELD = 4
"""One of so many samples is held out to choose the penalty on: the last rows of each batch, or
whole batches where they hold fewer samples. Rows of one sample are too much alike to be on both
sides."""


@dataclass(frozen=True)
class Consumer:
    """A layer that loses inputs. ``stays`` tells which of its own outputs are left, if not all."""

    layer: Layer
    stays: Mask | None


def consumers_of(graph: ir.Graph, cuts: Cuts, result: Result) -> list[Consumer]:
    """The layers of ``graph`` that lose inputs by ``cuts``, in topological order.

    Those that cannot be solved are declined in ``result``.
    """
    found = []
    for node in graph:
        if not is_op(node, "Conv", "Gemm", "MatMul") or not any(v in cuts for v in node.inputs):
            continue
        layer = layer_of(node)
        if isinstance(layer, str):
            result.decline(node, because=f"it is not solved anew: {layer}")
            continue
        axes = cuts.get(layer.node.inputs[1], {})  # type: ignore[arg-type]
        reads, makes = layer.axes
        if reads in axes or (layer.depthwise and makes in axes):
            found.append(Consumer(layer, axes.get(makes)))
    return found


def solve_consumers(
    model: ir.Model,
    dense: ir.Model,
    consumers: Sequence[Consumer],
    context: Context,
    *,
    data: Data,
    ridge: float,
    samples: int,
    sweeps: int,
    result: Result,
) -> dict[str, float]:
    """Solve the weights and biases of ``consumers`` anew, one after the other, in place.

    Each is fitted by ridge least squares: from its inputs in the pruned ``model``, with all
    layers before it solved already, to its results in the ``dense`` one. What the removed
    channels told is expressed by those that are left, as far as a linear map can, and the errors
    of earlier layers are made up for. Where a shortcut is added to its result, and is computed
    before it, the target is the sum: what the shortcut now lacks is part of it.

    Args:
        model: The pruned model, its consumers not solved yet.
        dense: The model before pruning; names are the same.
        consumers: The layers to solve, in topological order.
        context: Runs the models; the seed of the choice of rows.
        data: Unlabelled samples.
        ridge: The penalty on changes of weights, relative to the variance of the inputs; 0
            leaves the choice to each layer: what does best on rows held out, or :data:`RIDGE`
            where a layer is large and has plenty of rows.
        samples: How many samples to read at most; 0 for all.
        sweeps: How many times each layer is solved; from the second on towards what its
            activation lets through, see :mod:`.activations`.
        result: Takes the consumers that are left as they are, with the reason.

    Returns:
        For each layer, by the name of its result, the part of the dense layer's variance that it
        does not explain.

    Raises:
        DataError: There are no samples.
        BackendError: The models do not run on the samples.
    """
    names = Names(model)
    pruned, original = (Replay(one, data, samples, context) for one in (model, dense))
    before = {node.outputs[0].name: node.outputs[0] for node in dense.graph}
    order = {node: at for at, node in enumerate(dense.graph)}
    residuals: dict[str, float] = {}
    for done, consumer in enumerate(consumers):
        context.progress("reconstruct", done, len(consumers))
        node = consumer.layer.node
        name = node.outputs[0].name or ""
        inputs = consumer.layer.weight().shape[1]
        if inputs > INPUTS:
            result.decline(node, because=f"it is not solved anew: {inputs} inputs are too many")
            continue
        added = shortcut(before[name]), shortcut(node.outputs[0])
        producer = before[name].producer()
        if not (producer and added[0] and comes_before(added[0], producer, order)):
            added = None, None
        fit = _Fit(consumer, pruned, original, before[name], added, context.seed)
        solution = fit.solve(ridge)
        clipped = clips(before[name])
        for _ in range(sweeps - 1 if clipped is not None else 0):
            solution = fit.solve(solution.ridge, clipped, solution)
        if not (np.isfinite(solution.weight).all() and np.isfinite(solution.bias).all()):
            result.decline(node, because="it is not solved anew: samples bring infinity or NaN")
            continue
        apply(consumer.layer, node, solution, names)
        residuals[name] = solution.residual
    context.progress("reconstruct", len(consumers), len(consumers))
    return residuals


@dataclass(frozen=True)
class _Fit:
    """The fit of one layer: from its inputs in the pruned model to its result ``y`` in the dense.

    ``added`` is what is added to it in the dense model and in the pruned. The rows that are chosen
    are the same each time.
    """

    consumer: Consumer
    pruned: Replay
    original: Replay
    y: ir.Value
    added: tuple[ir.Value | None, ir.Value | None]
    seed: int

    def solve(
        self, ridge: float, clipped: Clipped | None = None, last: Solution | None = None
    ) -> Solution:
        """The best weights; with ``clipped``, towards what that lets through after ``last``."""
        prior = self.consumer.layer.weight()
        known, held = (one.moments() for one in self._gather(clipped, last))
        if known is None:
            raise DataError("there is no sample to fit the pruned model to")
        everything = known if held is None else known + held
        if not ridge:
            ridge = RIDGE
            inputs = prior.shape[1]
            if held is not None and (inputs <= MANY or everything.rows < PLENTY * inputs):
                ridge = best_ridge(known, held, prior, RIDGES if inputs <= MANY else COARSE)
        return everything.solve(ridge, prior)

    def _gather(
        self, clipped: Clipped | None, last: Solution | None
    ) -> tuple[Gathering, Gathering]:
        """The moments of the rows to learn from, and of those held out."""
        layer, rng = self.consumer.layer, np.random.default_rng(self.seed)
        x = layer.node.inputs[0]
        if x is None:
            raise PassError(f"{layer.node.op_type} {layer.node.name!r} has no input")
        found = Gathering(), Gathering()
        shortcuts = self._shortcuts()
        both = zip(self.pruned.batches(x), self.original.batches(self.y), strict=True)
        for number, (before, after) in enumerate(both):
            wanted = self._left(after)
            whole, left = next(shortcuts, (None, None))
            if whole is not None and whole.shape == after.shape:
                wanted = wanted + (self._left(whole) - left)
            rows = layer.choose(wanted, rng)
            inputs, targets = layer.inputs(before, rows), layer.results(wanted, rows)
            if clipped is not None and last is not None:
                targets = clipped.targets(targets, inputs @ last.weight + last.bias)
            cut = inputs.shape[1] - inputs.shape[1] // HELD
            if len(before) < HELD:
                cut = 0 if number % HELD == HELD - 1 else inputs.shape[1]
            found[0].add(inputs[:, :cut], targets[:, :cut])
            found[1].add(inputs[:, cut:], targets[:, cut:])
        return found

    def _shortcuts(self) -> Iterator[tuple[Array, Array]]:
        """What is added in the dense model and in the pruned, batch by batch."""
        dense, pruned = self.added
        if dense is not None and pruned is not None:
            yield from zip(self.original.batches(dense), self.pruned.batches(pruned), strict=True)

    def _left(self, values: Array) -> Array:
        """Of the dense layer's results, the channels that are left."""
        stays, axis = self.consumer.stays, self.consumer.layer.result_axis
        return values if stays is None else np.compress(stays, values, axis)


def apply(layer: Layer, node: ir.Node, solution: Solution, names: Names) -> None:
    """Give ``node``, which is that of ``layer`` or its twin in a clone, the ``solution``."""
    weight = layer.stored(solution.weight)
    bias = solution.bias.reshape(-1).astype(weight.dtype)
    _set(node, 1, weight, names)
    if is_op(node, "MatMul"):
        _add(node, bias, names)
        return
    if is_op(node, "Gemm"):
        for name in ("alpha", "beta"):
            node.attributes.pop(name, None)
    node.resize_inputs(3)
    _set(node, 2, bias, names)


def _add(product: ir.Node, bias: Array, names: Names) -> None:
    """Add ``bias`` to what ``product`` computes, in an Add that is there already if possible."""
    y = product.outputs[0]
    for add, index in y.uses():
        known = constant(add.inputs[1 - index]) if is_op(add, "Add") else None
        if known is not None and feeds_only(y, add):
            _set(add, 1 - index, known + bias, names)
            return
    value = add_initializer(graph_of(product), names.fresh(f"{y.name}.bias"), bias)
    add = ir.node("Add", [y, value])
    total = add.outputs[0]
    total.type, total.shape = y.type, y.shape
    y.replace_all_uses_with(total, replace_graph_outputs=True)
    add.replace_input_with(0, y)
    total.name, y.name = y.name, names.fresh(f"{y.name}.product")
    graph_of(product).insert_after(product, add)


def _set(node: ir.Node, index: int, array: Array, names: Names) -> None:
    """Give ``node`` the constant ``array`` as input ``index``; other readers keep the old one."""
    value = node.inputs[index]
    if value is not None and value.is_initializer() and len(value.uses()) == 1:
        value.const_value = ir.tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)
        return
    role = "weight" if index == 1 and not is_op(node, "Add") else "bias"
    name = names.fresh(f"{node.outputs[0].name}.{role}")
    node.replace_input_with(index, add_initializer(graph_of(node), name, array))
