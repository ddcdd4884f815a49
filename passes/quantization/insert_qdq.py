"""Quantize to 8-bit integers by Q/DQ pairs that ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...backends.errors import UsageError
from ...backends.targets import Target
from ..analysis.shapes import add_missing_shapes
from ..base import Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import is_op, nodes_of
from ..opsets import raise_opset, standard_version
from .arithmetic import Range, affine
from .emit import Emitter
from .kernel_rules import ARM
from .kernels import WEIGHTED
from .observers import METHODS, Calibration, observe_ranges
from .payoff import Sizes, find_dear
from .placement import Plan, check_patterns, find_plan, matches
from .saturation import can_saturate

OPSET = 13
"""The first opset whose ``DequantizeLinear`` takes one scale per channel."""


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
      alone, ``u8u8`` never saturates and is slower.
    - ``method``: how the range of an activation follows from the samples: ``minmax`` from its
      least to its greatest value, ``moving-average`` of those of batches, ``percentile`` without
      the rarest values, ``entropy`` nearest in distribution, ``mse`` with the least squared error.
    - ``percent``: how much of the values ``percentile`` keeps.
    - ``symmetric``: ranges of both signs that reach as far below zero as above it.
    - ``ranges``: a file that keeps the ranges found; a later run on the same model and options
      reads them from there.
    - ``samples``: how many samples to read at most; 0 for all.
    - ``saturation``: CPUs without VNNI add neighbouring products in 16 bits, which overflow
      silently. ``avoid`` finds the output channels that can, and rounds and scales their weights so
      that no pair does, no further than that takes; ``ignore`` keeps the full range; ``auto``
      avoids it unless the target's CPU is known to have VNNI, AMX or Arm's dot products.
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
    ranges: str = ""
    samples: int = 512
    saturation: str = "auto"
    where: str = "everywhere"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, choices in (
            ("scheme", ("int8",)),
            ("types", ("u8s8", "u8u8", "s8s8")),
            ("method", METHODS),
            ("saturation", ("auto", "avoid", "ignore")),
            ("where", ("everywhere", "pays")),
        ):
            if getattr(self, option) not in choices:
                raise UsageError(
                    f"insert-qdq has no {option} {getattr(self, option)!r}",
                    hint=f"{option} is one of {', '.join(choices)}",
                )
        self._calibration()
        if self.samples < 0:
            raise UsageError(f"insert-qdq cannot read {self.samples} samples")

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Quantize the main graph of ``model``.

        Raises:
            PassError: The target has no integer kernels, there is no data, the opset cannot be
                raised, or an option names a node that is not there.
            DataError: The samples do not fit the model, or make it infinite or NaN.
            BackendError: The model does not run.
        """
        result = Result(model)
        if context.target.name == "cuda":
            raise PassError(
                "ONNX Runtime's CUDA provider has no kernels for 8-bit Q/DQ models; they would "
                "run slower than in float",
                hint="quantize for the target cpu",
            )
        if (
            self.types == "s8s8"
            and context.target.name == "cpu"
            and not context.target.features & ARM
        ):
            raise PassError(
                "signed activations have kernels on Arm alone; on x86 few of them would fuse",
                hint="take u8s8, or quantize for the target cpu:aarch64",
            )
        if context.data is None:
            raise PassError("insert-qdq needs calibration samples", hint="give some with --data")
        check_patterns(model, (*self.include, *self.exclude))
        _decline_hidden(model, result)

        plan = find_plan(model.graph, self._unwanted, {})
        before = standard_version(model.graph)
        if plan.kernels and before < OPSET:
            raise_opset(model, OPSET)
            result.modified = True
            result.details["opset"] = [before, OPSET]
        if plan.kernels:
            add_missing_shapes(model)
            plan = find_plan(model.graph, self._unwanted, {})
            names = [value.name for value in plan.roots if value.name]
            observed = observe_ranges(
                model, names, context, context.data, self.samples, self._calibration()
            )
            ranges = {value: observed.ranges[value.name or ""] for value in plan.roots}
            plan = self._what_pays(model, context, _unusable(ranges))
            result.details["samples"] = observed.samples
            self._write(model, context, plan, ranges, result)
        for node, reason in plan.declined.items():
            result.decline(node, because=reason)
        return result

    def _write(
        self,
        model: ir.Model,
        context: Context,
        plan: Plan,
        ranges: dict[ir.Value, Range],
        result: Result,
    ) -> None:
        signed = self.types == "s8s8"
        affines = {root: affine(ranges[root], signed=signed) for root in plan.roots.values()}
        result.details["ranges"] = {
            root.name: [ranges[root].low, ranges[root].high] for root in affines
        }
        result.details["kernels"] = dict(Counter(kernel.node.op_type for kernel in plan.kernels))
        for kernel in plan.kernels:
            result.rewrote(kernel.node)
        emitter = Emitter(
            model, affines, self._avoids_saturation(context.target), self.types == "u8u8"
        )
        emitter.write(plan)
        result.details["channels"] = emitter.channels
        result.details["channels_kept_from_saturating"] = emitter.shrunk

    def _what_pays(self, model: ir.Model, context: Context, unusable: dict[ir.Value, str]) -> Plan:
        """The plan without what does not pay, found again while there is any."""
        plan = find_plan(model.graph, self._unwanted, unusable)
        if self.where == "everywhere":
            return plan
        sizes = Sizes.of(model, _sizes_of_samples(model, context))
        dear: dict[ir.Node, str] = {}

        def unwanted(node: ir.Node) -> str:
            return self._unwanted(node) or dear.get(node, "")

        while found := find_dear(plan, sizes):
            dear.update(found)
            plan = find_plan(model.graph, unwanted, unusable)
        return plan

    def _calibration(self) -> Calibration:
        return Calibration(self.method, self.percent, self.symmetric, self.ranges)

    def _avoids_saturation(self, target: Target) -> bool:
        if self.types == "u8u8":
            return False
        if self.saturation == "auto":
            return can_saturate(target)
        return self.saturation == "avoid"

    def _unwanted(self, node: ir.Node) -> str:
        if any(matches(node, self.exclude)):
            return "it is excluded"
        if self.include and is_op(node, *WEIGHTED) and not any(matches(node, self.include)):
            return "it is not included"
        return ""


def _unusable(ranges: dict[ir.Value, Range]) -> dict[ir.Value, str]:
    return {
        value: f"the tensor {value.name!r} is zero in every sample"
        if seen.low <= seen.high
        else f"the tensor {value.name!r} is empty in every sample"
        for value, seen in ranges.items()
        if seen.dead
    }


def _sizes_of_samples(model: ir.Model, context: Context) -> dict[str, int]:
    """The dynamic sizes of the first sample, by name; those that the user gave go before."""
    sizes: dict[str, int] = {}
    feeds = next(iter(context.data.batches(1)), {}) if context.data is not None else {}
    for value in model.graph.inputs:
        array = feeds.get(value.name or "")
        if array is None or value.shape is None or len(value.shape) != array.ndim:
            continue
        for dim, size in zip(value.shape, array.shape, strict=True):
            if isinstance(dim, ir.SymbolicDim) and dim.value:
                sizes[str(dim.value)] = size
    return sizes | context.dims


def _decline_hidden(model: ir.Model, result: Result) -> None:
    """Give the reason for what stands in subgraphs and functions, where calibration cannot see."""
    for node in nodes_of(model):
        if is_op(node, *WEIGHTED) and node.graph is not model.graph:
            where = "a function" if isinstance(node.graph, ir.Function) else "a subgraph"
            result.decline(node, because=f"it stands in {where}, where calibration cannot see")
