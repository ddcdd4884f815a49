"""Reconstruction: what the removed channels told comes from the others, where it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Feeds
from onnxpress.backends.errors import DataError
from onnxpress.passes.analysis.channel_rules import RULES
from onnxpress.passes.analysis.channels import channel_groups
from onnxpress.passes.base import Array, Context, Result
from onnxpress.passes.pruning import reconstruct
from onnxpress.passes.pruning.reconstruct import consumers_of, solve_consumers
from onnxpress.passes.pruning.shortcuts import shortcut
from onnxpress.passes.pruning.slice import cuts_of, slice_channels
from tests.passes.pruning.helpers import Samples, build, normal, run

DENSE = '<ir_version: 9, opset_import: ["" : 17]>\nmain (float[N,6] x) => (float[N,2] y) {{ {} }}'
IMAGE = DENSE.replace("N,6", "N,3,5,5").replace("N,2", "N,M,H,W")


def halve(model: ir.Model, data: Samples, **options: Any) -> tuple[Result, dict[str, float]]:
    """Remove the second half of all free channels of ``model`` and solve what reads them."""
    result = Result(model)
    coupling = channel_groups(model, RULES)
    groups = [group for group in coupling.groups if not group.frozen]
    cuts = cuts_of(groups, [np.arange(g.size) < g.size // 2 for g in groups])
    consumers = consumers_of(model.graph, cuts, result)
    dense = model.clone()
    slice_channels(model, coupling, cuts)
    options = {"ridge": 1e-9, "samples": 0, "sweeps": 1, **options}
    residuals = solve_consumers(
        model, dense, consumers, Context(), data=data, result=result, **options
    )
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return result, residuals


def twins(*shape: int, axis: int = 0) -> Array:
    """A weight whose second half along ``axis`` does twice what the first does, plus something."""
    half = normal(*shape, seed=5)
    return np.concatenate([half, 2 * half], axis=axis)


def flat(count: int = 64, seed: int = 8) -> Samples:
    return Samples({"x": normal(count, 6, seed=seed)})


def images(count: int, seed: int = 8) -> Samples:
    return Samples({"x": normal(count, 3, 5, 5, seed=seed)})


FLAT = {"w": twins(6, 3, axis=1), "c": normal(6, seed=1), "v": normal(6, 2, seed=2), "e": normal(2)}
CONV = {
    "w": twins(4, 3, 3, 3),
    "b": np.concatenate([np.abs(normal(4)), 2 * np.abs(normal(4))]),
    "k": normal(5, 8, 3, 3, seed=1),
}


@pytest.mark.parametrize(
    ("body", "operators"),
    [
        ("a = Gemm (x, w, c)  y = Gemm (a, v, e)", ["Gemm", "Gemm"]),
        ("a = Gemm (x, w, c)  y = Gemm <alpha = 0.5, beta = 3.0> (a, v, e)", ["Gemm", "Gemm"]),
        ("a = Gemm (x, w, c)  y = Gemm (a, v)", ["Gemm", "Gemm"]),
        ("a = Gemm (x, w, c)  m = MatMul (a, v)  y = Add (m, e)", ["Gemm", "MatMul", "Add"]),
        ("a = Gemm (x, w, c)  m = MatMul (a, v)  y = Add (e, m)", ["Gemm", "MatMul", "Add"]),
        ("a = Gemm (x, w, c)  y = MatMul (a, v)", ["Gemm", "MatMul", "Add"]),
        (
            "a = Gemm (x, w, c)  m = MatMul (a, v)  y = Add (m, m)",
            ["Gemm", "MatMul", "Add", "Add"],
        ),
    ],
)
def test_dense_layers_lose_nothing_where_channels_repeat(body: str, operators: list[str]) -> None:
    used = {name: array for name, array in FLAT.items() if f" {name}" in body or f"({name}" in body}
    model = build(DENSE.format(body), used)
    expected = run(model, flat(16, seed=9).arrays)["y"]

    result, residuals = halve(model, flat())

    assert [node.op_type for node in model.graph] == operators
    np.testing.assert_allclose(run(model, flat(16, seed=9).arrays)["y"], expected, atol=1e-3)
    assert all(residual < 1e-6 for residual in residuals.values())
    assert not result.declined


@pytest.mark.parametrize("attributes", ["pads = [0, 0, 0, 0]", "strides = [2, 2]"])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_lose_nothing_where_channels_repeat(attributes: str, bias: bool) -> None:
    last = f"y = Conv <{attributes}> (r, k{', d' if bias else ''})"
    weights = CONV | ({"d": normal(5, seed=3)} if bias else {})
    model = build(IMAGE.format(f"a = Conv (x, w, b)  r = Relu (a)  {last}"), weights)
    expected = run(model, images(8, seed=9).arrays)["y"]

    halve(model, images(200))

    np.testing.assert_allclose(run(model, images(8, seed=9).arrays)["y"], expected, atol=1e-3)
    assert [len(node.inputs) for node in model.graph] == [3, 1, 3]


def test_depthwise_layers_make_up_for_errors_before_them() -> None:
    body = "a = Conv (x, w, b)  r = Relu (a)  m = Conv (r, u)  d = Conv <group = 4> (m, k)"
    weights = {
        "w": normal(8, 3, 1, 1),
        "b": CONV["b"],
        "u": normal(4, 8, 1, 1, seed=1),
        "k": normal(4, 1, 3, 3, seed=2),
        "v": normal(2, 4, 1, 1, seed=3),
    }
    model = build(IMAGE.format(f"{body}  y = Conv (d, v)"), weights)
    alone = model.clone()

    _, residuals = halve(model, images(200))

    assert list(residuals) == ["m", "d", "y"]
    assert residuals["d"] < halve(alone, images(200), ridge=1e9)[1]["d"]


def test_other_readers_of_a_shared_weight_keep_it() -> None:
    body = (
        "a = Gemm (x, w, c)  b = Gemm (x, w, c)  s = Gemm (a, v)  t = Gemm (b, v)  y = Sub (s, t)"
    )
    model = build(DENSE.format(body), {name: FLAT[name] for name in "wcv"})

    _, residuals = halve(model, flat())

    assert list(residuals) == ["s", "t"]
    first, second = (node for node in model.graph if node.outputs[0].name in {"s", "t"})
    assert [value.name for value in (*first.inputs, *second.inputs) if value is not None] == [
        *("a", "s.weight", "s.bias"),
        *("b", "v", "t.bias"),
    ]
    np.testing.assert_allclose(run(model, flat(8).arrays)["y"], np.zeros((8, 2)), atol=1e-4)


def test_later_layers_are_fitted_to_what_is_left_before_them() -> None:
    """Errors that one layer cannot avoid are made up for by the next as far as possible."""
    body = "a = Gemm (x, w)  r = Relu (a)  m = Gemm (r, v)  q = Relu (m)  y = Gemm (q, u)"
    weights = {"w": normal(6, 8), "v": normal(8, 8, seed=1), "u": normal(8, 2, seed=2)}
    model = build(DENSE.format(body), weights)
    alone = model.clone()

    _, residuals = halve(model, flat(400))

    once = halve(alone, flat(400), ridge=1e9)[1]
    assert residuals["m"] < once["m"]
    assert residuals["y"] < once["y"]


def test_too_many_inputs_are_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "INPUTS", 2)
    model = build(DENSE.format("a = Gemm (x, w, c)  y = Gemm (a, v, e)"), FLAT)

    result, residuals = halve(model, flat())

    assert residuals == {}
    assert result.declined == {"Gemm -> y": "it is not solved anew: 3 inputs are too many"}


def test_samples_that_lead_to_infinity_are_declined() -> None:
    model = build(DENSE.format("a = Gemm (x, w, c)  r = Exp (a)  y = Gemm (r, v, e)"), FLAT)

    with np.errstate(all="ignore"):
        result, residuals = halve(model, Samples({"x": normal(64, 6) * 1000}))

    assert residuals == {}
    assert result.declined == {"Gemm -> y": "it is not solved anew: samples bring infinity or NaN"}


def test_what_is_no_layer_is_declined() -> None:
    text = DENSE.format("a = Gemm (x, w, c)  y = Gemm (a, v, e)").replace("x)", "x, float[2] e)")
    model = build(text, {name: FLAT[name] for name in "wcv"})

    result, residuals = halve(model, flat())

    assert residuals == {}
    reason = "it is not solved anew: its weight or its bias is not constant"
    assert result.declined == {"Gemm -> y": reason}


def test_no_samples_are_an_error() -> None:
    model = build(DENSE.format("a = Gemm (x, w, c)  y = Gemm (a, v, e)"), FLAT)

    with pytest.raises(DataError, match="no sample"):
        halve(model, flat(0))


def test_one_sample_is_fitted_without_holding_any_out() -> None:
    model = build(DENSE.format("a = Gemm (x, w, c)  y = Gemm (a, v, e)"), FLAT)
    sample = flat(1).arrays
    expected = run(model, sample)["y"]

    halve(model, flat(1), ridge=0)

    np.testing.assert_allclose(run(model, sample)["y"], expected, rtol=1e-4)


BLOCK = "a = Gemm (x, w, c)  r = Relu (a)  s = Gemm (r, v)  {}  z = Relu (b)  y = Gemm (z, u)"


@pytest.mark.parametrize(
    ("body", "added"),
    [
        ("t = Gemm (r, q)  b = Add (s, t)", "s"),
        ("t = MatMul (r, q)  b = Add (t, s)", "s"),
        ("m = MatMul (r, q)  t = Add (m, e)  b = Add (s, t)", "s"),
        ("t = Gemm (r, q)  n = Mul (t, s)  b = Add (n, n)", None),
        ("t = Gemm (r, q)  n = Add (t, s)  b = Add (n, t)", None),
        ("t = Gemm (r, q)  n = Relu (t)  b = Add (n, s)", None),
    ],
)
def test_what_is_added_to_a_layer(body: str, added: str | None) -> None:
    weights = FLAT | {"q": normal(6, 2, seed=6), "u": normal(2, 2, seed=7)}
    used = {name: one for name, one in weights.items() if name != "e" or "e)" in body}
    model = build(DENSE.format(BLOCK.format(body)), used)
    (matrix,) = (value for value in model.graph.initializers.values() if value.name == "q")
    found = shortcut(matrix.consumers()[0].outputs[0])
    assert (found and found.name) == added


def test_a_layer_makes_up_for_what_the_shortcut_lost() -> None:
    """Half the channels of ``a`` tell too little for ``s``; ``t`` sees others, and helps."""
    text = (
        "a = Gemm (x, w, c)  r = Relu (a)  s = Gemm (r, v)  "
        "d = Gemm (x, p, c)  k = Relu (d)  t = Gemm (k, q)  y = Add (s, t)"
    )
    weights = {
        "w": normal(6, 6, seed=5),
        "c": normal(6, seed=1),
        "v": normal(6, 2, seed=2),
        "p": normal(6, 6, seed=6),
        "q": normal(6, 2, seed=7),
    }
    model, data = build(DENSE.format(text), weights), flat(500)
    expected = run(model, data.arrays)["y"]
    _, residuals = halve(model, data)
    error = np.square(run(model, data.arrays)["y"] - expected).mean(0)
    # Each alone leaves its own error; their sum would be what is left of fits that are blind.
    blind = _blind(build(DENSE.format(text), weights), data)
    assert (error < 0.95 * blind).all()
    assert set(residuals) == {"s", "t"}


def _blind(model: ir.Model, data: Samples) -> Array:
    """The error where ``s`` and ``t`` are answers of their own, fitted apart and added after."""
    model.graph.outputs[:] = [
        node.outputs[0] for node in model.graph if node.outputs[0].name in {"s", "t"}
    ]
    for value in model.graph.outputs:
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, 2])
    expected = sum(run(model, data.arrays).values())
    halve(model, data)
    found: Array = np.square(sum(run(model, data.arrays).values()) - expected).mean(0)
    return found


def test_rows_of_one_sample_are_all_held_out_or_none() -> None:
    """Within a sample all rows are alike, so that its own other rows tell of any noise."""

    class Alone(Samples):
        def batches(self, size: int) -> Iterator[Feeds]:
            return super().batches(min(size, 1))

    text = DENSE.replace("N,6", "N,T,6").replace("N,2", "N,T,2")
    noise = np.repeat(normal(24, 1, 6, seed=3), 8, axis=1)
    found = []
    for held in (Alone, Samples):
        weights = {"w": normal(6, 40, seed=5), "v": normal(40, 2, seed=2)}
        model = build(text.format("a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, v)"), weights)
        expected = run(model, {"x": normal(200, 2, 6, seed=9)})["y"]
        halve(model, held({"x": noise}), ridge=0)
        answers = run(model, {"x": normal(200, 2, 6, seed=9)})["y"]
        found.append(np.square(answers - expected).mean())
    # Batches of one sample choose the penalty as well as those of many do.
    assert found[0] < 1.5 * found[1]
