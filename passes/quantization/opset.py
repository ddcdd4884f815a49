"""Raising a model's opset, for operators that want a newer one."""

from __future__ import annotations

import onnx_ir as ir

from ..errors import PassError
from ..graph import subgraphs_of

SMALL = 1024
"""Bytes up to which a tensor may be the axes or the shape that a conversion has to read."""


def raise_opset(model: ir.Model, version: int) -> int | None:
    """Bring ``model`` to the standard opset ``version``, in place, unless it is there already.

    Uses the version converter of ``onnx``. It is written in C++ and takes no more than 2 GB, so
    that large weights stay out of what it is given.

    Returns:
        The opset that the model had, or ``None`` if nothing was to be done.

    Raises:
        PassError: The converter has no way for this model; the message says why.
    """
    before = model.opset_imports.get("", 1)
    if before >= version:
        return None
    if model.functions or any(subgraphs_of(node) for node in model.graph):
        raise PassError(
            f"the model has opset {before} and needs {version}; "
            "a model with functions or subgraphs cannot be raised",
            hint=f"export it with opset {version} or newer",
        )
    clone = model.clone()
    large = {
        name: value
        for name, value in clone.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > SMALL
    }
    for name, value in large.items():
        del clone.graph.initializers[name]
        if not value.is_graph_input():
            clone.graph.inputs.append(value)
    converted = _convert(clone, before, version)

    inputs = {value.name for value in model.graph.inputs}
    by_name = {value.name: value for value in converted.graph.inputs}
    for name, value in large.items():
        new = by_name[name]
        new.const_value = value.const_value
        converted.graph.register_initializer(new)
    converted.graph.inputs[:] = [v for v in converted.graph.inputs if v.name in inputs]
    for old, new in zip(model.graph.inputs, converted.graph.inputs, strict=True):
        new.metadata_props.update(old.metadata_props)
    converted.graph.name = model.graph.name
    converted.graph.doc_string = model.graph.doc_string
    converted.graph.metadata_props.update(model.graph.metadata_props)
    model.graph = converted.graph
    return before


def _convert(model: ir.Model, before: int, version: int) -> ir.Model:
    import onnx.version_converter
    from onnx.shape_inference import InferenceError
    from onnx.version_converter import ConvertError

    proto = ir.to_proto(model)
    try:
        return ir.from_proto(onnx.version_converter.convert_version(proto, version))
    except (ConvertError, InferenceError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise PassError(
            f"the model has opset {before} and needs {version}; raising it failed: {reason}",
            hint=f"export it with opset {version} or newer",
        ) from error
