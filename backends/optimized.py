"""The graph that ONNX Runtime makes of a model and runs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from .base import ModelSource, SessionConfig
from .ort import session_of

_WEIGHTS = {
    "session.optimized_model_external_initializers_file_name": "weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
"""Large weights go into a file beside the graph, which is then read without them."""


def optimized_operators(model: ir.Model | ModelSource) -> Counter[str]:
    """How often each operator stands in what a default session on the CPU runs, bodies included.

    Raises:
        BackendError: ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "optimized.onnx"
        session_of(model, SessionConfig(entries=_WEIGHTS), optimized=path)
        return Counter(_operators(onnx.load(path, load_external_data=False).graph))


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _operators(attribute.g)
