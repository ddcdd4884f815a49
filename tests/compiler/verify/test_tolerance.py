"""The rule that tells rounding from error: half of the significant digits, by number format."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.backends.base import Array
from onnxpress.compiler.verify.tolerance import Tolerance, deviation, tolerances

HALF = 2.0**-11.5
"""sqrt(eps) of float32."""


@pytest.mark.parametrize(
    ("signature", "body", "eps", "floor"),
    [
        ("float[2] x", "y = Relu(x)", 2.0**-23, 0),
        ("double[2] x", "y = Relu(x)", 2.0**-52, 0),
        ("float16[2] x", "a = Relu(x)\ny = Cast <to=1> (a)", 2.0**-10, 0),
        # Weights that are only stored in half precision are computed with in single precision.
        ("float16[2] x", "a = Cast <to=1> (x)\ny = Relu(a)", 2.0**-23, 0),
        ("float[2] x", "a = Cast <to=16> (x)\nb = Relu(a)\ny = Cast <to=1> (b)", 2.0**-7, 0),
        ("float[2] x", "q = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s, z)", 2.0**-7, 0),
        ("float[2] x", "q = QuantizeLinear(x, s)\ny = DequantizeLinear(q, s)", 2.0**-7, 0),
        ("float[2] x", "a, s2, z2 = DynamicQuantizeLinear(x)\ny = Cast <to=1> (a)", 2.0**-7, 0),
        ("float[2] x", "y = Sigmoid(x)", 2.0**-23, 2.0**-20),
        ("float[2] x", "a = Softmax(x)\nb = Exp(x)\ny = Concat <axis=0> (b, a)",
         2.0**-23, 2.0**-20),
        ("float[2] x", "a = Softmax(x)\ny = Exp(a)", 2.0**-23, 0),
        ("int64[2] x", "y = Abs(x)", 2.0**-23, 0),
    ],
)  # fmt: skip
def test_the_coarsest_format_on_the_way_decides(
    signature: str, body: str, eps: float, floor: float
) -> None:
    model = ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 17]> main ({signature}) => (y) '
        f"<float s = {{0.1}}, uint8 z = {{128}}> {{ {body} }}"
    )
    assert tolerances(model)["y"] == Tolerance(math.sqrt(eps), math.sqrt(eps) / 4, floor)


def test_a_saturated_tail_in_a_branch_is_rounded_at_one() -> None:
    model = ir.from_onnx_text("""<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
    main (float[2] x, bool c) => (y, z) {
      y = If (c) <then_branch = a () => (p) { p = Sigmoid (x) },
                  else_branch = b () => (q) { q = Neg (x) }>
      z = local.squash (x)
    }
    <domain: "local", opset_import: ["" : 17]>
    squash (t) => (u) { u = Sigmoid (t) }""")
    assert tolerances(model)["y"].floor == tolerances(model)["z"].floor == 2.0**-20


SINGLE = Tolerance(HALF, HALF / 4)


def test_one_element_may_be_off_by_half_its_digits_and_all_by_less() -> None:
    a = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    spike = a.copy()
    spike[7] *= 1 + HALF * 0.99
    assert SINGLE.accepts(deviation(a, (a * (1 + HALF / 8)).astype(np.float32)))
    assert SINGLE.accepts(deviation(a, spike))
    assert not SINGLE.accepts(deviation(a, a * (1 + HALF / 2)))  # everything is off a little
    spike[7] += 1e-3
    assert not SINGLE.accepts(deviation(a, spike))  # one element is off


def test_small_elements_are_held_to_the_size_of_their_surroundings() -> None:
    a = np.array([1.0, -1.0, 1e-8], np.float32)
    assert deviation(a, a + np.float32(1e-6)).max() < 2e-6
    assert not SINGLE.accepts(deviation(a * 1e-30, np.zeros(3, np.float32)))


def test_values_that_are_not_finite_have_to_stay_where_they_are() -> None:
    a = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert deviation(a, a).tolist() == [0, 0, 0, 0]
    assert deviation(a, np.array([1.0, -np.inf, np.nan, np.inf])).tolist() == [np.inf] * 4
    assert not SINGLE.accepts(deviation(a, a[::-1]))


def test_integers_and_texts_have_to_be_equal() -> None:
    assert deviation(np.array([1, 2]), np.array([1, 3])).tolist() == [0, np.inf]
    assert deviation(np.array(["a", "b"], object), np.array(["a", "c"], object)).tolist() == [
        0,
        np.inf,
    ]
    assert SINGLE.accepts(deviation(np.zeros((0, 2)), np.zeros((0, 2))))


def test_a_floor_is_always_rounding() -> None:
    tiny = np.array([1e-9, 3e-9], np.float32)
    assert deviation(tiny, tiny * 50).max() > 1
    assert deviation(tiny, tiny * 50, floor=1e-6).max() == 0


@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=9), elements=st.floats(width=32)),
    st.floats(HALF * 1.1, 1e3),
)
def test_only_equal_arrays_have_no_deviation(a: Array, by: float) -> None:
    assert SINGLE.accepts(deviation(a, a))
    finite = np.isfinite(a) & (a != 0)
    off = deviation(a, a.astype(np.float64) * (1 + by))
    assert np.all(off[~finite] == 0)
    if finite.any():
        largest = np.abs(np.where(finite, a, 0)).argmax()
        assert off.reshape(-1)[largest] > HALF
