"""Layers as matrix products: rows times weight plus bias is what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.base import Array
from onnxpress.passes.graph import constant
from onnxpress.passes.pruning.layers import ROWS, Layer, layer_of
from tests.passes.pruning.helpers import build, normal, run


def only(inputs: str, call: str, weights: dict[str, Array]) -> ir.Model:
    text = (
        f'<ir_version: 9, opset_import: ["" : 17]>\nmain ({inputs}) => (float y) {{ y = {call} }}'
    )
    model = build(text, weights)
    model.graph.outputs[0].shape = None
    return model


def layer(model: ir.Model) -> Layer:
    found = layer_of(model.graph[-1])
    assert not isinstance(found, str)
    return found


def check(model: ir.Model, x: Array, bias: Array) -> None:
    """Rows of the inputs, times the weight, are rows of the results."""
    one, y = layer(model), run(model, {"x": x})["y"]
    rows = one.choose(y, np.random.default_rng(0))
    product = one.inputs(x, rows) @ one.weight() + bias.reshape(one.weight().shape[0], 1, -1)
    results = one.results(y, rows)
    assert product.shape == results.shape
    np.testing.assert_allclose(product, results, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one.stored(one.weight()), constant(one.node.inputs[1]))


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("group = 1", 1),
        ("pads = [1, 2, 0, 1]", 1),
        ("strides = [2, 3]", 1),
        ("dilations = [2, 1], pads = [2, 0, 2, 0]", 1),
        ("group = 2, strides = [1, 2], pads = [1, 1, 1, 1]", 2),
        ("group = 4", 4),
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', 1),
        ('auto_pad = "SAME_LOWER"', 1),
        ('auto_pad = "VALID", dilations = [1, 2]', 1),
    ],
)
def test_convolution(attributes: str, groups: int) -> None:
    weights = {"w": normal(8, 4 // groups, 3, 2), "b": normal(8, seed=1)}
    model = only("float[N,4,9,8] x", f"Conv <{attributes}> (x, w, b)", weights)

    check(model, normal(3, 4, 9, 8, seed=2), weights["b"])


@pytest.mark.parametrize("sizes", [(20,), (5, 4, 6)])
def test_convolution_of_other_ranks(sizes: tuple[int, ...]) -> None:
    weights = {"w": normal(4, 3, *[2] * len(sizes)), "b": normal(4, seed=1)}
    shape = ",".join(str(size) for size in sizes)

    check(
        only(f"float[N,3,{shape}] x", "Conv (x, w, b)", weights), normal(2, 3, *sizes), weights["b"]
    )


@pytest.mark.parametrize(
    ("call", "shape", "weight"),
    [
        ("Gemm (x, w, b)", (6, 4), (4, 3)),
        ("Gemm <transB = 1> (x, w, b)", (6, 4), (3, 4)),
        ("Gemm <transA = 1> (x, w, b)", (4, 6), (4, 3)),
    ],
)
def test_gemm(call: str, shape: tuple[int, int], weight: tuple[int, int]) -> None:
    weights = {"w": normal(*weight), "b": normal(3, seed=1)}

    check(
        only(f"float[{shape[0]},{shape[1]}] x", call, weights), normal(*shape, seed=2), weights["b"]
    )


def test_alpha_is_part_of_the_weight() -> None:
    weights = {"w": normal(4, 3), "b": normal(3, seed=1)}
    model = only("float[N,4] x", "Gemm <alpha = 0.5> (x, w, b)", weights)

    np.testing.assert_allclose(layer(model).weight()[0], weights["w"] / 2)


def test_product_of_any_rank() -> None:
    model = only("float[N,5,4] x", "MatMul (x, w)", {"w": normal(4, 3)})

    check(model, normal(2, 5, 4, seed=1), np.zeros(3))


def test_half_precision_is_computed_in_single() -> None:
    model = only("float16[N,4] x", "MatMul (x, w)", {"w": normal(4, 3).astype(np.float16)})

    one, x = layer(model), normal(2, 4).astype(np.float16)

    assert one.inputs(x, np.arange(2)).dtype == np.float32
    assert one.stored(one.weight()).dtype == np.float16


def test_rows_are_bounded() -> None:
    model = only("float[N,1,40,40] x", "Conv (x, w)", {"w": normal(1, 1, 1, 1)})
    one = layer(model)

    rows = one.choose(np.zeros((7, 1, 40, 40)), np.random.default_rng(0))

    assert len(np.unique(rows)) == ROWS
    assert one.inputs(normal(7, 1, 40, 40), rows).shape == (1, 7 * ROWS, 1)


@pytest.mark.parametrize(
    ("inputs", "call", "weights", "reason"),
    [
        ("float[N,4] x, float[4,3] w", "MatMul (x, w)", {}, "not constant"),
        ("float[N,4] x, float[3] b", "Gemm (x, w, b)", {"w": (4, 3)}, "not constant"),
        ("float[2,N,4] x", "MatMul (x, w)", {"w": (2, 4, 3)}, "not a matrix"),
        ("float[2,4] x", "Gemm (x, w, b)", {"w": (4, 3), "b": (2, 3)}, "bias not a vector"),
    ],
)
def test_what_is_no_layer(
    inputs: str, call: str, weights: dict[str, tuple[int, ...]], reason: str
) -> None:
    model = only(inputs, call, {name: normal(*shape) for name, shape in weights.items()})

    found = layer_of(model.graph[-1])

    assert isinstance(found, str)
    assert reason in found
