"""Let onnxsim try its rules, and keep what it makes of the model if that is smaller."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from ...backends.errors import ModelError
from ...backends.serde import Owner, from_proto, graphs_of, to_proto
from ..analysis.cost import node_count, weight_bytes
from ..base import Context, Pass, Result
from ..errors import UsageError
from ..graph import nodes_of

_LARGE = 4096
"""Bytes from which onnxsim gets an initializer as an input: it copies what it gets several times,
and what it could compute with weights, other passes have computed before."""
_SIZE_LIMIT = 1 << 30
"""Bytes of other constants: onnxsim works on a protobuf, whose limit is 2 GiB."""


_NOTHING = ir.tensor(np.empty(0, np.uint8))
_FAILURES = (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError, ModelError)
"""What onnxsim raises, and what reading its result does."""


@dataclass(frozen=True)
class SimplifyWithOnnxsim(Pass):
    """Run ``onnxsim.simplify`` and take its result over, where it may run and where it helps.

    onnxsim infers shapes and applies onnxoptimizer's and its own rules until nothing changes. It
    does not say which; what the pass reports as rewritten is the whole model. Constants are left to
    ``fold-constants``, which knows what is worth storing.
    Its result is declined where it changes the inputs or outputs, has more nodes than before, or
    stores more bytes of weights than ``max_growth`` allows. It fails on some real models with
    ``If``; then the model stays as it is, and the failure is the reason in the report.

    Attributes:
        max_growth: The number of bytes that weights may grow by.
    """

    name: ClassVar[str] = "simplify-with-onnxsim"
    summary: ClassVar[str] = "let onnxsim try its own rules, and keep a result that is smaller"

    max_growth: int = 65_536

    def __post_init__(self) -> None:
        """Check the option. Raises ``UsageError``."""
        if self.max_growth < 0:
            raise UsageError(f"max_growth is {self.max_growth}, it cannot be negative")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Replace the contents of ``model`` by what onnxsim makes of it."""
        del context
        result = Result(model)
        if reason := _unfit(model):
            result.decline("the model", because=reason)
            return result
        try:
            weights = _withheld(model)
            before = _without_weights(model, weights)
            # An older version wants constants to be inputs, where reading a model took them out.
            before.ir_version = max(before.ir_version, 4)
            after = _simplified(_without_claims(before))
            if _Comparison().same_graph(before.graph, after.graph):
                return result
            simpler = from_proto(after)
            _give_back(simpler, weights)
        except _FAILURES as error:
            result.decline("the model", because=f"onnxsim fails: {_first_line(error)}")
            return result
        if reason := self._no_gain(model, simpler):
            result.decline("the model", because=reason)
        else:
            _take_over(model, simpler)
            result.rewrote("the model")
        return result

    def _no_gain(self, model: ir.Model, simpler: ir.Model) -> str:
        for what in ("inputs", "outputs"):
            if _names(model, what) != _names(simpler, what):
                return f"onnxsim changes the graph's {what}"
        before, after = node_count(model), node_count(simpler)
        if after > before:
            return f"onnxsim makes {after} nodes of {before}"
        growth = weight_bytes(simpler) - weight_bytes(model)
        if growth > self.max_growth:
            return f"onnxsim adds {growth} bytes of weights"
        return ""


def _unfit(model: ir.Model) -> str:
    """Why onnxsim cannot be given ``model``; empty if it can."""
    handed = weight_bytes(model) - sum(tensor.nbytes for tensor in _withheld(model).values())
    if handed > _SIZE_LIMIT:
        return "constants in its nodes are over 1 GiB, and onnxsim works on copies of them"
    if model.functions:
        return "it has local functions, which onnxsim would leave as they are or inline"
    if any(value.name in model.graph.initializers for value in model.graph.inputs):
        return "an input has a default, which onnxsim would take for a constant"
    for node in nodes_of(model):
        if node.domain not in {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}:
            return f"it has operators of the domain {node.domain}"
    return ""


