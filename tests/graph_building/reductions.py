"""What makes few elements of many: sums, maxima, sorting, and what indices are made of."""

from __future__ import annotations

import numpy as np

from tests.graph_building.axes import an_axis, axes_of
from tests.graph_building.builder import BOOL, FLOAT, INT64, Scope, Tensor
from tests.graph_building.registry import operator

_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1")


_MORE_REDUCTIONS = ("ReduceSumSquare", "ReduceLogSumExp")


@operator(weight=3)
def reduce(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and not one.is_empty and one.bound <= 30, (2, 3, 4))
    kinds = _REDUCTIONS if x.dtype != FLOAT else _REDUCTIONS + _MORE_REDUCTIONS
    kind = s.choices.of(kinds)
    axis, written = an_axis(s, x)
    size = x.shape[axis]
    if kind == "ReduceProd" and not (isinstance(size, int) and size <= 3):
        kind = "ReduceSum"
    keep = s.choices.below(2) == 0
    more, attributes = axes_of(s, kind, [written])
    if not keep or s.choices.flag():
        attributes["keepdims"] = int(keep)
    shape = (*x.shape[:axis], *([1] if keep else []), *x.shape[axis + 1 :])
    bound = {"ReduceProd": x.bound**3, "ReduceSumSquare": 12 * x.bound**2}.get(kind, 12 * x.bound)
    return s.emit(kind, [x, *more], [(x.dtype, shape)], bound=bound, **attributes)[0]


@operator()
def reduce_all(s: Scope) -> Tensor:
    x = s.pick(lambda one: not one.is_empty and one.rank > 0 and one.bound <= 100, (2, 3))
    return s.emit("ReduceMean", [x], [(x.dtype, ())], keepdims=0)[0]


@operator(double=False)
def arg_max(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and one.exact and not one.is_empty, (2, 5))
    axis, written = an_axis(s, x)
    kind = s.choices.of(["ArgMax", "ArgMin"])
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    size = x.shape[axis]
    bound = size - 1 if isinstance(size, int) else 9
    return s.emit(kind, [x], [(INT64, shape)], axis=written, keepdims=0, bound=bound)[0]


@operator(since=10)
def top_k(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and one.exact and one.fixed(one.rank - 1) is not None,
               (2, 5))  # fmt: skip
    size = x.shape[-1]
    if not isinstance(size, int):
        return x
    count = 1 + s.choices.below(size)
    shape = (*x.shape[:-1], count)
    kinds = [(x.dtype, shape), (INT64, shape)]
    return s.emit("TopK", [x, s.ints(count)], kinds, axis=x.rank - 1)[0]


@operator(since=11)
def cumulative_sum(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 1 and one.bound <= 100, (2, 5), FLOAT)
    axis, _ = an_axis(s, x)
    return s.add("CumSum", [x, s.constant(np.array(axis))], x, bound=12 * x.bound)


@operator()
def one_hot(s: Scope) -> Tensor:
    known = [
        one
        for one in s.visible()
        if one.dtype == INT64 and one.bound < 7 and one.rank in {1, 2} and s.style.opset >= 11
    ]
    index = s.choices.of(known[:2]) if known else s.constant(np.array([1, 6]))
    values = s.constant(np.array([0.0, 1.0]), FLOAT)
    inputs = [index, s.constant(np.array(7)), values]
    return s.emit("OneHot", inputs, [(FLOAT, (*index.shape, 7))], axis=-1)[0]


@operator()
def truth_of_all(s: Scope) -> Tensor:
    """A truth value from floats."""
    x = s.pick(lambda one: one.exact and not one.is_empty and one.rank > 0, (2, 3))
    largest = s.emit("ReduceMax", [x], [(x.dtype, ())], keepdims=0)[0]
    return s.emit("Greater", [largest, s.scalar(0.5, x.dtype)], [(BOOL, ())])[0]
