"""Move what makes activations hard to quantize into the weights that read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.base import SessionConfig
from ...backends.data import Data
from ...backends.errors import DataError, UsageError
from ..base import Array, Context, Pass, Result
from ..errors import PassError
from ..graph import Names, constant, is_op
from .channel_scales import Side, along, move, powers_of_two, reads
from .observers import batches_of


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Divide outlying channels behind a normalization, and multiply the weights that read them.

    A ``LayerNormalization`` (or a ``Mul`` and ``Add`` by constants, which end one that is spelled
    out) gives out ``x = g n + b``, in which a few channels are far larger than the others, and one
    scale for all of them wastes its steps. Where nothing but ``MatMul`` and ``Gemm`` by constants
    ``W`` reads ``x``, then for any ``s_i > 0``::

        x W = (x / s) (s W),    s_i = max|x_i|^strength / max|W_i|^(1 - strength)

    (Xiao et al. 2023, "SmoothQuant"), and ``g / s``, ``b / s`` and ``s W`` are constants again.
    ``s`` is rounded to powers of two, so that every answer stays the same. The maxima of ``x`` come
    from samples.

    Options:

    - ``strength``: 0 evens out the weights, 1 the activations.
    - ``samples``: how many samples to read at most; 0 for all.
    """

    name: ClassVar[str] = "smooth-activations"
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Move outlying channels of activations into weights (SmoothQuant)"

    strength: float = 0.5
    samples: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"a strength of {self.strength} is not between 0 and 1")
        if self.samples < 0:
            raise UsageError(f"smooth-activations cannot read {self.samples} samples")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Smooth the normalizations of the main graph.

        Raises:
            PassError: There is no data.
            DataError: There are no samples, or they do not fit the model.
            BackendError: The model does not run.
        """
        result = Result(model)
        if context.data is None:
            raise PassError("smooth-activations needs samples", hint="give some with --data")
        found = [
            (value, sources, readers)
            for value, sources in normalized(model.graph)
            if (readers := _readers(value, sources, result)) is not None
        ]
        if not found:
            return result
        values = [value for value, _, _ in found]
        largest = _largest(model, values, context, context.data, self.samples)
        names = Names(model)
        for value, sources, readers in found:
            weights = np.maximum.reduce([side.largest() for side in readers])
            seen = largest[value.name or ""]
            if seen.shape != weights.shape or not np.isfinite(seen).all():
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                wanted = seen**self.strength / weights ** (1 - self.strength)
                # Only ratios between channels count; what is common to all would only move.
                wanted = wanted / np.exp(np.log(wanted[wanted > 0]).mean())
            factors = powers_of_two(wanted)
            if (factors != 1).any() and move(sources, readers, factors, names):
                result.rewrote(sources[0].node)
        return result


def normalized(graph: ir.Graph) -> Iterator[tuple[ir.Value, list[Side]]]:
    """What is multiplied, and perhaps added to, by constants for each place of the last axis."""
    for node in graph:
        if is_op(node, "LayerNormalization"):
            last = node.attributes.get_int("axis", -1) == -1
            sides = [_vector(node, index) for index in range(1, len(node.inputs))]
            if last and sides and all(sides):
                yield node.outputs[0], [side for side in sides if side is not None]
        elif is_op(node, "Mul") and (factor := _constant_side(node)) is not None:
            value, sources = node.outputs[0], [factor]
            uses = value.uses()
            after = next(iter(uses)).node if len(uses) == 1 else None
            if is_op(after, "Add") and (summand := _constant_side(after)) is not None:
                value, sources = after.outputs[0], [factor, summand]
            yield value, sources


def _constant_side(node: ir.Node) -> Side | None:
    sides = [_vector(node, index) for index in range(2)]
    return next((side for side in sides if side is not None), None)


def _vector(node: ir.Node, index: int) -> Side | None:
    array = constant(node.inputs[index])
    if array is None or array.dtype.kind != "f" or array.ndim != 1 or array.size < 2:
        return None
    return Side(node, index, *along(0))


def _readers(value: ir.Value, sources: Sequence[Side], result: Result) -> list[Side] | None:
    """The weights that read ``value``, if nothing else does."""
    found: list[Side] = []
    others = value.is_graph_output()
    for node, index in value.uses():
        side = reads(node) if index == 0 and is_op(node, "MatMul", "Gemm") else None
        if side is None or node.graph is not value.graph:
            others = True
        else:
            found.append(side)
    if found and others:
        because = f"{value.name!r} is read by more than layers with constant weights"
        result.decline(sources[0].node, because=because)
    return found if found and not others else None


def _largest(
    model: ir.Model, values: Sequence[ir.Value], context: Context, data: Data, samples: int
) -> dict[str, Array]:
    """For each of ``values`` the largest magnitude at each place of its last axis."""
    names = [value.name or "" for value in values]
    session = context.sessions(model, SessionConfig(), names)
    found: dict[str, Array] = {}
    for feeds, _ in batches_of(model, data, samples):
        for name, answer in session.run(feeds).items():
            rows = np.abs(answer.reshape(-1, answer.shape[-1]).astype(np.float64))
            most = rows.max(axis=0, initial=0.0)
            found[name] = np.maximum(found[name], most) if name in found else most
    if not found:
        raise DataError("there is no sample that fits the model")
    return found
