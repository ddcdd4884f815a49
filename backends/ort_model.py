"""Hands a model that is still being rewritten to ONNX Runtime, its weights mapped, not copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from .arrays import ort_value
from .base import TensorSpec
from .errors import BackendError
from .serde import to_proto

_INLINE_BYTES = 65_536
"""Weights up to this size travel inside the protobuf, where ONNX Runtime's shape inference can
read them; larger ones are handed over beside it."""

_FOLDER_ENTRY = "session.model_external_initializers_file_folder_path"


@dataclass
class Loadable:
    """A serialized model and the weights that are not in it.

    ``proto`` refers to files in ``folder`` (mapped by ONNX Runtime) and to ``weights`` by name.
    """

    proto: bytes
    weights: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def add_to(self, options: Any, *, shared: bool) -> None:
        """Tell the session ``options`` where the weights are.

        With ``shared`` ONNX Runtime computes on the very memory of the model's tensors; this
        holds only while no optimization runs, because some replace an initializer under its own
        name (layout changes transpose it) and would then read the old one. Otherwise it copies.
        """
        if self.folder is not None:
            options.add_session_config_entry(_FOLDER_ENTRY, str(self.folder))
        if self.weights:
            options.add_external_initializers(list(self.weights), list(self.weights.values()))
        if shared:
            for name, value in self.weights.items():
                options.add_initializer(name, value)


def loadable(model: ir.Model, outputs: Sequence[str] | None = None) -> Loadable:
    """``model`` as ONNX Runtime can load it; ``model`` itself is not changed.

    ``outputs`` names the values of the main graph to answer with, in that order, instead of the
    graph's own outputs; what does not lead to them is left out.

    Raises:
        BackendError: No value has one of these names, or the model cannot be serialized.
    """
    if outputs is None and not any(map(_is_large, _initializers(model))):
        return Loadable(_serialized(model))
    model = model.clone()
    if outputs is not None:
        _answer_with(model, outputs)
    ready = Loadable(b"", folder=_folder_of(_initializers(model)))
    for value in _initializers(model):
        tensor = value.const_value
        if tensor is None or not _is_large(value) or _lies_in(ready.folder, tensor):
            continue
        # ONNX Runtime takes neither a subgraph's weights nor packed ones from elsewhere, and
        # misses one that nothing reads, because it drops that while it loads.
        read = bool(value.uses()) or value.is_graph_output()
        handed = value.graph is model.graph and read and tensor.dtype.bitwidth >= 8
        if handed and value.name is not None:
            ready.weights[value.name] = ort_value(tensor)
            value.const_value = ir.ExternalTensor(
                f"{value.name}.memory",
                0,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name,
            )
        else:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    ready.proto = _serialized(model)
    return ready


def specs_of(model: ir.Model) -> list[TensorSpec]:
    """What a run of ``model`` has to be fed with, without loading it in ONNX Runtime.

    Inputs that have an initializer of the same name are defaults, not something to feed.
    """
    return [
        TensorSpec(value.name or "", _type_name(value.type), _dims(value.shape))
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    ]


def _type_name(type_: ir.TypeProtocol | None) -> str:
    if type_ is None:
        return "unknown"
    if isinstance(type_, (ir.SequenceType, ir.OptionalType)):
        kind = "seq" if isinstance(type_, ir.SequenceType) else "optional"
        inner = _type_name(type_.elem_type)
        return f"{kind}({inner if '(' in inner else f'tensor({inner})'})"
    dtype = type_.dtype
    return {ir.DataType.FLOAT: "float", ir.DataType.DOUBLE: "double"}.get(dtype, dtype.name.lower())


def _dims(shape: ir.Shape | None) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return False
    return isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > _INLINE_BYTES


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _folder_of(values: Iterable[ir.Value]) -> Path | None:
    """The folder that holds most bytes of external data: ONNX Runtime maps from one folder."""
    sizes: dict[Path, int] = {}
    for value in values:
        if isinstance(tensor := value.const_value, ir.ExternalTensor):
            folder = Path(tensor.base_dir).resolve()
            sizes[folder] = sizes.get(folder, 0) + tensor.nbytes
    return max(sizes, key=sizes.__getitem__, default=None)


def _lies_in(folder: Path | None, tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir).resolve() == folder


def _answer_with(model: ir.Model, names: Sequence[str]) -> None:
    """Make the values ``names`` the outputs of ``model``, and drop what they do not need."""
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values |= {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    wanted = list(dict.fromkeys(names))
    if missing := [name for name in wanted if name not in values]:
        raise BackendError(
            f"the model's main graph has no value {missing[0]!r}",
            hint="outputs inside If and Loop bodies and functions cannot be fetched",
        )
    graph.outputs.clear()
    graph.outputs.extend(values[name] for name in wanted)
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def _serialized(model: ir.Model) -> bytes:
    try:
        proto: onnx.ModelProto = to_proto(model)
        if any(not value.is_graph_input() for value in model.graph.initializers.values()):
            # Before version 4 ONNX Runtime wants initializers among the inputs.
            proto.ir_version = max(proto.ir_version, 4)
        serialized: bytes = proto.SerializeToString()
    except Exception as error:  # protobuf raises EncodeError or ValueError, onnx_ir SerdeError
        raise BackendError(
            f"the model cannot be serialized: {error}",
            hint="attributes and initializers of subgraphs must fit in 2 GB together",
        ) from error
    return serialized
