"""Screen what a model is fed with: no NaN, no infinity, nothing far from what it knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.data import Data
from ...backends.errors import DataError, UsageError
from ..base import Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import Names, add_initializer
from ..opsets import standard_version
from ..quantization.observers import batches_of
from .finite import LEAST_OPSET, MARK, add_check, guarded, is_floats


@dataclass(frozen=True)
class GuardInputs(Pass):
    """Keep inputs within the range of the samples, put a number for NaN, or say what came in.

    Each float input goes through ``Where(IsNaN(x), fill, x)`` and a clip to the range that the
    samples had, widened by ``margin`` of its span at both ends; that takes care of infinity as
    well. With ``clip=false``, which needs no data, the range is that of finite numbers. Inputs
    within the range pass unchanged. Inputs that a default value stands for, that are outputs
    as well, or that hold no floats are declined, and all below opset 9, which has no ``IsNaN``.

    Options:

    - ``nonfinite``: ``replace``, or ``flag`` to add a boolean output that is true where all that
      came in is finite and then to replace it, too.
    - ``clip``: clip to the range of the samples.
    - ``margin``: how far beyond that range inputs may lie, as a share of its span.
    - ``fill``: the number put for NaN; it is clipped as the others are.
    - ``output``: what to call the output that flags.
    - ``samples``: how many samples to read at most; 0 for all.
    """

    name: ClassVar[str] = "guard-inputs"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="inputs beyond the range of the samples, NaN and infinity"
    )
    summary: ClassVar[str] = "clip inputs to known ranges, replace or flag NaN and infinity"

    nonfinite: str = "replace"
    clip: bool = True
    margin: float = 0.1
    fill: float = 0.0
    output: str = "inputs_finite"
    samples: int = 512

    def __post_init__(self) -> None:
        if self.nonfinite not in {"replace", "flag"}:
            raise UsageError(
                f"guard-inputs does not know nonfinite={self.nonfinite}",
                hint="nonfinite is one of replace, flag",
            )
        if not (self.margin >= 0 and math.isfinite(self.margin)):
            raise UsageError(f"guard-inputs cannot widen ranges by {self.margin} of their span")
        if not math.isfinite(self.fill):
            raise UsageError(f"guard-inputs puts a finite number for NaN, not {self.fill}")
        if self.samples < 0:
            raise UsageError(f"guard-inputs cannot read {self.samples} samples")

    def requires_data(self) -> bool:
        """Ranges come from samples."""
        return self.clip

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Screen every float input of the main graph.

        Raises:
            PassError: ``clip`` is asked for and there is no data.
            DataError: There are no samples, or they do not fit the model.
        """
        result = Result(model)
        graph = model.graph
        chosen = [value for value in graph.inputs if self._is_mine(model, value, result)]
        if not chosen:
            return result
        ranges: Mapping[str, tuple[float, float]] = {}
        if self.clip:
            if context.data is None:
                raise PassError(
                    "guard-inputs needs samples to know their range",
                    hint="give some with --data, or guard-inputs{clip=false}",
                )
            ranges = self._ranges(model, context.data, {value.name or "" for value in chosen})
        names = Names(model)
        uses = {value: list(value.uses()) for value in chosen}
        nodes = add_check(graph, names, chosen, self.output) if self.nonfinite == "flag" else []
        for value in chosen:
            screened = self._screen(graph, names, value, ranges.get(value.name or ""))
            for node, index in uses[value]:
                node.replace_input_with(index, screened[-1].outputs[0])
            nodes += screened
            result.rewrote(value.name or "")
        if len(graph):
            graph.insert_before(graph[0], nodes)
        else:
            graph.extend(nodes)
        result.details["ranges"] = {name: list(pair) for name, pair in ranges.items()}
        return result

    def _is_mine(self, model: ir.Model, value: ir.Value, result: Result) -> bool:
        if value.name in model.graph.initializers:
            reason = "a default value stands for it"
        elif not is_floats(value):
            reason = "it is no tensor of floats"
        elif standard_version(model.graph) < LEAST_OPSET:
            reason = f"opset {LEAST_OPSET} is the first that tells NaN"
        elif value.is_graph_output():
            reason = "it is an output of the graph as well"
        else:
            return not guarded(value)  # a second time there is nothing to do
        result.decline(value.name or "", because=reason)
        return False

    def _ranges(
        self, model: ir.Model, data: Data, names: set[str]
    ) -> dict[str, tuple[float, float]]:
        """The range of each of ``names`` in finite samples, widened."""
        seen: dict[str, tuple[float, float]] = {}
        for feeds, _ in batches_of(model, data, self.samples):
            for name in names:
                finite = feeds[name][np.isfinite(feeds[name])].astype(np.float64)
                if finite.size:
                    low, high = seen.get(name, (np.inf, -np.inf))
                    seen[name] = min(low, float(finite.min())), max(high, float(finite.max()))
        if missing := names - seen.keys():
            raise DataError(f"the samples hold no finite value for the input {min(missing)!r}")
        return {
            name: (low - self.margin * (high - low), high + self.margin * (high - low))
            for name, (low, high) in seen.items()
        }

    def _screen(
        self, graph: ir.Graph, names: Names, value: ir.Value, range_: tuple[float, float] | None
    ) -> list[ir.Node]:
        """The nodes that ``value`` goes through; the last gives what is read instead of it."""
        assert value.dtype is not None  # noqa: S101 - only floats are screened
        dtype = value.dtype.numpy()
        most = float(np.finfo(dtype).max)
        low, high = range_ or (-most, most)
        numbers = (np.clip(one, -most, most).astype(dtype) for one in (self.fill, low, high))
        fill, least, largest = (
            add_initializer(graph, names.fresh(f"{value.name}.{what}"), np.array(one, dtype))
            for what, one in zip(("fill", "low", "high"), numbers, strict=True)
        )
        nan = ir.node("IsNaN", [value])
        known = ir.node("Where", [nan.outputs[0], fill, value])
        below = ir.node("Min", [known.outputs[0], largest])
        screened = ir.node("Max", [below.outputs[0], least])
        for node in (nan, known, below, screened):
            node.name = node.outputs[0].name = names.fresh(f"{value.name}.{node.op_type.lower()}")
        for node in (known, below, screened):
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        value.metadata_props[MARK] = "screened"
        return [nan, known, below, screened]
