"""Quantize to 8-bit integers by Q/DQ pairs that ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import onnx_ir as ir

from ...backends.errors import UsageError
from ...backends.feeds import dynamic_dims
from ...backends.targets import Target
from ..analysis.shapes import add_missing_shapes
from ..base import Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import Names, is_op, nodes_in
from ..lossless.inline_functions import InlineFunctions
from ..opsets import raise_opset, standard_version
from .arithmetic import Range, affine, code
from .emit import Emitter
from .inside import hidden, holders_of, name_apart
from .kernel_rules import ARM
from .kernels import WEIGHTED
from .observers import METHODS, Calibration, observe_ranges
from .payoff import Sizes, find_dear
from .placement import Plan, check_patterns, find_plan, matches
from .saturation import can_saturate

OPSET = 13
"""The first opset whose ``DequantizeLinear`` takes one scale per channel."""

SIXTEEN = ("u16u8", "u16s8", "s16s8", "u16u16", "u16s16", "s16s16")
"""Types that are refused."""


@dataclass(frozen=True)
class InsertQDQ(Pass):
    """Run ``Conv``, ``MatMul`` and ``Gemm`` on 8-bit integers, and what lies between them.

    Activations become unsigned 8-bit with a zero point, weights signed 8-bit with one scale per
    output channel, biases 32-bit. A pair of ``QuantizeLinear`` and ``DequantizeLinear`` stands
    only where ONNX Runtime's CPU provider fuses it with an operator, so none of them runs by
    itself inside the integer part. A model below opset 13 is raised to it.

    Options:

    - ``scheme``: ``int8``, the one described above.
    - ``types``: of activations and weights. ``u8s8`` is what x86 runs fastest; ``s8s8`` is for Arm
      alone, ``u8u8`` never saturates and is slower. Activations of 16 bits are refused: ONNX
      Runtime's CPU provider has no kernel that multiplies or adds them.
    - ``method``: how the range of an activation follows from the samples: ``minmax`` from its
      least to its greatest value, ``moving-average`` of those of batches, ``percentile`` without
      the rarest values, ``entropy`` nearest in distribution, ``mse`` with the least squared error.
    - ``percent``: how much of the values ``percentile`` keeps.
    - ``symmetric``: ranges of both signs that reach as far below zero as above it.
    - ``powers``: scales of activations and weights are powers of two, for hardware that shifts
      instead of multiplying; less accurate.
    - ``ranges``: a file that keeps the ranges found; a later run on the same model and options
      reads them from there.
    - ``samples``: how many samples to read at most; 0 for all.
    - ``saturation``: CPUs without VNNI add neighbouring products in 16 bits, which overflow
      silently. ``avoid`` finds the output channels that can, and rounds and scales their weights so
      that no pair does, no further than that takes; ``ignore`` keeps the full range; ``auto``
      avoids it unless the target's CPU is known to have VNNI, AMX or Arm's dot products;
      ``calibrated`` avoids it for the largest activations of the samples, which may be less than
      the 255 that others could bring. That is so where a part of a tensor, one sign or a power of
      two leaves the grid wider than the samples; it needs ``minmax``.
    - ``where``: ``everywhere`` there is a kernel, or only where it ``pays``: where by an estimate
      from shapes the conversions at its borders take less time than 8 bits save.
    - ``include``, ``exclude``: names of nodes or of their outputs, or operators, ``*`` for
      anything. Only what ``include`` fits is quantized, if it is given; never what ``exclude``
      fits.
    """

    name: ClassVar[str] = "insert-qdq"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="rounds weights and activations to 8 bits", min_sqnr_db=6.0
    )
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Run Conv, MatMul and Gemm on 8-bit integers"

    scheme: str = "int8"
    types: str = "u8s8"
    method: str = "minmax"
    percent: float = 99.999
    symmetric: bool = False
    powers: bool = False
    ranges: str = ""
    samples: int = 512
    saturation: str = "auto"
    where: str = "everywhere"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.types in SIXTEEN:
            raise UsageError(
                f"{self.types}: ONNX Runtime's CPU provider has no kernels for 16-bit activations, "
                "so that every layer would run in float between conversions, slower than before",
                hint="take u8s8, and keep what 8 bits are too few for in float by exclude",
            )
        for option, choices in (
            ("scheme", ("int8",)),
            ("types", ("u8s8", "u8u8", "s8s8")),
            ("method", METHODS),
            ("saturation", ("auto", "avoid", "ignore", "calibrated")),
            ("where", ("everywhere", "pays")),
        ):
            if getattr(self, option) not in choices:
                raise UsageError(
                    f"insert-qdq has no {option} {getattr(self, option)!r}",
                    hint=f"{option} is one of {', '.join(choices)}",
                )
        self._calibration()
        if self.saturation == "calibrated" and self.method != "minmax":
            raise UsageError(
                f"saturation=calibrated needs the largest values, which {self.method} cuts off",
                hint="take method=minmax, or saturation=avoid",
            )
        if self.samples < 0:
            raise UsageError(f"insert-qdq cannot read {self.samples} samples")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Quantize the main graph of ``model`` and the bodies of ``If``, ``Loop`` and ``Scan``.

        Functions that hold something to quantize are inlined first: each call has other ranges.

        Raises:
            PassError: The target has no integer kernels, there is no data, the opset cannot be
                raised, or a pattern fits nothing.
            DataError: The samples do not fit the model.
            BackendError: The model does not run.
        """
        result = Result(model)
        self._check_target(context.target)
        if context.data is None:
            raise PassError("insert-qdq needs calibration samples", hint="give some with --data")
        graphs = _graphs(model, context, result)
        check_patterns(model, (*self.include, *self.exclude))

        plans = self._plans(graphs, {})
        before = standard_version(model.graph)
        if any(plan.kernels for plan in plans.values()) and before < OPSET:
            raise_opset(model, OPSET)
            result.modified = True
            result.details["opset"] = [before, OPSET]
        if any(plan.kernels for plan in plans.values()):
            add_missing_shapes(model)
            values = dict.fromkeys(
                value for plan in self._plans(graphs, {}).values() for value in plan.roots
            )
            names = [value.name for value in values if value.name]
            observed = observe_ranges(
                model, names, context, context.data, self.samples, self._calibration()
            )
            ranges = {value: observed.ranges[value.name or ""] for value in values}
            plans = self._what_pays(model, graphs, context, _unusable(ranges, model.graph))
            result.details["samples"] = observed.samples
            largest = {value: observed.extremes.get(value.name or "") for value in values}
            self._write(model, context, plans, ranges, largest, result)
        for plan in plans.values():
            for node, reason in plan.declined.items():
                result.decline(node, because=reason)
        return result

    def _check_target(self, target: Target) -> None:
        if target.name == "cuda":
            raise PassError(
                "ONNX Runtime's CUDA provider has no kernels for 8-bit Q/DQ models; they would "
                "run slower than in float",
                hint="quantize for the target cpu",
            )
        if self.types == "s8s8" and target.name == "cpu" and not target.features & ARM:
            raise PassError(
                "signed activations have kernels on Arm alone; on x86 few of them would fuse",
                hint="take u8s8, or quantize for the target cpu:aarch64",
            )

    def _write(
        self,
        model: ir.Model,
        context: Context,
        plans: Mapping[ir.Graph, Plan],
        ranges: Mapping[ir.Value, Range],
        extremes: Mapping[ir.Value, Range | None],
        result: Result,
    ) -> None:
        signed = self.types == "s8s8"
        roots = [root for plan in plans.values() for root in plan.roots.values()]
        affines = {root: affine(ranges[root], signed=signed, powers=self.powers) for root in roots}
        kernels = [kernel.node for plan in plans.values() for kernel in plan.kernels]
        result.details["ranges"] = {
            root.name: [ranges[root].low, ranges[root].high] for root in affines
        }
        result.details["kernels"] = dict(Counter(node.op_type for node in kernels))
        for node in kernels:
            result.rewrote(node)
        names, channels, shrunk = Names(model), 0, 0
        largest: dict[ir.Value, int] | None = None
        if self._avoids_saturation(context.target):
            largest = {}
        if largest is not None and self.saturation == "calibrated":
            pairs = (pair for plan in plans.values() for pair in plan.roots.items())
            largest = {
                value: code(max(seen.high, 0.0), affines[root])
                for value, root in pairs
                if (seen := extremes[value]) is not None
            }
        # What an outer graph gives to an inner one is replaced there when the outer one is written.
        for graph, plan in reversed(list(plans.items())):
            emitter = Emitter(graph, names, affines, largest, self.types == "u8u8", self.powers)
            emitter.write(plan)
            channels, shrunk = channels + emitter.channels, shrunk + emitter.shrunk
        result.details["channels"] = channels
        result.details["channels_kept_from_saturating"] = shrunk

    def _plans(
        self,
        graphs: Iterable[ir.Graph],
        unusable: Mapping[ir.Value, str],
        dear: Mapping[ir.Node, str] = MappingProxyType({}),
    ) -> dict[ir.Graph, Plan]:
        def unwanted(node: ir.Node) -> str:
            return self._unwanted(node) or dear.get(node, "")

        return {graph: find_plan(graph, unwanted, unusable) for graph in graphs}

    def _what_pays(
        self,
        model: ir.Model,
        graphs: list[ir.Graph],
        context: Context,
        unusable: dict[ir.Value, str],
    ) -> dict[ir.Graph, Plan]:
        """The plans without what does not pay, found again while there is any."""
        plans = self._plans(graphs, unusable)
        if self.where == "everywhere":
            return plans
        sizes = Sizes.of(model, _sizes_of_samples(model, context))
        dear: dict[ir.Node, str] = {}
        while found := {n: why for p in plans.values() for n, why in find_dear(p, sizes).items()}:
            dear.update(found)
            plans = self._plans(graphs, unusable, dear)
        return plans

    def _calibration(self) -> Calibration:
        return Calibration(self.method, self.percent, self.symmetric, self.ranges)

    def _avoids_saturation(self, target: Target) -> bool:
        if self.types == "u8u8":
            return False
        if self.saturation == "auto":
            return can_saturate(target)
        return self.saturation in {"avoid", "calibrated"}

    def _unwanted(self, node: ir.Node) -> str:
        if any(matches(node, self.exclude)):
            return "it is excluded"
        if self.include and is_op(node, *WEIGHTED) and not any(matches(node, self.include)):
            return "it is not included"
        return ""


