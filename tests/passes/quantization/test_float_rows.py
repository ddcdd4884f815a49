"""Rows of float results: the right ones, however many layers are read at a time."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context
from onnxpress.passes.pruning.layers import Layer, layer_of
from onnxpress.passes.quantization import float_rows
from onnxpress.passes.quantization.float_rows import Batches, FloatRows

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[BATCH,4,6,6] x) => (float[BATCH,5,6,6] y) {
  a = Conv <pads = [1,1,1,1]> (x, v)
  b = Relu (a)
  c = Conv (b, w)
  d = Relu (c)
  y = Conv (d, u)
}
"""


def build(batch: str = "n") -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"v": (8, 4, 3, 3), "w": (6, 8, 1, 1), "u": (5, 6, 1, 1)}
    tensors = [
        ir.tensor(rng.normal(size=shape).astype(np.float32), name=name)
        for name, shape in shapes.items()
    ]
    return ir.from_onnx_text(TEXT.replace("BATCH", batch), tensors)


def layers_of(model: ir.Model) -> list[Layer]:
    found = [layer_of(node) for node in model.graph if node.op_type == "Conv"]
    return [one for one in found if not isinstance(one, str)]


@pytest.mark.parametrize("at_once", [1, 2, 12])
def test_rows_are_those_of_the_results(
    at_once: int, samples: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_rows, "AT_ONCE", at_once)
    model, x = build(), np.random.default_rng(1).normal(size=(40, 4, 6, 6)).astype(np.float32)
    layers, data = layers_of(model), Batches(model, samples({"x": x}), 0)
    names = [layer.node.outputs[0].name or "" for layer in layers]
    exact = session_of(model.clone(), SessionConfig(), names).run({"x": x})

    source = FloatRows(model, layers, data, Context())

    for layer, name in zip(layers, names, strict=True):
        seen = 0
        for rows, result in source.of(layer):
            count = result.shape[1] // len(rows)
            right = layer.results(exact[name][seen : seen + count], rows)
            np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4)
            seen += count
        assert seen == len(x)


@pytest.mark.parametrize(("batch", "sizes"), [("n", [16, 16, 8]), ("10", [10, 10, 10, 10])])
def test_batches_are_those_that_the_model_takes(
    batch: str, sizes: list[int], samples: type
) -> None:
    x = np.zeros((40, 4, 6, 6), np.float32)

    data = Batches(build(batch), samples({"x": x}), 0)

    assert [len(feeds["x"]) for feeds in data.batches(32)] == sizes


def test_each_image_gives_places_enough_for_its_borders(samples: type) -> None:
    model, x = build(), np.zeros((4, 4, 6, 6), np.float32)
    layers = layers_of(model)
    source: Any = FloatRows(model, layers, Batches(model, samples({"x": x}), 0), Context())

    ((rows, _),) = source.of(layers[1])

    assert len(rows) >= float_rows.PLACES
