"""Runs models as they stand: ONNX Runtime with every optimization off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of

Answers = Callable[..., dict[str, Array]]


@pytest.fixture
def answers() -> Answers:
    """``answers(model, x=array)``: the outputs by name."""

    def run(model: ir.Model, **feeds: Array) -> dict[str, Array]:
        return session_of(model, SessionConfig(level="disabled", threads=1)).run(feeds)

    return run


@pytest.fixture
def build() -> Callable[..., ir.Model]:
    """``build(text, w=array)``: a model from ONNX text and its initializers."""

    def make(text: str, **arrays: Any) -> ir.Model:
        proto = onnx.parser.parse_model(text)
        for name, array in arrays.items():
            proto.graph.initializer.append(ir.to_proto(ir.tensor(np.asarray(array), name=name)))
        return ir.from_proto(proto)

    return make
