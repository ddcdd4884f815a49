"""What stays in float because its conversions would take longer than 8 bits save."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.base import Context, Result
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.payoff import REASON

SHAPES: dict[str, tuple[int, ...]] = {
    "thin": (8, 8, 1, 1), "wide": (128, 128, 1, 1), "in_": (128, 8, 1, 1), "out": (8, 128, 1, 1),
    "each": (128, 1, 3, 3), "m": (512, 512),
}  # fmt: skip


def build(body: str, channels: int, dims: str = "b,{c},h,w") -> ir.Model:
    rng = np.random.default_rng(0)
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"main (float[{dims.format(c=channels)}] x) => (float[n] y) {{ {body} }}"
    )
    arrays = {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in SHAPES.items()
        if name in body
    }
    return ir.from_onnx_text(text, initializers=[ir.tensor(a, name=n) for n, a in arrays.items()])


def quantize(model: ir.Model, samples: type, *shape: int, **options: Any) -> Result:
    x = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    return InsertQDQ(where="pays", **options).rewrite(model, Context(data=samples({"x": x})))


@pytest.mark.parametrize(
    ("body", "channels", "left"),
    [
        ("y = Conv (x, thin)", 8, 0),
        ("y = Conv (x, wide)", 128, 1),
        (
            "h = Conv (x, thin)  k = Erf (h)  l = Conv (k, in_)  o = Conv (l, wide)  y = Erf (o)",
            8,
            2,
        ),
        ("y = Conv <group = 128, pads = [1,1,1,1]> (x, each)", 128, 0),
    ],
)
def test_what_has_little_to_compute_stays_in_float(
    body: str, channels: int, left: int, samples: type
) -> None:
    model = build(body, channels)

    result = quantize(model, samples, channels, 28, 28)

    assert len(result.rewritten) == left
    assert all(reason == REASON for reason in result.declined.values())
    assert len(result.declined) == sum(node.op_type == "Conv" for node in model.graph) - left


def test_a_depthwise_layer_at_the_end_goes_and_one_between_stays(samples: type) -> None:
    depthwise = "Conv <group = 128, pads = [1,1,1,1]>"
    body = f"h = Conv (x, wide)  k = {depthwise} (h, each)  l = Conv (k, wide)  "
    body += f"y = {depthwise} (l, each)"
    model = build(body, 128)

    result = quantize(model, samples, 128, 28, 28)

    assert result.rewritten == ["Conv -> h", "Conv -> k", "Conv -> l"]
    assert result.declined == {"Conv -> y": REASON}


def test_products_of_matrices_pay(samples: type) -> None:
    model = build("y = MatMul (x, m)", 512, "b,r,{c}")

    assert quantize(model, samples, 16, 512).rewritten == ["MatMul -> y"]


def test_where_sizes_are_not_known_all_is_quantized(samples: type) -> None:
    body = "s = NonZero (x)  t = Cast <to = 1> (s)  h = Transpose (t)  y = MatMul (h, q)"
    model = build(body, 4, "b,r")
    model.graph.initializers.add(
        ir.Value(name="q", const_value=ir.tensor(np.ones((2, 2), np.float32), name="q"))
    )
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name == "q":
                node.replace_input_with(index, model.graph.initializers["q"])

    assert quantize(model, samples, 8).rewritten == ["MatMul -> y"]


def test_nothing_changes_where_nothing_pays(samples: type) -> None:
    model = build("y = Conv (x, thin)", 8)
    before = ir.to_onnx_text(model)

    assert not quantize(model, samples, 8, 28, 28).modified
    assert ir.to_onnx_text(model) == before
