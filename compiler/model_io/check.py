"""What a serialized model must be before it is taken apart: whole, consistent, of a known version.

Errors are what no runtime could run, or what would be lost or misread on the way. What is merely
unusual, and what ONNX Runtime accepts although the specification does not, becomes a warning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from ...backends.errors import ModelError
from ...backends.serde import subgraphs_of

OLDEST_OPSET = 7
OLDEST_IR = 3
STANDARD = ("", "ai.onnx")
GRAPH = onnx.AttributeProto.GRAPH

_FIELDS: dict[str, tuple[str, ...]] = {
    "float_data": ("FLOAT", "COMPLEX64"),
    "double_data": ("DOUBLE", "COMPLEX128"),
    "int64_data": ("INT64",),
    "uint64_data": ("UINT64", "UINT32"),
    "string_data": ("STRING",),
}
"""The types that each repeated field of ``TensorProto`` may hold; ``int32_data`` holds the rest."""


@dataclass
class Findings:
    """What a model that can be used needs, and what is unusual about it.

    ``warnings`` are sentences. ``unsorted`` says that a node stands before one it reads from,
    ``external`` that some tensor's data is in another file; ``sparse`` counts sparse initializers.
    """

    warnings: list[str] = field(default_factory=list)
    unsorted: bool = False
    external: bool = False
    sparse: int = 0


def check_proto(proto: onnx.ModelProto, apart: Mapping[int, int] | None = None) -> Findings:
    """Check ``proto``, in time linear in its size.

    Args:
        proto: The model.
        apart: Bytes of raw data that are kept apart, by number of the main graph's initializer.

    Raises:
        ModelError: It cannot be used; the message says why and where.
    """
    findings = Findings()
    _check_model(proto, apart or {}, findings)
    return findings


def _check_model(proto: onnx.ModelProto, apart: Mapping[int, int], findings: Findings) -> None:
    if not proto.HasField("graph"):
        raise ModelError(
            "it holds no graph, so it is not an ONNX model",
            hint="it may be a tensor or a checkpoint; the model is what the exporter wrote",
        )
    _check_versions(proto)
    names = Counter((entry.domain, entry.name, entry.overload) for entry in proto.functions)
    for (_, name, _), count in names.items():
        if count > 1:
            raise ModelError(f"two local functions are named {name!r}")
    _check_recursion(proto)
    for function in proto.functions:
        where = f"the function {function.name!r}"
        for attribute in function.attribute_proto:
            _check_attribute(attribute, where, [], [], findings)
        inputs, outputs = set(function.input), function.output
        _check_nodes(function.node, inputs, outputs, where, [], [], findings)
    if not proto.graph.output:
        raise ModelError("the graph has no output, so there is nothing to compute")
    _check_graph(proto.graph, apart, [], [], findings)
    _note_oddities(proto, findings)


def _check_versions(proto: onnx.ModelProto) -> None:
    if not OLDEST_IR <= proto.ir_version <= onnx.IR_VERSION:
        newer = proto.ir_version > onnx.IR_VERSION
        raise ModelError(
            f"the model has IR version {proto.ir_version or 'none'}; "
            f"onnx {onnx.__version__} knows {OLDEST_IR} to {onnx.IR_VERSION}",
            hint="upgrade onnx and onnxruntime" if newer else "export the model again",
        )
    imports = {entry.domain: entry.version for entry in proto.opset_import}
    if not imports:
        raise ModelError(
            "the model does not say which operator sets it uses",
            hint="export it again: opset_import must not be empty",
        )
    newest = onnx.defs.onnx_opset_version()
    version = imports.get("", imports.get("ai.onnx", newest))
    if version > newest:
        raise ModelError(
            f"the model uses opset {version}; onnx {onnx.__version__} knows up to {newest}",
            hint="upgrade onnx and onnxruntime, or export with an older opset",
        )
    if version < OLDEST_OPSET:
        raise ModelError(
            f"the model uses opset {version}; the oldest supported is {OLDEST_OPSET}",
            hint="raise it with onnx.version_converter.convert_version, or export again",
        )


def _check_recursion(proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves: inlining them, as ONNX Runtime does, never ends."""
    calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for function in proto.functions:
        bodies = (function, *subgraphs_of(function.node))
        called = {(node.domain, node.op_type) for body in bodies for node in body.node}
        calls.setdefault((function.domain, function.name), set()).update(called)
    open_ = set(calls)
    while open_:
        leaves = {name for name in open_ if not calls[name] & open_}
        if not leaves:
            name, seen = min(open_), set[tuple[str, str]]()
            while name not in seen:
                seen.add(name)
                name = min(calls[name] & open_)
            raise ModelError(f"the local function {name[1]!r} calls itself")
        open_ -= leaves


