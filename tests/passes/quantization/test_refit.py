"""Refit: less error for the same kernels, and a reason for what stays."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.passes.base import Array, Context
from onnxpress.passes.errors import PassError
from onnxpress.passes.pruning.least_squares import Moments
from onnxpress.passes.quantization.emit import FLOAT
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.quantized import float_twin, quantized_layers
from onnxpress.passes.quantization.refit import Refit
from onnxpress.passes.quantization.saturation import as_rows, worst_sums

IMAGE = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,4,8,8] x) => (float[n,p] y) {
  h = Conv <pads = [1,1,1,1]> (x, w, b)
  k = Relu (h)
  d = Conv <group = 8> (k, dw)
  c = Conv <strides = [2,2]> (d, v)
  s = Relu (c)
  g = GlobalAveragePool (s)
  f = Flatten (g)
  y = Gemm <transB = 1> (f, t, e)
}
"""
STEPS = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,5,16] x) => (float[n,5,12] y) {
  h = MatMul (x, m)
  k = Relu (h)
  y = MatMul (k, q)
}
"""
SHAPES = {
    "w": (8, 4, 3, 3), "b": (8,), "dw": (8, 1, 3, 3), "v": (6, 8, 3, 3), "t": (5, 6), "e": (5,),
    "m": (16, 16), "q": (16, 12),
}  # fmt: skip


def build(text: str) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    tensors = [ir.tensor(array, name=name) for name, array in arrays.items() if name in words]
    return ir.from_onnx_text(text, initializers=tensors)


def sample(model: ir.Model, count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    inner = [size for size in model.graph.inputs[0].shape or () if isinstance(size, int)]
    mixing = rng.normal(size=(inner[-1], inner[-1]))
    return (rng.normal(size=(count, *inner)) @ mixing).astype(np.float32)


@pytest.fixture(params=[IMAGE, STEPS], ids=["image", "steps"])
def model(request: Any) -> ir.Model:
    return build(request.param)


def test_the_answers_come_nearer_and_the_kernels_stay(
    model: ir.Model, samples: type, run_fused: Any, fused: Any, decibels: Any
) -> None:
    held = {"x": sample(model, 64, 2)}
    (before,) = run_fused(model, held)
    context = Context(data=samples({"x": sample(model, 128, 2)[64:]}))
    InsertQDQ(saturation="avoid").rewrite(model, context)
    plain, kernels = decibels(before, run_fused(model, held)[0]), fused(model)

    result = Refit().rewrite(model, context)

    assert result.modified
    assert not result.declined
    assert decibels(before, run_fused(model, held)[0]) > plain
    assert fused(model) == kernels
    for was, now in result.details["error_before_and_after"].values():
        assert now <= was


def test_no_pair_saturates_that_could_not_before(model: ir.Model, samples: type) -> None:
    context = Context(data=samples({"x": sample(model, 64, 1)}))
    InsertQDQ(saturation="avoid").rewrite(model, context)

    Refit().rewrite(model, context)

    for layer in quantized_layers(model.graph)[0]:
        assert np.abs(layer.integers.astype(int)).max() <= 127
        rows = as_rows(layer.node, layer.integers, layer.axis if layer.scale.ndim else None)
        if rows is not None:
            assert worst_sums(rows).max() <= 128


def test_the_float_twin_is_the_float_model(model: ir.Model, samples: type, run: Any) -> None:
    x = {"x": sample(model, 8, 1)}
    (before,) = run(model, x)
    InsertQDQ().rewrite(model, Context(data=samples(x)))

    np.testing.assert_allclose(run(float_twin(model), x)[0], before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"weights": False}, {"round": "nearest"}])
def test_each_part_by_itself_is_of_use(options: dict[str, Any], samples: type) -> None:
    model = build(IMAGE)
    context = Context(data=samples({"x": sample(model, 64, 1)}))
    InsertQDQ(saturation="avoid").rewrite(model, context)

    errors = Refit(**options).rewrite(model, context).details["error_before_and_after"]

    assert sum(now for _, now in errors.values()) < sum(was for was, _ in errors.values())


def test_a_model_from_a_file_has_forgotten_its_floats(samples: type) -> None:
    model = build(IMAGE)
    context = Context(data=samples({"x": sample(model, 8, 1)}))
    InsertQDQ().rewrite(model, context)
    for node in model.graph:
        node.outputs[0].meta.pop(FLOAT, None)

    result = Refit().rewrite(model, context)

    assert not result.modified
    assert {reason[:28] for reason in result.declined.values()} == {"its weights before rounding "}
    assert len(result.declined) == 4


def test_a_float_model_is_left_alone(samples: type) -> None:
    model = build(IMAGE)

    result = Refit().rewrite(model, Context(data=samples({"x": sample(model, 4, 0)})))

    assert not result.modified
    assert not result.declined


def test_a_channel_of_zeros_and_one_sample_do_no_harm(
    samples: type, run_fused: Any, decibels: Any
) -> None:
    model = build(IMAGE)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    array = weight.numpy().copy()
    array[3] = 0
    array[4] *= 1e-30
    model.graph.initializers["w"].const_value = ir.tensor(array, name="w")
    x = {"x": sample(model, 64, 1)}
    (before,) = run_fused(model, x)
    context = Context(data=samples({"x": x["x"][:1]}))
    InsertQDQ().rewrite(model, context)

    Refit().rewrite(model, context)

    assert np.isfinite(run_fused(model, x)[0]).all()
    assert decibels(before, run_fused(model, x)[0]) > 5


def test_bad_options_and_no_data_are_refused() -> None:
    with pytest.raises(UsageError, match="no round 'up'"):
        Refit(round="up")
    with pytest.raises(UsageError, match="-1 samples"):
        Refit(samples=-1)
    with pytest.raises(PassError, match="refit needs samples"):
        Refit()(build(IMAGE))


def test_samples_that_come_one_by_one_are_added_up_together(
    samples: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of a layer with thousands of inputs take longer than all that leads to them."""
    model = build(IMAGE)
    x = sample(model, 64, 1)
    InsertQDQ().rewrite(model, Context(data=samples({"x": x})))
    sums = []

    def counted(self: Moments, other: Moments) -> Moments:
        sums.append(self.rows)
        return add(self, other)

    add = Moments.__add__
    monkeypatch.setattr(Moments, "__add__", counted)

    class OneByOne:
        def batches(self, size: int) -> Any:
            del size
            yield from ({"x": x[at : at + 1]} for at in range(64))

    result = Refit().rewrite(model, Context(data=OneByOne()))

    layers = len(result.rewritten)
    assert layers == 4
    assert len(sums) < layers * 64  # of twice as many, as rows are held out