def _unusable(ranges: dict[ir.Value, Range], main: ir.Graph) -> dict[ir.Value, str]:
    dead = {value: seen for value, seen in ranges.items() if seen.dead}
    return {value: _what_is_missing(value, seen, main) for value, seen in dead.items()}


def _what_is_missing(value: ir.Value, seen: Range, main: ir.Graph) -> str:
    if seen.low <= seen.high:
        return f"the tensor {value.name!r} is zero in every sample"
    if value.graph is main:
        return f"the tensor {value.name!r} is empty in every sample"
    return f"the tensor {value.name!r} is empty in every sample, or its graph never runs"


def _sizes_of_samples(model: ir.Model, context: Context) -> dict[str, int]:
    """The dynamic sizes of the first sample, by name; those that the user gave go before."""
    sizes: dict[str, int] = {}
    feeds = next(iter(context.data.batches(1)), {}) if context.data is not None else {}
    for dim in dynamic_dims(model):
        array = feeds.get(dim.inputs[0])
        if array is not None and array.ndim > dim.axis:
            sizes[dim.name] = array.shape[dim.axis]
    return sizes | context.dims


def _graphs(model: ir.Model, context: Context, result: Result) -> list[ir.Graph]:
    """The graphs to quantize, outer ones first; what stands elsewhere is declined.

    Functions are inlined, and names made unique, where that is needed to see values inside.
    """
    functions = model.functions.values()
    if any(is_op(node, *WEIGHTED) for function in functions for node in nodes_in(function)):
        inlined = InlineFunctions().rewrite(model, context)
        result.modified |= inlined.modified
        result.details.update(inlined.details)
    for function in model.functions.values():
        for node in nodes_in(function):
            if is_op(node, *WEIGHTED):
                result.decline(node, because="it stands in a function that cannot be inlined")
    holders = holders_of(model)
    graphs = [model.graph]
    for graph in holders:
        layers = [node for node in graph if is_op(node, *WEIGHTED)]
        if reason := hidden(graph, holders):
            for node in layers:
                result.decline(node, because=reason)
        elif layers:
            graphs.append(graph)
    if len(graphs) > 1:
        result.modified |= name_apart(model, graphs[1:])
    return graphs
