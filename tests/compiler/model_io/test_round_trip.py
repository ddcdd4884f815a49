"""What is loaded and saved again is what it was."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from onnxpress.compiler.model_io import load, save

MODELS = Path(__file__).parents[3] / "benchmarks/models"


def test_a_shipped_model_survives(tmp_path: Path) -> None:
    model = load(MODELS / "mnist_resnet.onnx")

    written = save(model, tmp_path / "out.onnx")

    assert written == [tmp_path / "out.onnx"]
    assert ir.to_proto(load(written[0])) == ir.to_proto(model)
