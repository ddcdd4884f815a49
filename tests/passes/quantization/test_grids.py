"""Powers of two, the extremes of samples, and the types that no kernel is there for."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.arithmetic import QMAX, Range, affine, code, power_of_two
from onnxpress.passes.quantization.insert_qdq import SIXTEEN, InsertQDQ
from onnxpress.passes.quantization.quantized import quantized_layers
from onnxpress.passes.quantization.refit import Refit
from onnxpress.passes.quantization.saturation import as_rows, worst_sums

MODEL = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,4,8,8] x) => (float[n,6,6,6] y) {
  h = Conv <pads = [1,1,1,1]> (x, w, b)
  y = Conv (h, v)
}
"""


def build(positive: bool = False) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 4, 3, 3), "b": (8,), "v": (6, 8, 3, 3)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if positive:
        arrays["v"] = np.abs(arrays["v"]) + 1
        arrays["w"], arrays["b"] = -np.abs(arrays["w"]), arrays["b"] + 20
    tensors = [ir.tensor(array, name=name) for name, array in arrays.items()]
    return ir.from_onnx_text(MODEL, initializers=tensors)


def sample(seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(48, 4, 8, 8)).astype(np.float32)


def scales(model: ir.Model) -> Array:
    found = []
    for node in model.graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            tensor = node.inputs[1].const_value if node.inputs[1] is not None else None
            assert tensor is not None
            found.append(tensor.numpy().reshape(-1))
    return np.concatenate(found)


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_a_power_of_two_holds_the_range_and_wastes_less_than_half(a: float, b: float) -> None:
    seen = Range(min(a, b), max(a, b))
    fine, coarse = affine(seen), affine(seen, powers=True)
    assert np.log2(coarse.scale) == np.rint(np.log2(coarse.scale))
    assert fine.scale <= coarse.scale < 2 * fine.scale * (1 + 1e-6)
    for value in (seen.low, seen.high):
        near = (code(value, coarse) - int(coarse.zero_point)) * float(coarse.scale)
        assert abs(near - value) <= float(coarse.scale) * 1.01


def test_codes_are_unsigned_whatever_the_type() -> None:
    seen = Range(-1, 3)
    for signed in (False, True):
        grid = affine(seen, signed=signed)
        assert code(3, grid) == QMAX
        assert code(-1, grid) == 0
        assert code(99, grid) == QMAX


@pytest.mark.parametrize("saturation", ["avoid", "ignore"])
def test_all_scales_become_powers_of_two_and_stay_so(
    saturation: str, samples: type, run_fused: Any, run: Any, decibels: Any
) -> None:
    model = build()
    (before,) = run(model, {"x": sample(2)})
    context = Context(data=samples({"x": sample()}))

    InsertQDQ(powers=True, saturation=saturation).rewrite(model, context)

    assert (power_of_two(scales(model)) == scales(model)).all()
    plain = decibels(before, run_fused(model, {"x": sample(2)})[0])
    assert plain > 25
    Refit().rewrite(model, context)
    assert (power_of_two(scales(model)) == scales(model)).all()
    assert decibels(before, run_fused(model, {"x": sample(2)})[0]) > plain
    if saturation == "avoid":
        for layer in quantized_layers(model.graph)[0]:
            rows = as_rows(layer.node, layer.integers, layer.axis)
            assert rows is not None
            assert worst_sums(rows).max() <= 128


def test_extremes_of_samples_leave_weights_more_room(samples: type, run: Any) -> None:
    """A grid for both signs that samples use to a third: sums may be three times as large."""
    found = {}
    for saturation in ("ignore", "avoid", "calibrated"):
        model = build(positive=True)
        x = np.abs(sample())
        context = Context(data=samples({"x": x}))
        pass_ = InsertQDQ(saturation=saturation, symmetric=True, exclude=("h",))
        result = pass_.rewrite(model, context)
        (layer,) = quantized_layers(model.graph)[0]
        rows = as_rows(layer.node, layer.integers, layer.axis)
        assert rows is not None
        found[saturation] = worst_sums(rows).max(), result.details["channels_kept_from_saturating"]
        if saturation == "calibrated":
            quantize = layer.integer_input.producer()
            assert quantize is not None
            graph = ir.from_proto(ir.to_proto(model))
            name = layer.integer_input.name or ""
            largest = session_of(graph, outputs=[name]).run({"x": x})[name].max()
            assert int(largest) * int(found[saturation][0]) <= 32767
    assert found["avoid"][0] <= 128
    assert found["avoid"][0] < found["calibrated"][0] <= found["ignore"][0]
    assert found["ignore"][1] == 0


def test_extremes_are_those_of_minmax_alone() -> None:
    with pytest.raises(UsageError, match="which mse cuts off"):
        InsertQDQ(saturation="calibrated", method="mse")


@pytest.mark.parametrize("types", SIXTEEN)
def test_16_bit_activations_are_refused(types: str) -> None:
    with pytest.raises(UsageError, match="no kernels for 16-bit activations"):
        InsertQDQ(types=types)


@pytest.mark.parametrize(("kind", "kernel"), [("uint8", True), ("uint16", False), ("int16", False)])
@pytest.mark.parametrize(
    ("operator", "shape"), [("Conv", [1, 4, 8, 8]), ("MatMul", [4, 4]), ("Add", [4, 4])]
)
def test_onnx_runtime_has_no_kernels_for_them(
    kind: str, kernel: bool, operator: str, shape: list[int], tmp_path: Path
) -> None:
    """What the refusal is about; it may go when this fails."""
    middle = np.iinfo(kind).max // 2 + 1 if kind[0] == "u" else 0
    weight = np.ones((4, 4, 1, 1) if operator == "Conv" else (4, 4), np.int8)
    second = "w" if operator != "Add" else "q"
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    main (float[{",".join(map(str, shape))}] x) => ({kind}[{",".join("abcd"[: len(shape)])}] y) {{
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      e = DequantizeLinear ({second}, s{", z" if operator == "Add" else ""})
      h = {operator} (d, e)
      y = QuantizeLinear (h, s, z)
    }}"""
    arrays = {"s": np.array(0.1, np.float32), "z": np.array(middle, kind), "w": weight}
    tensors = [ir.tensor(array, name=name) for name, array in arrays.items() if name != "w"
               or operator != "Add"]  # fmt: skip

    session_of(ir.from_onnx_text(text, initializers=tensors), optimized=tmp_path / "o.onnx")

    optimized = Counter(node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node)
    assert any(name.startswith("QLinear") for name in optimized) == kernel, optimized
