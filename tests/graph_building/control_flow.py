"""Subgraphs and functions, with what they capture, hold and call."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.graph_building.builder import BOOL, FLOAT, INT64, Scope, Tensor
from tests.graph_building.elementwise import activation, clip, dropout
from tests.graph_building.layers import batch_norm
from tests.graph_building.registry import operator
from tests.graph_building.sizes import size_of


def _scale(s: Scope, x: Tensor) -> Tensor:
    return s.add("Mul", [x, s.weights()], x, bound=2 * x.bound)


def _project(s: Scope, x: Tensor) -> Tensor:
    """A product with a square matrix where there can be one, and a normalization after it."""
    sizes = x.fixed(1) if x.rank == 2 else None
    if sizes is None:
        return activation(s, x)
    product = s.add("MatMul", [x, s.weights(*sizes, *sizes, spread=0.5)], x, bound=3 * x.bound)
    return batch_norm(s, product) if s.choices.flag() else product


def _alter(s: Scope, x: Tensor) -> Tensor:
    """Nodes in ``s`` that make of ``x`` something of the same type and shape."""
    steps = [activation, clip, _scale, _project, dropout, _nested]
    return s.choices.of(steps)(s, x)


def _graph(s: Scope, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> onnx.GraphProto:
    return helper.make_graph(
        s.nodes,
        name,
        [helper.make_tensor_value_info(one.name, one.dtype, one.shape) for one in inputs],
        [helper.make_tensor_value_info(one.name, one.dtype, one.shape) for one in outputs],
        s.initializers,
    )


def _depth(s: Scope) -> int:
    return 0 if s.outer is None else 1 + _depth(s.outer)


def _nested(s: Scope, x: Tensor) -> Tensor:
    if _depth(s) > 1:
        return activation(s, x)
    return _branches(s, x, s.constant(np.array(s.choices.flag())))


def _branches(s: Scope, x: Tensor, condition: Tensor) -> Tensor:
    graphs, results, start, used = {}, [], s.root.named, 0
    for name in ("then_branch", "else_branch"):
        s.root.named = start  # both branches use the same names
        branch = s.inner()
        result = _alter(branch, x)
        if s.choices.flag():
            result = _alter(branch, result)
        graphs[name] = _graph(branch, name, [], [result])
        results.append(result)
        used = max(used, s.root.named)
    s.root.named = used
    exact = condition.exact and all(one.exact for one in results)
    bound = max(one.bound for one in results)
    return s.add("If", [condition], x, exact=exact, bound=bound, **graphs)


@operator(weight=3)
def branch(s: Scope) -> Tensor:
    x = s.floats(most=100.0)
    kind = s.choices.below(4)
    if kind == 1:
        condition = s.constant(np.array(s.choices.flag()))
    elif kind == 2 and x.rank:
        size = size_of(s, x, 0, scalar=True)
        condition = s.emit("Equal", [size, s.scalar(2, INT64)], [(BOOL, ())])[0]
    else:
        scalars = [one for one in s.visible() if (one.dtype, one.shape) == (BOOL, ())]
        condition = scalars[0] if scalars else s.fresh((), BOOL)
    return _branches(s, x, condition)


@operator(since=11)
def loop(s: Scope) -> Tensor:
    x = s.floats(most=10.0)
    dynamic = s.choices.below(3) == 1 and x.rank > 0
    turns = s.choices.of([2, 0, 3])
    count = size_of(s, x, 0, scalar=True) if dynamic else s.scalar(turns, INT64)
    body = s.inner()
    inputs = [Tensor(s.name(), INT64, ()), Tensor(s.name(), BOOL, ())]
    state = Tensor(s.name(), x.dtype, x.shape, exact=False, bound=x.bound)
    going = body.add("Identity", [inputs[1]], inputs[1])
    body.tensors.append(state)
    new = clip(body, activation(body, state))
    if s.choices.flag():
        new = body.add("Add", [new, x], x)  # captured
    outputs = [going, new]
    kinds = [(x.dtype, x.shape)]
    if s.choices.flag() and turns:
        outputs.append(body.add("Neg", [new], x))
        kinds.append((x.dtype, (x.shape[0] if dynamic else turns, *x.shape)))
    graph = _graph(body, "body", [*inputs, state], outputs)
    start = s.choices.of([s.constant(np.array(True)), None])
    made = s.emit("Loop", [count, start, x], kinds, body=graph, exact=False, bound=50.0)
    return made[0]


@operator()
def scan(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(*range(1, one.rank)) is not None, (2, 3))
    if x.fixed(*range(1, x.rank)) is None or x.is_empty:
        return x
    body = s.inner()
    sizes = x.shape[1:]
    start = s.weights(*[int(size) for size in sizes])
    state = Tensor(s.name(), x.dtype, sizes, exact=False, bound=2 * x.bound)
    row = Tensor(s.name(), x.dtype, sizes, exact=False, bound=x.bound)
    half = body.add("Mul", [state, s.scalar(0.5, x.dtype)], state)
    new = body.add("Add", [half, row], state)
    seen = activation(body, new)
    graph = _graph(body, "body", [state, row], [new, seen])
    kinds = [(x.dtype, sizes), (x.dtype, x.shape)]
    inputs = [start, x]
    return s.emit("Scan", inputs, kinds, body=graph, num_scan_inputs=1, exact=False)[1]


@operator(weight=2)
def call(s: Scope) -> Tensor:
    """A function of the model; called once more, where it is there, it is not written again."""
    x = s.floats(most=100.0)
    root = s.root
    name = f"F{len(root.functions)}"
    body = Scope(s.style, is_function=True, choices=s.choices)
    source = Tensor(body.name(), x.dtype, x.shape, exact=x.exact, bound=x.bound)
    body.tensors.append(source)
    result = _alter(body, source)
    if s.choices.flag():
        result = _alter(body, result)
    attributes = {}
    if x.dtype == FLOAT and s.choices.flag():
        leaky = body.add("LeakyRelu", [result], result)
        body.nodes[-1].attribute.append(
            onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
        )
        result, attributes = leaky, {"slope": 0.25}
    root.functions.append(
        helper.make_function(
            "local",
            name,
            [source.name],
            [result.name],
            body.nodes,
            [helper.make_opsetid("", s.style.opset)],
            list(attributes),
        )
    )
    exact, bound = result.exact, result.bound
    made = s.add(name, [x], x, domain="local", exact=exact, bound=bound, **attributes)
    if s.choices.flag():
        made = s.add(name, [made], x, domain="local", exact=exact, bound=4 * bound, **attributes)
    return made
