"""Equalize: bit for bit the same answers, ranges alike, and a reason where bounds forbid it."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.equalize import Equalize
from onnxpress.passes.quantization.smooth import SmoothActivations

SHAPES = {
    "w": (8, 4, 3, 3), "b": (8,), "dw": (8, 1, 3, 3), "g": (8, 4, 1, 1), "v": (6, 8, 3, 3),
    "slope": (8, 1, 1), "t": (5, 8), "flat": (288, 7), "m": (16, 12), "mb": (12,), "n": (12, 9),
    "gain": (16,), "shift": (16,), "q": (16, 5), "square": (6, 6), "rows": (6, 1),
    "sixth": (6, 4, 3, 3), "four": (6, 4), "point": (4, 4, 1, 1),
}  # fmt: skip
IMAGE = "(float[n,4,6,6] x) => (float[n,p,q,r] y)"
VECTOR = "(float[n,4,6,6] x) => (float[n,p] y)"
ROWS = "(float[n,3,16] x) => (float[n,3,p] y)"
SAME = "pads = [1,1,1,1]"


def build(signature: str, body: str, opset: int = 17, dtype: Any = np.float32) -> ir.Model:
    rng = np.random.default_rng(0)
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    tensors = []
    for name, shape in SHAPES.items():
        array = rng.normal(size=shape) * np.exp(
            rng.normal(size=(shape[0], *(1,) * (len(shape) - 1)))
        )
        if name in words:
            tensors.append(ir.tensor(array.astype(dtype), name=name))
    tensors.append(ir.tensor(dtype(0), name="zero"))
    tensors.append(ir.tensor(dtype(6), name="six"))
    return ir.from_onnx_text(text, initializers=[t for t in tensors if t.name in words])


def sample(model: ir.Model, count: int = 4) -> Array:
    inner = [size for size in model.graph.inputs[0].shape or () if isinstance(size, int)]
    return np.random.default_rng(1).normal(size=(count, *inner)).astype(np.float32)


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (IMAGE, "h = Conv (x, w, b)\n k = Relu (h)\n y = Conv (k, v)"),
        (IMAGE, f"h = Conv <{SAME}> (x, w, b)\n y = Conv <{SAME}> (h, v)"),
        (IMAGE, "h = Conv (x, w, b)\n k = LeakyRelu (h)\n d = Conv <group = 8> (k, dw)\n"
                " y = Relu (d)"),
        (IMAGE, f"h = Conv (x, w)\n k = PRelu (h, slope)\n d = Conv <{SAME}, group = 8> (k, dw)\n"
                " r = Relu (d)\n y = Conv (r, v)"),
        (IMAGE, "h = Conv (x, w, b)\n k = Clip (h, zero)\n y = Conv <group = 2> (k, g)"),
        (IMAGE, "h = Conv (x, w, b)\n k = MaxPool <kernel_shape = [2,2]> (h)\n y = Conv (k, v)"),
        (VECTOR, "h = Conv (x, w, b)\n k = GlobalAveragePool (h)\n f = Flatten (k)\n"
                 " y = Gemm <transB = 1> (f, t)"),
        (VECTOR, f"h = Conv <{SAME}> (x, w, b)\n k = Relu (h)\n f = Flatten (k)\n"
                 " y = MatMul (f, flat)"),
        (ROWS, "h = MatMul (x, m)\n a = Add (mb, h)\n k = Relu (a)\n y = MatMul (k, n)"),
    ],
)  # fmt: skip
def test_answers_stay_to_the_last_bit(signature: str, body: str, run: Any) -> None:
    model = build(signature, body)
    x = {"x": sample(model)}
    (before,) = run(model, x)

    result = Equalize().rewrite(model, Context())

    assert result.modified
    # Only the order in which a runtime adds up may differ, and with optimizations off it does not.
    np.testing.assert_array_equal(run(model, x)[0], before)
    assert not Equalize().rewrite(model, Context()).modified


def test_a_weight_that_is_also_an_output_stays(run: Any) -> None:
    outputs = "(float[n,4,6,6] x) => (float[n,p,q,r] y, float[8,4,3,3] w)"
    model = build(outputs, "h = Conv (x, w, b)\n k = Relu (h)\n y = Conv (k, v)")
    x = {"x": sample(model)}
    before = run(model, x)

    assert Equalize().rewrite(model, Context()).modified
    for one, other in zip(run(model, x), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_channels_have_like_ranges_afterwards() -> None:
    model = build(IMAGE, "h = Conv (x, w, b)\n k = Relu (h)\n y = Conv (k, v)")

    Equalize().rewrite(model, Context())

    w, v = (model.graph.initializers[name].const_value.numpy() for name in "wv")  # type: ignore[union-attr]
    ratios = np.abs(w).max(axis=(1, 2, 3)) / np.abs(v).max(axis=(0, 2, 3))
    assert (ratios > 0.49).all()
    assert (ratios < 2.01).all()


@pytest.mark.parametrize(
    "body",
    [
        "h = Conv (x, w, b)\n k = Clip (h, zero, six)\n y = Conv (k, v)",
        "h = Conv (x, w, b)\n k = Sigmoid (h)\n y = Conv (k, v)",
        f"h = Conv <{SAME}> (x, w, b)\n k = Relu (h)\n l = Conv <{SAME}> (k, v)\n"
        f" z = Conv <{SAME}> (k, v)\n y = Add (l, z)",
        "h = Conv (x, w, b)\n k = Relu (h)\n s = Mul (k, k)\n y = Conv (s, v)",
        # As many columns as channels, but another axis.
        f"h = Conv <{SAME}> (x, sixth)\n y = MatMul (h, square)",
        "h = MatMul (x, four)\n y = Conv (h, point)",
        "h = Gemm (x, square, rows)\n y = MatMul (h, square)",
    ],
)
def test_what_would_change_answers_is_left(body: str) -> None:
    model = build(IMAGE, body)
    before = ir.to_onnx_text(model)

    result = Equalize().rewrite(model, Context())

    assert not result.modified
    assert ir.to_onnx_text(model) == before
    assert list(result.declined.values()) == (
        ["the bounds of the Clip behind it would not fit any more"] if "Clip" in body else []
    )


def test_channels_of_zeros_and_overflow_are_left() -> None:
    model = build(IMAGE, "h = Conv (x, w, b)\n k = Relu (h)\n y = Conv (k, v)")
    weights = {}
    for name in "wv":
        weights[name] = model.graph.initializers[name].const_value.numpy().copy()  # type: ignore[union-attr]
    weights["w"][2] = 0
    weights["v"][:, 3] = 0
    weights["w"][4], weights["v"][:, 4] = 1e-44, 1e30
    for name, array in weights.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)

    Equalize().rewrite(model, Context())

    for name, array in weights.items():
        stored = model.graph.initializers[name].const_value.numpy()  # type: ignore[union-attr]
        assert np.isfinite(stored).all()
        assert (stored == 0).sum() == (array == 0).sum()


NORMALIZED = "h = LayerNormalization <axis = -1> (x, gain, shift)\n"
SPELLED = "z = Tanh (x)\n s = Mul (z, gain)\n h = Add (s, shift)\n"


@pytest.mark.parametrize("head", [NORMALIZED, SPELLED])
def test_outliers_move_into_the_weights(head: str, samples: type, run: Any) -> None:
    model = build(
        ROWS, head + "l = MatMul (h, m)\n r = MatMul (h, q)\n y = Concat <axis = 2> (l, r)"
    )
    gain = model.graph.initializers["gain"].const_value.numpy().copy()  # type: ignore[union-attr]
    gain[3] = 100
    model.graph.initializers["gain"].const_value = ir.tensor(gain, name="gain")
    x = {"x": sample(model)}
    (before,) = run(model, x)

    result = SmoothActivations().rewrite(model, Context(data=samples(x)))

    assert result.modified
    np.testing.assert_array_equal(run(model, x)[0], before)
    now = model.graph.initializers["gain"].const_value.numpy()
    assert np.abs(now[3] / np.median(np.abs(now))) < np.abs(gain[3] / np.median(np.abs(gain))) / 4


def test_a_normalization_that_is_read_elsewhere_is_declined(samples: type) -> None:
    model = build(ROWS, NORMALIZED + "l = MatMul (h, m)\n y = Concat <axis = 2> (l, h)")

    result = SmoothActivations().rewrite(model, Context(data=samples({"x": sample(model)})))

    assert not result.modified
    assert "more than layers with constant weights" in next(iter(result.declined.values()))


@pytest.mark.parametrize("reads", [True, False], ids=["read", "made"])
def test_only_pairs_with_an_outlying_channel_can_be_asked_for(reads: bool) -> None:
    model = build(IMAGE, "h = Conv (x, w, b)\n k = Relu (h)\n y = Conv (k, v)")
    weights = {name: np.ones(SHAPES[name], np.float32) for name in ("w", "v")}
    (weights["v"][:, 3:4] if reads else weights["w"][3:4])[:] = 64
    for name, array in weights.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)

    assert not Equalize(spread=65).rewrite(model, Context()).modified
    result = Equalize(spread=64).rewrite(model, Context())

    assert len(result.rewritten) == 1


def test_a_spread_is_a_number() -> None:
    with pytest.raises(UsageError, match="spread of -1"):
        Equalize(spread=-1)
