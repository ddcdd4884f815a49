from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.lossless.patterns import Anything, Const, Number, Op, match, one_of, op

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'
Build = Callable[..., ir.Model]
X = Anything("x")


def last(build: Build, body: str, outputs: str = "y") -> ir.Node:
    values = ", ".join(f"float[N,4] {name}" for name in outputs.split())
    return build(f"{HEAD}g (float[N,4] x, float[N,4] z) => ({values}) {{ {body} }}").graph[-1]


def number(name: str, value: float) -> str:
    return f"{name} = Constant <value = float {{{value}}}> ()\n"


HARD_SWISH = op("Mul", X, op("Div", op("Clip", op("Add", X, 3), 0, 6), 6))


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, c3) b = Clip(a, c0, c6) d = Div(b, c6) y = Mul(x, d)",
        "a = Add(c3, x) b = Clip(a, c0, c6) d = Div(b, c6) y = Mul(d, x)",
    ],
)
def test_commutative_operators_match_in_any_order(build: Build, body: str) -> None:
    constants = number("c3", 3) + number("c0", 0) + number("c6", 6)

    found = match(HARD_SWISH, last(build, constants + body))

    assert found is not None
    assert found["x"].name == "x"
    assert found.root.op_type == "Mul"
    assert {node.op_type for node in found.nodes.values()} == {"Mul", "Div", "Clip", "Add"}
    assert found.read_elsewhere() is None


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(z, c3) b = Clip(a, c0, c6) d = Div(b, c6) y = Mul(x, d)",  # another value
        "a = Add(x, c6) b = Clip(a, c0, c6) d = Div(b, c6) y = Mul(x, d)",  # another number
        "a = Add(x, c3) b = Clip(a, c0) d = Div(b, c6) y = Mul(x, d)",  # an input less
        "a = Add(x, c3) b = Clip(a, c0, c6) d = Div(c6, b) y = Mul(x, d)",  # not commutative
    ],
)
def test_what_differs_does_not_match(build: Build, body: str) -> None:
    constants = number("c3", 3) + number("c0", 0) + number("c6", 6)

    assert match(HARD_SWISH, last(build, constants + body)) is None


def test_an_operator_may_have_no_more_inputs_than_its_pattern(build: Build) -> None:
    node = last(build, number("c0", 0) + "y = Clip(x, c0, c0)")

    assert match(op("Clip", X, 0), node) is None


def test_one_pattern_object_is_one_node(build: Build) -> None:
    shared = op("Relu", X)
    twice = op("Add", shared, shared)

    assert match(twice, last(build, "a = Relu(x) y = Add(a, a)")) is not None
    assert match(twice, last(build, "a = Relu(x) b = Relu(x) y = Add(a, b)")) is None


def test_going_back_undoes_bindings(build: Build) -> None:
    # x is tried as the first summand before it turns out that the product needs it to be z.
    tree = op("Add", X, op("Mul", X, Anything("other")))
    node = last(build, "a = Mul(z, x) y = Add(z, a)")

    found = match(tree, node)

    assert found is not None
    assert (found["x"].name, found["other"].name) == ("z", "x")


def test_numbers_are_bound_and_their_rank_is_told(build: Build) -> None:
    model = build(
        HEAD + "g (float[N,4] x) => (float[N,4] y) { y = Mul(x, c) }", c=np.full((1, 1), 0.25, "f4")
    )

    found = match(op("Mul", X, Number(name="factor")), model.graph[-1])

    assert found is not None
    assert found.numbers == {"factor": 0.25}
    assert found.rank == 2


@pytest.mark.parametrize(("value", "matches"), [(1 / 6, True), (0.16666667, True), (0.1667, False)])
def test_numbers_match_up_to_rounding(build: Build, value: float, matches: bool) -> None:
    node = last(build, number("c", value) + "y = Mul(x, c)")

    assert (match(op("Mul", X, 1 / 6), node) is not None) == matches


def test_float16_numbers_match_up_to_their_rounding(build: Build) -> None:
    text = HEAD + "g (float16[N,4] x) => (float16[N,4] y) { y = Mul(x, c) }"
    model = build(text, c=np.float16(2**-0.5))

    assert match(op("Mul", X, 2**-0.5), model.graph[-1]) is not None


def test_a_constant_that_callers_may_replace_is_none(build: Build) -> None:
    text = HEAD + "g (float[N,4] x, float c) => (float[N,4] y) { y = Mul(x, c) }"
    model = build(text, c=np.float32(2))

    assert match(op("Mul", X, 2), model.graph[-1]) is None
    assert match(op("Mul", X, Const("c")), model.graph[-1]) is None


def test_constants_are_read_by_name(build: Build) -> None:
    text = HEAD + "g (float[N,4] x) => (float[N,4] y) { y = Mul(x, c) }"
    model = build(text, c=np.arange(4, dtype="f4"))

    found = match(op("Mul", X, Const("c")), model.graph[-1])

    assert found is not None
    assert found.array("c").tolist() == [0, 1, 2, 3]


def test_attributes_have_to_be_there_and_equal(build: Build) -> None:
    node = last(build, "y = Softmax <axis = 1> (x)")

    assert match(op("Softmax", X, axis=1), node) is not None
    assert match(op("Softmax", X, axis=-1), node) is None
    assert match(op("Softmax", X, alpha=1.0), node) is None
    node = last(build, "y = Transpose <perm = [1, 0]> (x)")
    assert match(op("Transpose", X, perm=(1, 0)), node) is not None


def test_any_of_several_matches(build: Build) -> None:
    sixth = one_of(op("Div", X, 6), op("Mul", X, 1 / 6))

    for body in ("a = Div(x, c)", "a = Mul(x, d)"):
        constants = number("c", 6) + number("d", 1 / 6)
        assert match(op("Relu", sixth), last(build, f"{constants}{body} y = Relu(a)")) is not None


def test_values_read_elsewhere_are_told(build: Build) -> None:
    tree: Op = op("Relu", op("Neg", X))

    found = match(tree, last(build, "a = Neg(x) y = Relu(a)", "y a"))

    assert found is not None
    elsewhere = found.read_elsewhere()
    assert elsewhere is not None
    assert elsewhere.name == "a"


def test_nodes_of_an_outer_graph_do_not_match(build: Build) -> None:
    text = (
        HEAD
        + """
        g (float[N,4] x, bool b) => (float[N,4] y) {
          a = Neg(x)
          y = If(b) <
            then_branch = t () => (float[N,4] u) { u = Relu(a) },
            else_branch = e () => (float[N,4] v) { v = Identity(a) }>
        }"""
    )
    inner = build(text).graph[-1].attributes["then_branch"].as_graph()[0]

    assert match(op("Relu", op("Neg", X)), inner) is None