def _check_graph(
    graph: onnx.GraphProto,
    apart: Mapping[int, int],
    outer: Sequence[set[str]],
    outer_done: Sequence[set[str]],
    findings: Findings,
) -> None:
    where = f"the graph {graph.name!r}" if graph.name else "the graph"
    inputs = [info.name for info in graph.input]
    initializers = [tensor.name for tensor in graph.initializer]
    initializers += [tensor.values.name for tensor in graph.sparse_initializer]
    outputs = [info.name for info in graph.output]
    _check_text(graph.name, *inputs, *initializers, *outputs)
    for what, names in (("input", inputs), ("initializer", initializers)):
        if "" in names:
            raise ModelError(f"an {what} of {where} has no name")
        if len(set(names)) < len(names):
            name = Counter(names).most_common(1)[0][0]
            raise ModelError(f"two {what}s of {where} are named {name!r}")
    for index, tensor in enumerate(graph.initializer):
        _check_tensor(tensor, apart.get(index), f"the tensor {tensor.name!r}", findings)
    findings.sparse += len(graph.sparse_initializer)
    known = {*inputs, *initializers}
    _check_nodes(graph.node, known, outputs, where, outer, outer_done, findings)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    known: set[str],
    outputs: Iterable[str],
    where: str,
    outer: Sequence[set[str]],
    outer_done: Sequence[set[str]],
    findings: Findings,
) -> None:
    """Check the body of a graph or function.

    ``outer`` are the names of the graphs around it, ``outer_done`` those that are computed by then.
    """
    names = {"", *known}
    for node in nodes:
        _check_text(node.op_type, node.domain, node.name, *node.input, *node.output)
        for name in node.output:
            if name:
                if name in names:
                    raise ModelError(f"two values of {where} are named {name!r}")
                names.add(name)
    visible, done = [names, *outer], [{"", *known}, *outer_done]
    for node in nodes:
        if not node.op_type:
            raise ModelError(f"a node of {where} has no operator: {_label(node)!r}")
        for name in node.input:
            if not any(name in scope for scope in done):
                if not any(name in scope for scope in visible):
                    raise ModelError(
                        f"{_label(node)} reads {name!r}, which nothing in {where} provides"
                    )
                findings.unsorted = True
        for attribute in node.attribute:
            _check_attribute(attribute, _label(node), visible, done, findings)
            found, wanted = len(attribute.g.output), len(node.output)
            if node.op_type == "If" and attribute.type == GRAPH and found != wanted:
                raise ModelError(
                    f"{_label(node)} has {wanted} outputs and its {attribute.name} {found}"
                )
        done[0].update(node.output)
    for name in outputs:
        if not name or not any(name in scope for scope in visible):
            raise ModelError(f"nothing in {where} computes its output {name!r}")


def _check_attribute(
    attribute: onnx.AttributeProto,
    owner: str,
    visible: Sequence[set[str]],
    done: Sequence[set[str]],
    findings: Findings,
) -> None:
    if attribute.ref_attr_name:
        return
    kind, what = attribute.type, f"in the attribute {attribute.name!r} of {owner}"
    if kind == onnx.AttributeProto.UNDEFINED:
        raise ModelError(f"the attribute {attribute.name!r} of {owner} has no type")
    if kind == onnx.AttributeProto.TENSOR:
        _check_tensor(attribute.t, None, f"the tensor {what}", findings)
    for tensor in attribute.tensors:
        _check_tensor(tensor, None, f"a tensor {what}", findings)
    if kind == onnx.AttributeProto.SPARSE_TENSORS:
        raise ModelError(f"there are sparse tensors {what}, which no standard operator has")
    if kind == GRAPH:
        _check_graph(attribute.g, {}, visible, done, findings)
    for graph in attribute.graphs:
        _check_graph(graph, {}, visible, done, findings)


def _check_text(*names: str) -> None:
    """Refuse names that are not UTF-8, which protobuf gives out as bytes."""
    try:
        "".join(names)
    except TypeError as error:
        raise ModelError("the model holds a name that is not UTF-8, so it is damaged") from error


def _label(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} {name!r}" if name else node.op_type


def _check_tensor(
    tensor: onnx.TensorProto, apart: int | None, what: str, findings: Findings
) -> None:
    """Check that ``tensor`` has as much data as its type and dims take."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise ModelError(f"{what} has the unknown element type {tensor.data_type}") from error
    dims = list(tensor.dims)
    if dtype == ir.DataType.UNDEFINED or min(dims, default=0) < 0:
        raise ModelError(f"{what} has type {dtype.name} and shape {dims}, which is no tensor")
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which no runtime reads")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        findings.external = True
        return
    count = math.prod(dims)
    if apart is not None or tensor.HasField("raw_data"):
        if dtype == ir.DataType.STRING:
            raise ModelError(f"{what} holds strings as raw data")
        found = len(tensor.raw_data) if apart is None else apart
        wanted = math.ceil(count * dtype.bitwidth / 8)
        unit = "bytes"
    else:
        held_in = next((name for name, types in _FIELDS.items() if dtype.name in types), None)
        found = len(getattr(tensor, held_in or "int32_data"))
        wanted = _entries(dtype, count)
        unit = "values"
    if found != wanted:
        raise ModelError(
            f"{what} has {found} {unit}, but shape {dims} of type {dtype.name} takes {wanted}",
            hint="the file is damaged, or was written by a faulty tool: export the model again",
        )


def _entries(dtype: ir.DataType, count: int) -> int:
    """How many entries of a repeated field ``count`` values take (``onnx.proto``)."""
    if dtype in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}:
        return 2 * count
    if dtype != ir.DataType.STRING and dtype.bitwidth in {2, 4}:
        return math.ceil(count * dtype.bitwidth / 8)
    return count


def _note_oddities(proto: onnx.ModelProto, findings: Findings) -> None:
    warn = findings.warnings.append
    if findings.unsorted:
        warn("the nodes are not in topological order; they are sorted")
    if proto.training_info:
        warn("training information is left out: it updates weights that passes may rewrite")
    if findings.sparse:
        warn(f"{findings.sparse} sparse initializers become dense")
    weights = {tensor.name for tensor in proto.graph.initializer}
    if len(weights) == len(proto.graph.initializer) and proto.ir_version >= 4:
        overridable = sum(1 for info in proto.graph.input if info.name in weights)
        if overridable:
            warn(
                f"{overridable} weights are also inputs, so that callers may replace them: "
                "nothing is folded into them"
            )
