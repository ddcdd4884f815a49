"""Let a model say itself whether its answers are finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..base import Context, Pass, Result
from ..graph import Names
from ..opsets import standard_version
from .finite import LEAST_OPSET, add_check, guarded, is_floats


@dataclass(frozen=True)
class GuardOutputs(Pass):
    """Add an output that is true where every float output is finite.

    It is the last output, a boolean scalar, and costs one read of the answers. Whoever asks for the
    model's own outputs by name gets what it always gave. Outputs that are not float32, float64 or
    float16 tensors are not looked at. Declined below opset 9, which cannot compare every float.

    Options:

    - ``output``: what to call it.
    """

    name: ClassVar[str] = "guard-outputs"
    summary: ClassVar[str] = "add an output that says whether the answers are finite"

    output: str = "outputs_finite"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Add the output, once."""
        del context
        result = Result(model)
        graph = model.graph
        if any(guarded(value) and value.name == self.output for value in graph.outputs):
            return result
        mine = [value for value in graph.outputs if not guarded(value)]
        floats = [value for value in mine if is_floats(value)]
        for value in mine:
            if value not in floats:
                result.decline(value.name or "", because="it is no tensor of floats")
        if standard_version(model.graph) < LEAST_OPSET:
            result.decline(self.output, because=f"opset {LEAST_OPSET} is the first to tell")
        elif floats:
            graph.extend(add_check(graph, Names(model), floats, self.output))
            result.rewrote(self.output)
        return result
