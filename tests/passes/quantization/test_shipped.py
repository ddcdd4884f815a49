"""The nets that ship: int8 answers as well as float, in a default session, all on integers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.passes.base import Array, Context
from onnxpress.passes.lossless.fold_batch_norm import FoldBatchNorm
from onnxpress.passes.quantization.insert_qdq import InsertQDQ

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

KERNELS = {
    "mnist_cnn_0": {"QLinearConv": 2, "QGemm": 2},
    "mnist_resnet": {
        "QLinearConv": 15, "QLinearAdd": 6, "QLinearGlobalAveragePool": 1, "QGemm": 1,
    },
    "mnist_mobilenet": {
        "QLinearConv": 22, "QLinearAdd": 4, "QLinearGlobalAveragePool": 1, "QGemm": 1,
    },
}  # fmt: skip


def stored_bytes(model: ir.Model) -> int:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@pytest.mark.parametrize("name", KERNELS)
def test_top_1_stays_within_half_a_point(
    name: str, samples: type, run_fused: Any, fused: Any
) -> None:
    layout = "nhwc" if "cnn" in name else "nchw"
    with np.load(BENCHMARKS / f"data/mnist_calibration_{layout}.npz") as calibration:
        data = samples(dict(calibration))
    with np.load(BENCHMARKS / "data/mnist_test.npz") as test:
        images, labels = test["images"].astype(np.float32) / 255, test["labels"]
    images = images[..., None] if layout == "nhwc" else images[:, None]
    model = ir.load(BENCHMARKS / f"models/{name}.onnx")

    def top_1() -> float:
        answers: Array = run_fused(model, {"image": images})[0]
        return 100 * float((answers.argmax(axis=1) == labels).mean())

    before = top_1()
    size = stored_bytes(model)
    FoldBatchNorm().rewrite(model, Context())
    result = InsertQDQ(saturation="avoid").rewrite(model, Context(data=data))

    assert top_1() >= before - 0.5
    left = fused(model)
    assert {operator: left[operator] for operator in KERNELS[name]} == KERNELS[name]
    assert left["QuantizeLinear"] == 1
    assert left["DequantizeLinear"] == 0
    assert not {"Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm"} & set(left)
    assert result.details["samples"] == 512
    assert stored_bytes(model) < 0.45 * size
