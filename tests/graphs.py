"""Random models that are valid and run, for tests of what must hold for every model.

:func:`cases` draws a list of steps, each the name of an operator, or a small group of them, and the
numbers that decide how it joins the graph. Every list is a model, so taking steps away or making
numbers smaller, as hypothesis does when it shrinks, leaves a model as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper

from onnxpress.backends.base import Array, Feeds
from tests.graph_building import (
    affine,
    attention,
    branches,
    chains,
    control_flow,
    elementwise,
    layers,
    movement,
    normalizations,
    reductions,
    sizes,
    spelled,
    unrolled,
)
from tests.graph_building.builder import (
    BATCH,
    BOOL,
    DOUBLE,
    FLOAT,
    FLOAT16,
    INT64,
    Choices,
    Scope,
    Style,
    Tensor,
)
from tests.graph_building.registry import ENTRIES

MODULES = (
    *(control_flow, elementwise, layers, movement, reductions, sizes),
    *(affine, attention, branches, chains, normalizations, spelled, unrolled),
)
"""What registers operators when it is imported."""

OLDEST, NEWEST = 9, 25
OPSETS = (17, *range(OLDEST, NEWEST + 1))
DTYPES = (FLOAT, FLOAT, FLOAT, DOUBLE, FLOAT16)
STEPS = [name for name, entry in ENTRIES.items() for _ in range(entry.weight)]


@dataclass(frozen=True)
class Case:
    """A model, and inputs at several sizes of its dynamic dimension.

    Attributes:
        model: The model.
        feeds: What to run it with.
        dtype: The type that its floats are of, by ONNX's number.
    """

    model: onnx.ModelProto
    feeds: tuple[Feeds, ...]
    dtype: int

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the model to those who look at an example that failed."""
        del cycle
        printer.text(f"a case of\n{onnx.printer.to_text(self.model)}\n")


@dataclass(frozen=True)
class Plan:
    """All numbers that decide what a case is: drawn by hypothesis, or by a seed.

    ``steps`` holds names in ``ENTRIES`` with the choices of each, ``ending`` the choices of what
    is answered; the others are those of :class:`~tests.graph_building.builder.Style`.
    """

    opset: int
    dtype: int
    dynamic: bool
    odd_names: bool
    defaults: bool
    seed: int
    steps: tuple[tuple[str, tuple[int, ...]], ...]
    ending: tuple[int, ...]

    def case(self) -> Case:
        """Build the case."""
        rng = np.random.default_rng(self.seed)
        style = Style(self.opset, self.dtype, self.dynamic, self.odd_names, self.defaults, rng)
        scope = Scope(style)
        for name, choices in self.steps:
            scope.choices = Choices(choices)
            if ENTRIES[name].works_in(style):
                ENTRIES[name].extend(scope)
        scope.choices = Choices(self.ending)
        model = _model(scope)
        counts = (2, 1, 3) if self.dynamic else (2,)
        feeds = tuple(dict(_feeds(scope, count, self.seed)) for count in counts)
        return Case(model, feeds, self.dtype)


@st.composite
def cases(draw: st.DrawFn, steps: Sequence[str] = STEPS, most: int = 12) -> Case:
    """Models over ``steps``, names in ``ENTRIES``, with at most ``most`` of them."""
    numbers = st.lists(st.integers(0, 29), max_size=14).map(tuple)
    plans = st.lists(st.tuples(st.sampled_from(steps), numbers), min_size=2, max_size=most)
    plan = Plan(
        opset=draw(st.sampled_from(OPSETS)),
        dtype=draw(st.sampled_from(DTYPES)),
        dynamic=draw(st.booleans()),
        odd_names=draw(st.booleans()),
        defaults=draw(st.booleans()),
        seed=draw(st.integers(0, 100)),
        steps=tuple(draw(plans)),
        ending=draw(numbers),
    )
    return plan.case()


