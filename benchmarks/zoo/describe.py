"""Write the table of ``benchmarks/models/README.md``, everything in it read or measured.

python -m benchmarks.zoo.describe
"""

from __future__ import annotations

import math
from pathlib import Path
from string import Template

import numpy as np
import onnx
import onnxruntime as ort

from .digits import Digits, shipped_for_testing

MODELS = Path(__file__).parents[1] / "models"

NETWORKS = {
    "mnist_cnn_0": "Keras `Sequential` CNN, seed 0",
    "mnist_cnn_1": "the same, seed 1",
    "mnist_cnn_2": "the same, seed 2",
    "mnist_cnn_3": "the same, seed 3",
    "mnist_resnet": "ResNet of six basic blocks, with BatchNormalization",
    "mnist_mobilenet": "MobileNetV2-like, depthwise Conv, BatchNormalization, ReLU6",
}
"""What each shipped model is."""


def top1(path: Path, digits: Digits) -> float:
    """The share of ``digits`` that the model names rightly, in a default CPU session."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    layout = "nhwc" if session.get_inputs()[0].shape[-1] == 1 else "nchw"
    (scores,) = session.run(None, {"image": digits.pixels(layout)})
    return float(np.mean(scores.argmax(axis=1) == digits.labels))


def parameters(model: onnx.ModelProto) -> int:
    """Elements of all floating-point initializers, running statistics included."""
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of Conv, Gemm and MatMul for one image."""
    single = onnx.ModelProto.FromString(model.SerializeToString())
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True, strict_mode=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += math.prod(weights[node.input[1]]) * math.prod(shapes[node.output[0]][2:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += math.prod(weights[node.input[1]])
    return total


def shape(value: onnx.ValueInfoProto) -> str:
    """Name and shape as in ``image [batch, 28, 28, 1]``."""
    dims = value.type.tensor_type.shape.dim
    return f"`{value.name} [{', '.join(dim.dim_param or str(dim.dim_value) for dim in dims)}]`"


def row(path: Path, digits: Digits) -> str:
    """One line of the table."""
    model = onnx.load(path)
    exporter = f"{model.producer_name} {model.producer_version.split()[0]}"
    cells = (
        f"`{path.name}`",
        NETWORKS[path.stem],
        f"{parameters(model):,}",
        f"{macs(model) / 1e6:.1f} M",
        f"{path.stat().st_size / 1e3:.0f} kB",
        f"{100 * top1(path, digits):.2f}%",
        exporter.replace("tf2onnx tf2onnx", "tf2onnx"),
        str(model.opset_import[0].version),
        shape(model.graph.input[0]),
        shape(model.graph.output[0]),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    digits = shipped_for_testing()
    table = "\n".join(row(MODELS / f"{name}.onnx", digits) for name in NETWORKS)
    template = Template(Path(__file__).with_name("models_readme.md").read_text())
    (MODELS / "README.md").write_text(template.substitute(table=table))


if __name__ == "__main__":
    main()