def _withheld(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The large initializers of the main graph by name."""
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and value.const_value.nbytes >= _LARGE
        and not (value.is_graph_input() or value.is_graph_output())
    }


def _without_weights(model: ir.Model, weights: Mapping[str, ir.TensorProtocol]) -> onnx.ModelProto:
    """``model`` with inputs in place of ``weights``."""

    def replace(owner: Owner, tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
        return _NOTHING if owner.name in weights else _at_hand(owner, tensor)

    proto: onnx.ModelProto = to_proto(model, replace=replace)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in weights]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for name, tensor in weights.items():
        info = onnx.helper.make_tensor_value_info(name, tensor.dtype, tensor.shape.numpy())
        proto.graph.input.append(info)
    return proto


def _give_back(model: ir.Model, weights: Mapping[str, ir.TensorProtocol]) -> None:
    """Let the inputs of ``model`` that stand for ``weights`` be those initializers again."""
    for value in list(model.graph.inputs):
        weight = weights.get(value.name or "")
        if weight is None:
            continue
        model.graph.inputs.remove(value)
        if value.uses():
            value.const_value = weight
            model.graph.register_initializer(value)


def _at_hand(_owner: Owner, tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """The values of what lies in another file, which onnxsim would look for beside no model."""
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    [loaded] = ir.external_data.convert_tensors_from_external([tensor])
    return loaded


def _without_claims(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` with no shapes but those of its inputs: onnxsim believes what an exporter says."""
    for graph in graphs_of(proto):
        del graph.value_info[:]
    for output in proto.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
    return proto


def _simplified(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    with _silence():
        simpler, _ = onnxsim.simplify(
            proto,
            skip_constant_folding=True,
            import_custom_schemas=False,
        )
    found: onnx.ModelProto = simpler
    return found


@contextmanager
def _silence() -> Iterator[None]:
    """Send what C++ code and Python write to standard output and error nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device, not a file
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


class _Comparison:
    """Whether onnxsim changed a graph by more than what does not matter.

    That is names of nodes, types and shapes that were inferred, and order: onnxsim moves nodes that
    do not depend on each other about, in each run to another place. And which of equal small
    constants is read: ``cleanup`` merges those that gain by it.
    """

    def __init__(self) -> None:
        self._before: dict[str, onnx.TensorProto] = {}
        self._after: dict[str, onnx.TensorProto] = {}

    def same_graph(self, before: onnx.GraphProto, after: onnx.GraphProto) -> bool:
        for old, new in ((before.input, after.input), (before.output, after.output)):
            if [value.name for value in old] != [value.name for value in new]:
                return False
        self._before.update((tensor.name, tensor) for tensor in before.initializer)
        self._after.update((tensor.name, tensor) for tensor in after.initializer)
        nodes = {tuple(node.output): node for node in after.node}
        return len(before.node) == len(nodes) and all(
            self._same_node(node, nodes.get(tuple(node.output))) for node in before.node
        )

    def _same_node(self, before: onnx.NodeProto, after: onnx.NodeProto | None) -> bool:
        if after is None or (before.op_type, before.domain) != (after.op_type, after.domain):
            return False
        attributes = {attribute.name: attribute for attribute in after.attribute}
        return (
            len(before.input) == len(after.input)
            and all(map(self._same_input, before.input, after.input))
            and len(before.attribute) == len(attributes)
            and all(self._same_attribute(one, attributes.get(one.name)) for one in before.attribute)
        )

    def _same_input(self, before: str, after: str) -> bool:
        old, new = self._before.get(before), self._after.get(after)
        if old is None or new is None:
            return before == after and old is new
        return old == new or (
            (old.data_type, old.dims) == (new.data_type, new.dims)
            and ir.serde.deserialize_tensor(old).tobytes()
            == ir.serde.deserialize_tensor(new).tobytes()
        )

    def _same_attribute(
        self, before: onnx.AttributeProto, after: onnx.AttributeProto | None
    ) -> bool:
        if after is not None and before.HasField("g") and after.HasField("g"):
            return self.same_graph(before.g, after.g)
        return before == after


def _take_over(model: ir.Model, simpler: ir.Model) -> None:
    """Put the graph of ``simpler`` into ``model``, with what is declared and noted of it.

    onnxsim drops the notes, and puts names of its own for dynamic dimensions.
    """
    old, new = model.graph, simpler.graph
    new.name, new.doc_string = old.name, old.doc_string
    new.metadata_props.update(old.metadata_props)
    for before, after in zip((*old.inputs, *old.outputs), (*new.inputs, *new.outputs), strict=True):
        after.type, after.shape = before.type, before.shape
        after.doc_string = before.doc_string
        after.metadata_props.update(before.metadata_props)
        after.meta.update(before.meta)
    model.graph = new


def _names(model: ir.Model, what: str) -> list[str | None]:
    return [value.name for value in getattr(model.graph, what)]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
