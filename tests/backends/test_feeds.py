"""Seeded feeds: the dimensions of a model, plans of their sizes, and arrays that fit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import DataError, UsageError
from onnxpress.backends.feeds import (
    draw_feeds,
    dynamic_dims,
    elements,
    plan_sizes,
    resolve_kinds,
    seeded_feeds,
    sizes_in,
)


def model(inputs: str, body: str = "y = Identity(x)") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 17]> main ({inputs}) => (y) {{ {body} }}'
    )


IMAGE = model("float[batch,3,height,width] x")


def test_dimensions_are_told_apart_by_their_place() -> None:
    both = model("float[N,3,h,w] x, int64[N,seq] ids, float[T,8] z, float[time] s")
    assert {dim.name: (dim.role, dim.inputs) for dim in dynamic_dims(both)} == {
        "N": ("batch", ("x", "ids")),
        "h": ("space", ("x",)),
        "w": ("space", ("x",)),
        "seq": ("sequence", ("ids",)),
        "T": ("batch", ("z",)),
        "time": ("sequence", ("s",)),
    }


def test_dimensions_without_a_name_are_called_by_input_and_axis() -> None:
    built = model("float[a,b,c] x")
    built.graph.inputs[0].shape = ir.Shape([None, -1, "?"])
    assert [dim.name for dim in dynamic_dims(built)] == ["x[0]", "x[1]", "x[2]"]


def test_an_input_of_unknown_rank_is_taken_for_a_matrix() -> None:
    built = model("float[a] x")
    built.graph.inputs[0].shape = None
    assert [dim.name for dim in dynamic_dims(built)] == ["x[0]", "x[1]"]
    assert seeded_feeds(built)[1]["x"].shape == (2, 21)


def test_a_dimension_that_is_an_expression_follows_the_others() -> None:
    built = model("float[past] x, float[a] z")
    built.graph.inputs[1].shape = ir.Shape([ir.SymbolicDim("past + 1")])
    assert [dim.name for dim in dynamic_dims(built)] == ["past"]
    feeds = draw_feeds(built, {"past": 4}, resolve_kinds(built, None))
    assert feeds["z"].shape == (5,)


def test_a_name_with_a_blank_is_a_name() -> None:
    built = model("float[a,2] x")
    built.graph.inputs[0].shape = ir.Shape([ir.SymbolicDim("batch size"), 2])
    assert plan_sizes(built)[1] == {"batch size": 2}


def test_a_plan_varies_every_dimension() -> None:
    plans = plan_sizes(IMAGE)
    assert len(plans) == 3
    for name in ("batch", "height", "width"):
        assert len({plan[name] for plan in plans}) == 3
    assert all(plan["height"] != plan["width"] for plan in plans)


def test_settled_sizes_stay_and_fixed_shapes_need_one_plan() -> None:
    assert [plan["height"] for plan in plan_sizes(IMAGE, {"height": 48})] == [48] * 3
    assert plan_sizes(IMAGE, {"batch": 2, "height": 8, "width": 9}) == [
        {"batch": 2, "height": 8, "width": 9}
    ]
    assert plan_sizes(model("float[2] x")) == [{}]


@pytest.mark.parametrize(
    ("dims", "reason"),
    [({"depth": 1}, "no input has a dynamic dimension 'depth'"), ({"batch": 0}, "size 0")],
)
def test_sizes_that_cannot_be_are_refused(dims: dict[str, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan_sizes(IMAGE, dims)


def test_feeds_have_the_sizes_that_they_are_asked_for() -> None:
    sizes = [{"batch": 1, "height": 8, "width": 9}, {"batch": 2, "height": 4, "width": 3}]
    feeds = seeded_feeds(IMAGE, sizes=sizes, count=2)
    assert [one["x"].shape for one in feeds] == [(1, 3, 8, 9)] * 2 + [(2, 3, 4, 3)] * 2
    assert [sizes_in(IMAGE, one) for one in feeds] == [sizes[0]] * 2 + [sizes[1]] * 2
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    assert elements(IMAGE, sizes[0]) == 3 * 8 * 9


def test_feeds_are_the_same_for_the_same_seed() -> None:
    one, two, other = (seeded_feeds(IMAGE, seed=seed)[0]["x"] for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_kinds_can_be_given_by_name() -> None:
    feeds = seeded_feeds(IMAGE, kinds={"x": "constant(3)"})
    assert all(np.all(one["x"] == 3) for one in feeds)


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [({"z": "ones"}, "no input 'z' to feed"), ({"x": "onions"}, "no kind of values 'onions'")],
)
def test_kinds_that_cannot_be_are_refused(kinds: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        seeded_feeds(IMAGE, kinds=kinds)


def test_a_missing_size_is_an_error() -> None:
    with pytest.raises(UsageError, match="no size is given for the dimension 'width'"):
        seeded_feeds(IMAGE, sizes=[{"batch": 1, "height": 2}])


def test_an_input_that_is_no_tensor_cannot_be_made_up() -> None:
    with pytest.raises(DataError, match="'x' is no tensor"):
        seeded_feeds(model("seq(float[2]) x", "y = SequenceLength(x)"))
