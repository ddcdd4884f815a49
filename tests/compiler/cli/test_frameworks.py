"""Models in files of frameworks are exported and compiled in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.compiler.cli.runner import Command

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def keras() -> Any:
    return pytest.importorskip("tensorflow").keras


@pytest.mark.frameworks
def test_the_command_line_takes_exported_programs(
    torch: Any, onnxpress: Command, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt2"
    program = torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.ones(2, 4),))
    torch.export.save(program, path)
    done = onnxpress("optimize", path, "-o", tmp_path / "net.onnx", "--no-time", "--json")
    assert done.code == 0, done
    assert done.json["input"] == str(path)
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    done = onnxpress("optimize", tmp_path / "bad.pt2", "-o", tmp_path / "x.onnx")
    assert done.code == 3
    assert "cannot be read by torch.export.load" in done.err


def network(keras: Any) -> Any:
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers])


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["net.keras", "folder"])
def test_the_command_line_takes_keras_files(
    keras: Any, onnxpress: Command, tmp_path: Path, kind: str
) -> None:
    net, path = network(keras), tmp_path / kind
    if kind == "folder":
        net.export(path, verbose=False)
    else:
        net.save(path)
    done = onnxpress("optimize", path, "-o", tmp_path / "net.onnx", "--no-time", "--json")
    assert done.code == 0, done
    batch = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    session = ort.InferenceSession(str(tmp_path / "net.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: batch})
    np.testing.assert_allclose(found, net(batch).numpy(), atol=1e-5)
