"""What is compiled for CUDA, as far as it can be seen without a GPU: answers, and kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxpress
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import parse, preset
from onnxpress.passes.analysis.placement import cuda_placement
from onnxpress.passes.base import Context

SHIPPED = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["mnist_resnet", "mnist_cnn_0"])
def test_a_net_in_float16_answers_on_the_cpu_and_has_kernels_on_cuda(name: str) -> None:
    model = onnxpress.load(SHIPPED / "models" / f"{name}.onnx")
    target = Target("cuda")
    pipeline = preset(2, target) + parse("float16")
    layout = "nhwc" if "cnn" in name else "nchw"
    with np.load(SHIPPED / "data" / f"mnist_calibration_{layout}.npz") as data:
        feeds = {"image": data["image"][:32]}

    found = PassManager(pipeline, strict=True).run(model, Context(target=target)).model

    (expected,), (answers,) = (session_of(one).run(feeds).values() for one in (model, found))
    error = np.square(answers.astype(np.float64) - expected).sum()
    assert 10 * np.log10(np.square(expected, dtype=np.float64).sum() / error) > 45
    np.testing.assert_array_equal(answers.argmax(1), expected.argmax(1))
    assert any(value.dtype == ir.DataType.FLOAT16 for value in found.graph.initializers.values())
    assert cuda_placement(found)["fallbacks"] == []
