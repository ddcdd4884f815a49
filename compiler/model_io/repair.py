"""Spellings: those of files, and the one that everything else reads."""

from __future__ import annotations

import itertools

import onnx

from ...backends.serde import graphs_of
from .check import STANDARD


def repair(proto: onnx.ModelProto) -> list[str]:
    """Bring ``proto`` into the usual form, in place, and return warnings.

    Each of the first four is what ONNX Runtime makes of it, too.

    - The standard operators' domain is the empty string, not ``ai.onnx``.
    - The version of the standard operators is given. Where it is not, ONNX Runtime takes the
      newest it knows.
    - Before IR version 4, initializers are not inputs. They had to be listed among them, but
      ONNX Runtime does not let them be fed: they are constants.
    - Dimensions are not negative. ONNX Runtime takes negative ones for unknown.
    - Nodes of one graph have names of their own, or none. ONNX Runtime refuses all others.
    """
    warnings: list[str] = []
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        for entry in imports:
            if entry.domain == "ai.onnx":
                entry.domain = ""
    if all(entry.domain for entry in proto.opset_import) and _uses_standard(proto):
        newest = onnx.defs.onnx_opset_version()
        proto.opset_import.add(domain="", version=newest)
        warnings.append(
            "the model does not say which version of the standard operators it uses; it is taken "
            f"to be the newest, {newest}, as ONNX Runtime does"
        )
    if proto.ir_version < 4:
        weights = {tensor.name for tensor in proto.graph.initializer}
        for index in reversed(range(len(proto.graph.input))):
            if proto.graph.input[index].name in weights:
                del proto.graph.input[index]
    negative = sum(_clear_negative_dims(graph) for graph in graphs_of(proto))
    if negative:
        warnings.append(f"{negative} negative dimensions are taken for unknown ones")
    if renamed := [name for graph in graphs_of(proto) for name in _make_unique(graph)]:
        warnings.append(
            f"several nodes are named {renamed[0]!r}, which ONNX Runtime refuses; "
            f"{len(renamed)} are renamed"
        )
    return warnings


def _uses_standard(proto: onnx.ModelProto) -> bool:
    return any(node.domain in STANDARD for graph in graphs_of(proto) for node in graph.node)


def _clear_negative_dims(graph: onnx.GraphProto) -> int:
    count = 0
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
                count += 1
    return count


def _make_unique(graph: onnx.GraphProto) -> list[str]:
    """Rename nodes that have the name of an earlier one, and return the names they had."""
    # Constants do not count: ONNX Runtime makes initializers of them first.
    nodes = [node for node in graph.node if node.name and node.op_type != "Constant"]
    taken = {node.name for node in nodes}
    if len(taken) == len(nodes):
        return []
    seen: set[str] = set()
    renamed: list[str] = []
    for node in nodes:
        if node.name in seen:
            renamed.append(node.name)
            numbers = itertools.count(1)
            node.name = next(n for k in numbers if (n := f"{renamed[-1]}.{k}") not in taken)
            taken.add(node.name)
        seen.add(node.name)
    return renamed


def finished(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` as files have it; it is changed.

    Initializers describe themselves, so there is nothing to repeat of them in ``value_info``;
    before IR version 4 they have to be listed among the inputs.
    """
    graph = proto.graph
    own = {tensor.name: tensor for tensor in graph.initializer}
    others = [
        info
        for info in graph.value_info
        if info.name not in own or info.doc_string or info.metadata_props
    ]
    if len(others) < len(graph.value_info):
        kept = onnx.GraphProto(value_info=others)
        del graph.value_info[:]
        graph.value_info.MergeFrom(kept.value_info)
    if proto.ir_version < 4:
        listed = {info.name for info in graph.input}
        for name, tensor in own.items():
            if name not in listed:
                info = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
                graph.input.append(info)
    return proto
