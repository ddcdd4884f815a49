"""Reduction: small models with scalars, texts, subgraphs and functions in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Feeds
from onnxpress.compiler import reduce
from onnxpress.compiler.bisect import _write
from onnxpress.compiler.reduce import Reduced, reduce_fault
from onnxpress.passes.base import EXACT


def model(signature: str, body: str, functions: str = "") -> ir.Model:
    return ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17, "local" : 1]> '
        f"main ({signature.replace('->', ') => (')}) <float two = {{2}}> {{ {body} }} {functions}"
    )


def swap(before: str, after: str) -> Callable[[ir.Model], ir.Model]:
    """A pass that takes one operator for another, in subgraphs as well."""

    def apply(built: ir.Model) -> ir.Model:
        for node in built.graph.all_nodes():
            if node.op_type == before:
                node.op_type = after
        return built

    return apply


X = {"x": np.array([0.5, -2.0, 3.0], np.float32)}
CHAIN = model("float[3] x -> float[3] y", "a = Neg(x)\nb = Exp(a)\nc = Abs(b)\ny = Mul(c, two)")


def found(built: ir.Model, apply: Callable[[ir.Model], ir.Model], feeds: Feeds) -> Reduced:
    reduced = reduce_fault(built, apply, EXACT, [feeds])
    assert reduced is not None
    return reduced


def test_the_one_node_that_matters_is_left_with_its_recorded_input() -> None:
    reduced = found(CHAIN, swap("Exp", "Relu"), X)
    assert [node.op_type for node in reduced.model.graph] == ["Exp"]
    assert reduced.nodes == (4, 1)
    np.testing.assert_array_equal(reduced.feeds["a"], -X["x"])
    assert "elements are off" in reduced.reason
    assert len(CHAIN.graph) == 4


def test_constants_come_along() -> None:
    reduced = found(CHAIN, swap("Mul", "Div"), X)
    assert [node.op_type for node in reduced.model.graph] == ["Mul"]
    assert "two" in reduced.model.graph.initializers


def test_no_fault_leaves_nothing() -> None:
    assert reduce_fault(CHAIN, swap("Sin", "Cos"), EXACT, [X]) is None


def test_feeds_that_the_model_does_not_take_are_passed_over() -> None:
    wrong = {"x": np.zeros(7, np.float32)}
    assert reduce_fault(CHAIN, swap("Exp", "Relu"), EXACT, [wrong]) is None
    assert reduce_fault(CHAIN, swap("Exp", "Relu"), EXACT, [wrong, X]) is not None


def test_the_feeds_that_show_the_fault_are_chosen() -> None:
    positive = {"x": np.array([1.0, 2.0, 3.0], np.float32)}
    built = model("float[3] x -> float[3] y", "a = Abs(x)\ny = Mul(a, two)")
    reduced = reduce_fault(built, swap("Abs", "Relu"), EXACT, [positive, X])
    assert reduced is not None
    np.testing.assert_array_equal(reduced.feeds["x"], X["x"])


def test_a_branch_keeps_what_it_reads_from_outside() -> None:
    built = model(
        "float[3] x, bool c -> float[3] y",
        "a = Neg(x)\nb = Exp(x)\n"
        "z = If (c) <then_branch = t () => (p) { q = Add (a, two)  p = Sin (q) }, "
        "else_branch = e () => (r) { r = Neg (b) }>\ny = Abs(z)",
    )
    reduced = found(built, swap("Sin", "Cos"), {**X, "c": np.array(True)})
    assert [node.op_type for node in reduced.model.graph] == ["If"]
    assert {value.name for value in reduced.model.graph.inputs} == {"a", "b", "c"}


def test_functions_come_along() -> None:
    body = '<domain: "local", opset_import: ["" : 17]> twice (p) => (q) { q = Add (p, p) }'
    built = model("float[3] x -> float[3] y", "a = Exp(x)\nb = local.twice(a)\ny = Sin(b)", body)

    def apply(part: ir.Model) -> ir.Model:
        for node in part.graph:
            if node.domain == "local":
                node.domain, node.op_type = "", "Neg"
        return part

    reduced = found(built, apply, X)
    assert [node.op_type for node in reduced.model.graph] == ["twice"]
    assert len(reduced.model.functions) == 1


def test_a_fault_of_two_nodes_far_apart_keeps_both() -> None:
    names = [f"v{at}" for at in range(12)]
    lines = [f"{new} = Tanh({old})" for old, new in zip(["x", *names], names, strict=False)]
    lines[2] = lines[2].replace("Tanh", "Sin")
    lines[9] = lines[9].replace("Tanh", "Cos")
    built = model(f"float[3] x -> float[3] {names[-1]}", "\n".join(lines))

    def apply(part: ir.Model) -> ir.Model:
        kinds = {node.op_type: node for node in part.graph}
        if {"Sin", "Cos"} <= kinds.keys():
            kinds["Sin"].op_type = "Neg"
        return part

    reduced = found(built, apply, X)
    assert sorted(node.op_type for node in reduced.model.graph) == ["Cos", "Sin"]


def test_the_search_ends_after_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "TESTS", 2)
    reduced = found(CHAIN, swap("Exp", "Relu"), X)
    assert reduced.tests == 2
    assert 1 < reduced.nodes[1] <= 4


def test_inputs_are_written_as_data_is_read(tmp_path: Path) -> None:
    built = model("float[3] x, int64 k, string[2] s -> float[3] y", "y = Neg(x)")
    feeds: Feeds = {**X, "k": np.array(3), "s": np.array(["a", "bc"], object)}
    _write(Reduced(built, feeds, "", (1, 1), 1), tmp_path / "m.onnx")
    with np.load(tmp_path / "m.npz") as arrays:
        assert arrays["x"].shape == (1, 3)
        assert arrays["k"].tolist() == [3]
        assert arrays["s"].tolist() == [["a", "bc"]]
