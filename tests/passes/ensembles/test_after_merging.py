"""A merged model is a model like any other: quantization and pruning take it, stacked or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.data import open_data
from onnxpress.backends.ort import session_of, specs_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.layouts import FORMS
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import parse, preset
from onnxpress.passes.analysis import cost
from onnxpress.passes.base import Context
from onnxpress.passes.ensembles.merge import merge

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
m (float[n,3,12,12] x) => (float[n,4] y) {
  a = Conv <pads = [1,1,1,1]> (x, w) b = Relu (a) c = Conv <pads = [1,1,1,1]> (b, v) d = Relu (c)
  e = GlobalAveragePool (d) f = Flatten (e) y = Gemm (f, u, t)
}"""
SHAPES = {"w": (16, 3, 3, 3), "v": (16, 16, 3, 3), "u": (16, 4), "t": (4,)}


def network(seed: int) -> ir.Model:
    rng = np.random.default_rng(seed)
    return ir.from_onnx_text(
        TEXT,
        [
            ir.tensor(rng.normal(0, 0.2, shape).astype(np.float32), name=name)
            for name, shape in SHAPES.items()
        ],
    )


@pytest.mark.parametrize("form", ["", "stack-members"])
@pytest.mark.parametrize(
    ("passes", "least"),
    [
        ("insert-qdq", 25.0),
        pytest.param("prune-channels{macs=0.7}", 8.0, marks=pytest.mark.slow),
    ],
)
def test_a_merged_model_is_made_small(form: str, passes: str, least: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(64, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    merged = merge([network(seed) for seed in range(3)], names="abc").model
    target = Target("cpu")
    data = open_data(str(tmp_path / "x.npz"), specs_of(merged))
    context = Context(target=target, data=data)
    laid = PassManager(preset(1, target) + FORMS[form]).run(merged, context).model

    small = PassManager(parse(passes)).run(laid, context)

    (record,) = small.records
    assert record.modified, record
    expected = session_of(merged).run({"x": x})["y"]
    found = session_of(small.model).run({"x": x})["y"]
    noise = np.mean((found - expected) ** 2) / np.var(expected)
    assert -10 * np.log10(noise) > least
    if passes.startswith("prune"):
        assert (cost.macs(small.model, {"n": 1}) or 0) < 0.75 * (cost.macs(laid, {"n": 1}) or 1)
