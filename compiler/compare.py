"""How far the answers of two models are apart, output by output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from ..backends.base import Provider
from ..backends.data import Data
from ..backends.errors import BackendError, UsageError
from ..backends.feeds import Kind
from ..backends.guess import fed_inputs
from ..passes.graph import Names, graphs_of
from .verify import Verification, Verifier


@dataclass
class Comparison:
    """What a comparison of two models found.

    Attributes:
        verification: The second model, checked against the first.
        notes: How inputs and outputs were matched, where their names did not do it.
        only_first: Outputs that the second model lacks.
        only_second: Outputs that the first model lacks.
    """

    verification: Verification
    notes: list[str] = field(default_factory=list)
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all outputs that both have agree within the tolerance of their type."""
        return self.verification.status == "ok"

    @property
    def reason(self) -> str:
        """Why they are not equal, or what could not be compared although they are."""
        return self.verification.reason

    def to_json(self) -> dict[str, Any]:
        """The object that ``onnxpress compare --json`` prints."""
        checked = self.verification.to_json()
        return {
            "outputs": checked["outputs"],
            "equal": self.equal,
            "reason": self.reason,
            **{key: checked[key] for key in ("cases", "sizes", "sessions", "not_run", "noise")},
            "notes": self.notes,
            "only_first": self.only_first,
            "only_second": self.only_second,
        }


def compare(
    first: ir.Model,
    second: ir.Model,
    *,
    data: Data | None = None,
    dims: Mapping[str, int] | None = None,
    kinds: Mapping[str, str | Kind] | None = None,
    seed: int = 0,
    provider: Provider = "cpu",
) -> Comparison:
    """Run two models on the same inputs and measure how far the second is from the first.

    The first is run without ONNX Runtime's optimizations, the second without and with them.
    Inputs and outputs are matched by name; where no name fits, by position. An input or output
    of another type is cast to the first model's.

    Raises:
        UsageError: The models cannot be compared: their inputs or outputs do not match, or
            ``dims`` or ``kinds`` name what the first does not have.
        BackendError: The first model cannot be run.
        DataError: The first model does not accept the data.
    """
    result = Comparison(Verification())
    left, right = first.clone(), second.clone()
    _match_inputs(left, right, result)
    _match_outputs(left, right, result)
    verifier = Verifier(left, data=data, dims=dims, kinds=kinds, seed=seed, provider=provider)
    result.verification = verifier.run(right)
    if result.verification.status == "not-run":
        raise BackendError(result.verification.reason)
    return result


def _match_inputs(left: ir.Model, right: ir.Model, result: Comparison) -> None:
    wanted, found = fed_inputs(left), fed_inputs(right)
    if {value.name for value in wanted} == {value.name for value in found}:
        found = [next(one for one in found if one.name == value.name) for value in wanted]
    elif len(wanted) == len(found):
        result.notes.append("the inputs have different names and are matched by position")
    else:
        raise UsageError(
            f"the models take different inputs: {_names(wanted)} and {_names(found)}",
            hint="a comparison feeds both with the same arrays",
        )
    for ours, theirs in zip(wanted, found, strict=True):
        if ours.dtype is not None and theirs.dtype not in {None, ours.dtype}:
            result.notes.append(f"the input {ours.name!r} is cast to {theirs.dtype} for the second")
            _cast_input(right, theirs, ours.dtype)
    for ours, theirs in zip(wanted, found, strict=True):
        _rename(right, theirs, ours.name or "")


def _match_outputs(left: ir.Model, right: ir.Model, result: Comparison) -> None:
    ours, theirs = list(left.graph.outputs), list(right.graph.outputs)
    common = {value.name for value in ours} & {value.name for value in theirs}
    if not common and len(ours) != len(theirs):
        raise UsageError(
            f"the models have no output in common: {_names(ours)} and {_names(theirs)}"
        )
    if common:
        result.only_first = [value.name or "" for value in ours if value.name not in common]
        result.only_second = [value.name or "" for value in theirs if value.name not in common]
        ours = [value for value in ours if value.name in common]
        theirs = [next(one for one in theirs if one.name == value.name) for value in ours]
    else:
        result.notes.append("the outputs have different names and are matched by position")
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine.dtype is not None and other.dtype not in {None, mine.dtype}:
            result.notes.append(f"the output {mine.name!r} is {other.dtype} in the second")
            theirs[index] = _cast_output(right, other, mine.dtype)
    for graph, values in ((left.graph, ours), (right.graph, theirs)):
        graph.outputs.clear()
        graph.outputs.extend(values)
    for mine, other in zip(ours, theirs, strict=True):
        _rename(right, other, mine.name or "")


def _rename(model: ir.Model, value: ir.Value, name: str) -> None:
    """Call ``value`` ``name``, whatever else is called so."""
    if value.name == name:
        return
    names = Names(model)
    for graph in graphs_of(model):
        outputs = [output for node in graph for output in node.outputs]
        for other in (*graph.inputs, *graph.initializers.values(), *outputs):
            if other.name == name:
                other.name = names.fresh(f"{name}.second")
    value.name = name


def _cast_input(model: ir.Model, value: ir.Value, dtype: ir.DataType) -> None:
    """Let the input ``value`` take ``dtype``, and what reads it its old type."""
    node = ir.node("Cast", [None], {"to": value.dtype})
    cast = node.outputs[0]
    cast.name = Names(model).fresh(f"{value.name}.cast")
    cast.type, cast.shape = value.type, value.shape
    value.replace_all_uses_with(cast, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    model.graph.insert_before(model.graph[0], node)
    value.type = ir.TensorType(dtype)


def _cast_output(model: ir.Model, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    node = ir.node("Cast", [value], {"to": dtype})
    cast = node.outputs[0]
    cast.name = Names(model).fresh(f"{value.name}.cast")
    cast.type, cast.shape = ir.TensorType(dtype), value.shape
    model.graph.append(node)
    return cast


def _names(values: list[ir.Value]) -> str:
    return ", ".join(repr(value.name) for value in values) or "none"
