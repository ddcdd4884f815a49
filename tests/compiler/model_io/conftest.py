"""What the tests of model I/O share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

Store = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Write a model, given as protobuf, ONNX text or bytes, into the test's folder."""

    def write(model: onnx.ModelProto | str | bytes, name: str = "model.onnx") -> Path:
        if isinstance(model, str):
            model = onnx.parser.parse_model(model)
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write
