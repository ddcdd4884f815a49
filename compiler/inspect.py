"""The facts about a model, as ``onnxpress inspect`` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..backends.errors import DataError
from ..backends.feeds import dynamic_dims
from ..backends.serde import MAP_TYPE, to_proto
from ..passes.analysis import cost
from .model_io import files_of, finished, warnings_of


def inspect(
    model: ir.Model, path: str | Path, dims: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Describe ``model``, which was loaded from ``path``, in JSON-ready form.

    Args:
        model: The model.
        path: Where it lies.
        dims: Sizes of dynamic dimensions, for counting multiply-accumulates; others are as small
            as made-up inputs start with.

    Returns:
        ``nodes`` (main graph and subgraphs, without ``Constant``), ``parameters``, ``bytes`` (of
        all its files), ``macs`` (``None`` if shapes are unknown), ``opset`` and ``opset_imports``,
        ``ir_version``, ``producer``, ``inputs`` and ``outputs`` (each name, type and shape; a
        dimension is a number, a name or ``None``), ``dynamic`` (the names by which sizes are
        given), ``operators`` (how often each stands in it), ``functions``, ``metadata`` and
        ``warnings``.

    Raises:
        ModelError: A file of the model has gone.
    """
    weights = model.graph.initializers
    return {
        "nodes": cost.node_count(model),
        "parameters": cost.parameters(model),
        "bytes": sum(file.stat().st_size for file in files_of(path)),
        "macs": cost.macs(model, dims),
        "opset": model.opset_imports.get(""),
        "opset_imports": dict(model.opset_imports),
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
        "inputs": _described(value for value in model.graph.inputs if value.name not in weights),
        "outputs": _described(model.graph.outputs),
        "dynamic": _dynamic(model),
        "operators": cost.operators(model),
        "functions": [f"{domain}.{name}" for domain, name, _ in model.functions],
        "metadata": dict(model.metadata_props),
        "warnings": [*warnings_of(model), *_checker_says(model)],
    }


def _dynamic(model: ir.Model) -> list[str]:
    """The dynamic dimensions of the inputs, by the names that sizes are given by."""
    try:
        return [dim.name for dim in dynamic_dims(model)]
    except DataError:  # an input is no tensor
        return []


def _described(values: Iterable[ir.Value]) -> list[dict[str, Any]]:
    return [
        {
            "name": value.name,
            "type": _type_name(value),
            "shape": None
            if value.shape is None
            else [dim if isinstance(dim, int) else dim.value for dim in value.shape],
        }
        for value in values
    ]


def _type_name(value: ir.Value) -> str:
    """The type as ONNX Runtime spells it, tensors without ``tensor()``: ``float``, ``seq(…)``."""
    proto = onnx.TypeProto()
    if MAP_TYPE in value.meta:
        proto.ParseFromString(value.meta[MAP_TYPE])
    elif value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
    name = _spelled(proto)
    return name[7:-1] if name.startswith("tensor(") else name


def _spelled(proto: onnx.TypeProto) -> str:
    kind = proto.WhichOneof("value")
    if kind == "map_type":
        key = onnx.TensorProto.DataType.Name(proto.map_type.key_type).lower()
        return f"map({key},{_spelled(proto.map_type.value_type)})"
    if kind in {"sequence_type", "optional_type"}:
        inner = _spelled(getattr(proto, kind).elem_type)
        return f"{'seq' if kind == 'sequence_type' else 'optional'}({inner})"
    if kind in {"tensor_type", "sparse_tensor_type"}:
        element = onnx.TensorProto.DataType.Name(getattr(proto, kind).elem_type).lower()
        return f"{kind.removesuffix('_type')}({element})"
    return "unknown"


def _checker_says(model: ir.Model) -> list[str]:
    """What ``onnx.checker`` objects to first, which need not keep ONNX Runtime from running it."""
    proto = finished(to_proto(model, replace=lambda _, tensor: _empty(tensor)))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        return [f"not quite standard, says onnx.checker: {' '.join(str(error).split())}"]
    return []


def _empty(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """A stand-in for a large ``tensor``: loading has checked it already."""
    return ir.Tensor(np.zeros(0, np.uint8), name=tensor.name) if tensor.nbytes > 1024 else None
