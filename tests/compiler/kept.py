"""What every exact pass has to keep of a model, checked on one model and one pipeline."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxpress.backends.serde import from_proto, to_proto
from onnxpress.backends.targets import Target
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import Pipeline
from onnxpress.compiler.records import Run
from onnxpress.compiler.structure import check_structure
from onnxpress.passes import registry
from onnxpress.passes.base import Context, Pass
from tests.compiler.answers import Expected
from tests.graphs import Case

ONNXSIM = "simplify-with-onnxsim"
"""The one exact pass that is not ours, and not always right."""


def exact_passes() -> tuple[str, ...]:
    """The names of all registered passes of ours that promise the same values."""
    found = []
    for name in registry.builtin_names():
        kind = registry.find(name)
        if issubclass(kind, Pass) and kind.contract.exact and not kind.needs_data:
            found.append(name)
    return tuple(name for name in found if name != ONNXSIM)


def loaded(case: Case) -> ir.Model:
    """A copy of the model of ``case``."""
    return from_proto(onnx.ModelProto.FromString(case.model.SerializeToString()))


def rewritten(
    model: ir.Model,
    pipeline: str | Pipeline,
    target: Target = Target("cpu"),  # noqa: B008
) -> Run:
    """What ``pipeline`` makes of ``model``; it raises where a pass fails."""
    return PassManager(pipeline, strict=True).run(model, Context(target=target))


def faults(expected: Expected, result: ir.Model) -> list[str]:
    """What is wrong with ``result``, which exact passes made of the case of ``expected``."""
    proto = to_proto(result)
    before = expected.case.model.graph
    try:
        onnx.checker.check_model(proto)
        names = [[value.name for value in values] for values in (before.input, before.output)]
        check_structure(result, *names)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model is broken
        return [f"it is not valid: {error}"]
    return [*_signature(before, proto.graph), *expected.problems(proto)]


def _signature(before: onnx.GraphProto, after: onnx.GraphProto) -> list[str]:
    """Inputs stay as they are; outputs keep name, order, type and rank, and declared sizes.

    What guards add behind them is left to ``check_structure``.
    """
    if list(before.input) != list(after.input):
        return ["the inputs are others"]
    for old, new in zip(before.output, after.output[: len(before.output)], strict=True):
        one, other = old.type.tensor_type, new.type.tensor_type
        if (old.name, one.elem_type) != (new.name, other.elem_type):
            return [f"the output {old.name} has another name or type"]
        if len(one.shape.dim) != len(other.shape.dim):
            return [f"the output {old.name} has another rank"]
        for a, b in zip(one.shape.dim, other.shape.dim, strict=True):
            value = b.dim_value == a.dim_value or not a.dim_value
            symbol = b.dim_param == a.dim_param or a.dim_param != "N"
            if not (value and symbol):
                return [f"the output {old.name} has other sizes"]
    return []