def plan_of(seed: int, steps: Sequence[str] = STEPS, most: int = 12) -> Plan:
    """The plan that ``seed`` decides; the same in every process."""
    rng = np.random.default_rng([seed, 1])

    def numbers(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 30, length).tolist())

    names = rng.choice(np.array(steps), rng.integers(2, most + 1)).tolist()
    return Plan(
        opset=int(rng.choice(OPSETS)),
        dtype=int(rng.choice(DTYPES)),
        dynamic=bool(rng.integers(2)),
        odd_names=bool(rng.integers(2)),
        defaults=bool(rng.integers(2)),
        seed=seed,
        steps=tuple((name, numbers(int(rng.integers(0, 15)))) for name in names),
        ending=numbers(int(rng.integers(0, 15))),
    )


def plain(name: str, *, opset: int) -> Case:
    """The plainest model with the step ``name``; without it, where the version is too old."""
    return Plan(opset, FLOAT, True, False, False, 0, ((name, ()),), ()).case()


def _model(scope: Scope) -> onnx.ModelProto:
    style, choices = scope.style, scope.choices
    if choices.below(3) == 1 or not scope.inputs:
        scope.fresh((2, 3), style.dtype)  # nothing reads it
    shown = choices.of(["shapes", "nothing", "names"])
    outputs = _outputs(scope)
    infos = [] if choices.flag() else [_info(one, "shapes") for one in scope.tensors]
    own = {one.name for one in (*outputs, *scope.inputs)}
    graph = helper.make_graph(
        scope.nodes,
        "main",
        [_info(one, "shapes") for one in scope.inputs],
        [_info(one, shown) for one in outputs],
        scope.initializers,
        value_info=[info for info in infos if info.name not in own],
    )
    opsets = [helper.make_opsetid("", style.opset)]
    if scope.functions:
        opsets.append(helper.make_opsetid("local", 1))
    needed = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    version = max(needed, 8 if scope.functions else 4, choices.of([8, 4]))
    return helper.make_model(
        graph,
        opset_imports=opsets,
        functions=scope.functions,
        ir_version=version,
        producer_name="random",
    )


def _outputs(scope: Scope) -> list[Tensor]:
    """What nothing reads, but for a few, and a few others: inputs, constants, what is read."""
    choices = scope.choices
    read = {name for node in scope.nodes for name in _reads(node)}
    leaves = [one for one in scope.tensors if one.name not in read]
    leaves = [one for one in leaves if one.name in _computed(scope)] or scope.tensors[-1:]
    if len(leaves) > 1 and choices.below(3) == 1:
        leaves.pop(choices.below(len(leaves)))  # now nothing needs the nodes that lead there
    others = [*scope.tensors, *scope.inputs, *scope.constants]
    for _ in range(choices.of([0, 1, 2])):
        leaves.append(choices.of(others[::-1]))
    return leaves + scope.leaves


def _computed(scope: Scope) -> set[str]:
    return {name for node in scope.nodes for name in node.output}


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _info(tensor: Tensor, shown: str) -> onnx.ValueInfoProto:
    if shown == "nothing":
        return helper.make_tensor_value_info(tensor.name, tensor.dtype, [None] * tensor.rank)
    sizes = [
        f"{tensor.name}_{axis}" if shown == "names" else size
        for axis, size in enumerate(tensor.shape)
    ]
    return helper.make_tensor_value_info(tensor.name, tensor.dtype, sizes)


def _feeds(scope: Scope, count: int, seed: int) -> Iterator[tuple[str, Array]]:
    rng = np.random.default_rng([seed, count])
    defaults = {tensor.name: tensor for tensor in scope.initializers}
    for tensor in scope.inputs:
        shape = [count if size == BATCH else int(size) for size in tensor.shape]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.dtype)
        if tensor.name in defaults:
            if count == 1:
                default = onnx.numpy_helper.to_array(defaults[tensor.name])
                yield tensor.name, np.asarray(default * 1.25, dtype)
        elif tensor.dtype == BOOL:
            yield tensor.name, rng.integers(0, 2, shape).astype(bool)
        elif tensor.dtype == INT64:
            yield tensor.name, rng.integers(0, 4, shape)
        else:
            yield tensor.name, np.asarray(rng.normal(size=shape), dtype)
