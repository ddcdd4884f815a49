"""Fitting to what the activation behind a layer lets through."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxpress.backends.errors import UsageError
from onnxpress.passes.base import Array
from onnxpress.passes.pruning.activations import Clipped, clips
from onnxpress.passes.pruning.prune_channels import PruneChannels
from tests.passes.pruning.helpers import Samples, build, normal, run
from tests.passes.pruning.test_reconstruct import halve

MODEL = '<ir_version: 9, opset_import: ["" : 17]>\nmain (float[N,6] x) => ({} y) {{ {} }}'
FLAT = "float[N,8]"
RELU = Clipped(0.0, np.inf)
WEIGHTS = {"w": normal(6, 12), "b": normal(12, seed=1), "v": normal(12, 8, seed=2)}


def first_reader(body: str, weights: dict[str, Array]) -> ir.Value:
    """The value ``m`` of a model of that ``body``."""
    model = build(MODEL.format(FLAT, body), weights)
    return next(node.outputs[0] for node in model.graph if node.outputs[0].name == "m")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("m = MatMul (x, w)  y = Relu (m)", RELU),
        ("m = MatMul (x, w)  y = Clip (m, low, high)", Clipped(0.0, 6.0)),
        ("m = MatMul (x, w)  y = Clip (m, , high)", Clipped(-np.inf, 6.0)),
        ("m = MatMul (x, w)  y = Clip (m, x0)  ", None),
        ("m = MatMul (x, w)  y = Sigmoid (m)", None),
        ("m = MatMul (x, w)  r = Relu (m)  y = Add (r, m)", None),
        ("m = MatMul (x, w)  i = Identity (m)  y = Relu (i)", None),
    ],
)
def test_what_cuts_a_value_off(body: str, expected: Clipped | None) -> None:
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    used = {name: np.asarray(one) for name, one in bounds.items() if name in body}
    if "x0" in body:
        body = f"t = ReduceMax <keepdims = 0> (x)  {body.replace('x0', 't')}"
    assert clips(first_reader(body, {"w": normal(6, 8), **used})) == expected


def test_bounds_of_old_opsets_are_attributes() -> None:
    old = MODEL.replace("17", "9").format(FLAT, "m = MatMul (x, w)  y = Clip <max = 6.0> (m)")
    product = next(iter(build(old, {"w": normal(6, 8)}).graph)).outputs[0]
    assert clips(product) == Clipped(-np.inf, 6.0)


def test_what_the_graph_answers_is_not_cut_off() -> None:
    body = "y = MatMul (x, w)  r = Relu (y)"
    product = next(iter(build(MODEL.format(FLAT, body), {"w": normal(6, 8)}).graph)).outputs[0]
    assert clips(product) is None


numbers = arrays(np.float64, 20, elements=st.floats(-9, 9))


@given(numbers, numbers, numbers, st.sampled_from([RELU, Clipped(0.0, 6.0), Clipped(-1.0, 1.0)]))
def test_the_distance_to_a_target_bounds_the_error_that_is_seen(
    wanted: Array, last: Array, now: Array, cut: Clipped
) -> None:
    seen = np.abs(now.clip(cut.low, cut.high) - wanted.clip(cut.low, cut.high))
    assert (seen <= np.abs(now - cut.targets(wanted, last)) + 1e-12).all()
    # What does well already stays as it is.
    fine = (wanted <= cut.low) & (last <= cut.low)
    np.testing.assert_array_equal(cut.targets(wanted, last)[fine], last[fine])


@pytest.mark.parametrize("layer", ["m = Gemm (r, v)", "m = MatMul (r, v)"])
def test_more_sweeps_lessen_the_error_that_is_seen(layer: str) -> None:
    data, errors = Samples({"x": normal(2000, 6, seed=8)}), []
    for sweeps in (1, 2, 6):
        model = build(
            MODEL.format(FLAT, f"a = Gemm (x, w, b)  r = Relu (a)  {layer}  y = Relu (m)"), WEIGHTS
        )
        expected = run(model, data.arrays)["y"]
        halve(model, data, sweeps=sweeps)
        errors.append(np.square(run(model, data.arrays)["y"] - expected).mean())
    assert errors[2] < errors[1] < 0.97 * errors[0]


def test_where_nothing_is_cut_off_sweeps_change_nothing() -> None:
    answers = []
    for sweeps in (1, 3):
        model = build(
            MODEL.format(FLAT, "a = Gemm (x, w, b)  r = Relu (a)  y = Gemm (r, v)"), WEIGHTS
        )
        halve(model, Samples({"x": normal(200, 6, seed=8)}), sweeps=sweeps)
        answers.append(run(model, {"x": normal(9, 6)})["y"])
    np.testing.assert_array_equal(answers[0], answers[1])


def test_no_sweep_is_too_few() -> None:
    with pytest.raises(UsageError, match="cannot have sweeps 0"):
        PruneChannels(sweeps=0)
