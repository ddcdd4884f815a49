"""Weights that do not overflow 16 bits: exactly those channels, no further than it takes."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array
from onnxpress.passes.quantization.arithmetic import INT16_MAX, QMAX, Weight, quantize_weight
from onnxpress.passes.quantization.saturation import (
    as_rows,
    can_saturate,
    keep_from_saturating,
    worst_sums,
)

ELEMENTS = st.floats(-100, 100, width=32)
MATRICES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=ELEMENTS
)
STACKS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_side=5), elements=ELEMENTS)
IMAGES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=3, max_dims=4, max_side=4), elements=ELEMENTS
)


def node_of(op_type: str, **attributes: int) -> ir.Node:
    return ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")], attributes)


def kept(
    weight: Array, axis: int | None, op_type: str = "Gemm", high: int = QMAX
) -> tuple[Weight, Weight, int]:
    """The weight as it comes, as it is kept from overflowing, and how many channels could."""
    plain = quantize_weight(weight, axis, input_scale=np.float32(1))
    safe, count = keep_from_saturating(node_of(op_type), weight, plain, high)
    return plain, safe, count


@settings(max_examples=200)
@given(MATRICES, st.sampled_from([0, 1]), st.integers(1, 255))
def test_no_pair_of_a_matrix_overflows(weight: Array, axis: int, high: int) -> None:
    plain, safe, count = kept(weight, axis, high=high)

    rows, before = (
        as_rows(node_of("Gemm"), safe.values, axis),
        as_rows(node_of("Gemm"), plain.values, axis),
    )
    assert rows is not None
    assert before is not None
    assert (high * worst_sums(rows) <= INT16_MAX).all()
    overflowing = high * worst_sums(before) > INT16_MAX
    assert count == overflowing.sum()
    np.testing.assert_array_equal(rows[~overflowing], before[~overflowing])
    np.testing.assert_array_equal(safe.scale[~overflowing], plain.scale[~overflowing])
    assert safe.values.min() >= -127


@settings(max_examples=100)
@given(STACKS)
def test_no_pair_of_a_stack_overflows(weight: Array) -> None:
    _, safe, _ = kept(weight, None, "MatMul")

    rows = np.swapaxes(safe.values, -1, -2).reshape(1, -1, weight.shape[-2])
    assert safe.values.shape == weight.shape
    assert safe.scale.shape == ()
    assert QMAX * worst_sums(rows)[0] <= INT16_MAX


@settings(max_examples=100)
@given(IMAGES)
def test_pairs_of_a_conv_are_neighbouring_channels(weight: Array) -> None:
    _, safe, _ = kept(weight, 0, "Conv")

    assert safe.values.shape == weight.shape
    # K runs over the kernel's positions first, and over the channels within each of them.
    flat = np.stack([np.moveaxis(one, 0, -1).reshape(-1) for one in safe.values.astype(int)])
    pairs = flat[:, : flat.shape[1] // 2 * 2].reshape(len(flat), -1, 2)
    assert (np.abs(pairs.sum(axis=2)) * QMAX <= INT16_MAX).all()


@given(MATRICES)
def test_the_weights_stay_near(weight: Array) -> None:
    """At worst all are scaled down until the worst pair fits, by a factor below two."""
    plain, safe, _ = kept(weight, 0)

    assert (safe.scale <= 2 * plain.scale * (1 + 1e-6)).all()
    error = safe.values * safe.scale[:, None].astype(np.float64) - weight
    worst = np.abs(as_sums(weight)).max(initial=0) / 128
    assert np.abs(error).max() <= max(float(plain.scale.max()), worst) * 130


def as_sums(rows: Array) -> Array:
    even = rows.shape[1] // 2 * 2
    sums: Array = rows[:, 0:even:2].astype(np.float64) + rows[:, 1:even:2]
    return sums


def test_only_channels_that_overflow_change() -> None:
    weight = np.array([[1, 1, 0.5, 0.5], [1, -1, 1, 0], [1, 0, 0, 1]], np.float32)

    plain, safe, count = kept(weight, 0)

    assert count == 1
    assert (safe.scale > plain.scale).tolist() == [True, False, False]
    assert (safe.values[0, :2].astype(int).sum(), safe.values[1:].tolist()) == (
        128,
        plain.values[1:].tolist(),
    )


def test_one_bad_pair_among_many_costs_less_than_a_scale_for_all() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 400)).astype(np.float32) * 0.1
    weight[0, :2] = [0.9, 0.8]

    plain, safe, _ = kept(weight, 0)

    shrunk = quantize_weight(weight, 0, input_scale=np.float32(1)).scale * 1.7 / 0.9 / 128 * 127
    coarse = np.rint(weight / shrunk[:, None]) * shrunk[:, None]
    fine = safe.values * safe.scale[:, None]
    assert plain.scale < safe.scale < shrunk
    assert ((fine - weight)[0, 2:] ** 2).sum() < ((coarse - weight)[0, 2:] ** 2).sum()


def test_smaller_activations_leave_more_room() -> None:
    weight = np.array([[1, 0.9, 0.3, 0.1]], np.float32)

    scales = [kept(weight, 0, high=high)[1].scale[0] for high in (255, 200, 128)]

    assert scales[0] > scales[1] > scales[2] == kept(weight, 0)[0].scale[0]


def test_a_depthwise_conv_adds_in_32_bits() -> None:
    weight = np.ones((4, 1, 3, 3), np.float32)
    plain = quantize_weight(weight, 0, input_scale=np.float32(1))

    safe, count = keep_from_saturating(node_of("Conv", group=4), weight, plain)

    assert safe is plain
    assert count == 0


@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("cpu", set(), True),
        ("cpu", {"avx2"}, True),
        ("cpu", {"avx2", "avx512f"}, True),
        ("cpu", {"avx512f", "avx512_vnni"}, False),
        ("cpu", {"avx2", "avx_vnni"}, False),
        ("cpu", {"amx_int8"}, False),
        ("cpu", {"asimd", "asimddp"}, False),
        ("portable", {"avx512_vnni"}, True),
    ],
)
def test_which_cpus_saturate(name: str, features: set[str], expected: bool) -> None:
    assert can_saturate(Target(name, frozenset(features))) == expected  # type: ignore[arg-type]
