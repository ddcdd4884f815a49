"""The answers of one run as arrays to compare, with what activations squash away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from ...backends.base import Array, Feeds, Session, SessionConfig
from ...backends.errors import BackendError
from ...passes.base import SessionFactory
from .ancestry import before_saturation


class Leaf(NamedTuple):
    """An array among the answers: an output (``part`` is empty), or a part of one."""

    output: str
    part: str = ""


Answers: TypeAlias = dict[Leaf, Array]


class Runner:
    """A session that answers with leaves.

    With ``inner`` a run also tells the input of a ``Sigmoid``, ``Softmax`` or ``Tanh`` that an
    output comes straight from: an answer of 1e-9 everywhere hides what the network computes.

    Raises:
        BackendError: The model cannot be loaded.
    """

    def __init__(
        self, model: ir.Model, config: SessionConfig, sessions: SessionFactory, *, inner: bool
    ) -> None:
        self.squashed: dict[str, tuple[Leaf, int | None]] = {}
        self.names = [value.name or "" for value in model.graph.outputs]
        self.session: Session = sessions(self._watched(model) if inner else model, config)

    def _watched(self, model: ir.Model) -> ir.Model:
        model = model.clone()
        outputs = model.graph.outputs
        for (name, part), (node, source) in before_saturation(model).items():
            if source.name and source not in outputs:
                axis = _axis(model, node) if node.op_type == "Softmax" else None
                self.squashed[source.name] = (Leaf(name, part), axis)
                outputs.append(source)
        return model

    def run(self, feeds: Feeds) -> Answers:
        """Run once. Raises ``BackendError``."""
        raw = self.session.run(feeds)
        answers = {leaf: array for name in self.names for leaf, array in leaves(name, raw[name])}
        for name, (leaf, axis) in self.squashed.items():
            answers[leaf] = raw[name] if axis is None else _shifted(raw[name], axis)
        return answers

    def attempt(self, feeds: Feeds) -> Answers | BackendError:
        """Run once; the error instead of raising it."""
        try:
            return self.run(feeds)
        except BackendError as error:
            return error


def _axis(model: ir.Model, node: ir.Node) -> int:
    opset = model.opset_imports.get("", 1)
    return node.attributes.get_int("axis", -1 if opset >= 13 else 1)


def _shifted(logits: Array, axis: int) -> Array:
    """``logits`` without the constant that ``Softmax`` is blind to."""
    shifted: Array = logits - logits.max(axis=axis, keepdims=True, initial=-np.inf)
    return shifted


def leaves(output: str, answer: Array) -> Iterator[tuple[Leaf, Array]]:
    """The arrays that ``answer`` consists of: itself, or the items of a sequence or map."""
    if answer.dtype.kind != "O" or all(isinstance(item, str) for item in answer.flat):
        yield Leaf(output), answer
        return
    items = list(answer.flat)
    if items and all(isinstance(item, dict) for item in items):
        keys = [str(key) for item in items for key in sorted(item)]
        yield Leaf(output, "keys"), np.array(keys, dtype=object)
        yield Leaf(output, "values"), np.array([item[k] for item in items for k in sorted(item)])
        return
    yield Leaf(output, "length"), np.array(len(items))
    for index, item in enumerate(items):
        yield Leaf(output, f"[{index}]"), np.asarray(item if item is not None else np.nan)
