"""Live models and files of frameworks come in through the frameworks' exporters."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import onnxpress
from onnxpress.backends.errors import ModelError, UsageError
from onnxpress.compiler import frontends
from onnxpress.compiler.model_io import save

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_framework_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fails)
    calls: list[Callable[[], object]] = [
        lambda: frontends.from_torch(None, ()),
        lambda: frontends.from_keras(None),
        lambda: frontends.from_file(Path("model.pt2")),
    ]
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.hint == "pip install 'onnxpress[frameworks]'"


def test_files_of_frameworks_are_told_by_name(tmp_path: Path) -> None:
    assert frontends.is_foreign(Path("a.pt2"))
    assert frontends.is_foreign(Path("a.keras"))
    assert not frontends.is_foreign(Path("a.onnx"))
    assert not frontends.is_foreign(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    assert frontends.is_foreign(tmp_path)


def answers(model: Any, folder: Path, *feeds: Any) -> Any:
    path = folder / "model.onnx"
    save(model, path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, feeds, strict=True)))[0]


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.frameworks
def test_a_module_becomes_a_model_of_any_batch(torch: Any, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU())
    module.train()
    model = onnxpress.from_torch(module, torch.ones(1, 4))
    assert module.training
    batch = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(answers(model, tmp_path, batch), expected, atol=1e-5)
    optimized = onnxpress.optimize(model).model
    np.testing.assert_allclose(answers(optimized, tmp_path, batch), expected, atol=1e-5)


@pytest.mark.frameworks
def test_keyword_arguments_and_fixed_sizes(torch: Any, tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, scale: Any) -> Any:
            return x * scale

    one = torch.ones(2, 3)
    model = onnxpress.from_torch(Scaled(), {"x": one, "scale": one}, batch=False)
    assert [value.name for value in model.graph.inputs] == ["x", "scale"]
    assert model.graph.inputs[0].shape == (2, 3)
    three, two = (np.full((2, 3), number, np.float32) for number in (3, 2))
    assert answers(model, tmp_path, three, two).max() == 6


@pytest.mark.frameworks
def test_what_cannot_be_exported_is_an_error(torch: Any) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="PyTorch cannot export the model"):
        onnxpress.from_torch(Branching(), torch.ones(2, 2))
    with pytest.raises(UsageError, match="an example is a tensor"):
        onnxpress.from_torch(torch.nn.Identity(), 3)


@pytest.fixture
def keras() -> Any:
    return pytest.importorskip("tensorflow").keras


def network(keras: Any) -> Any:
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers])


@pytest.mark.frameworks
def test_a_keras_model_becomes_a_model_of_any_batch(keras: Any, tmp_path: Path) -> None:
    net = network(keras)
    model = onnxpress.from_keras(net)
    batch = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    expected = net(batch).numpy()
    np.testing.assert_allclose(answers(model, tmp_path, batch), expected, atol=1e-5)


@pytest.mark.frameworks
def test_a_keras_model_that_is_not_built_is_told(keras: Any) -> None:
    with pytest.raises(ModelError, match="has no inputs yet"):
        onnxpress.from_keras(keras.Sequential([keras.layers.Dense(2)]))
