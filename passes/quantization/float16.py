"""Compute in 16-bit floats where the target is fast at it, or store weights so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ...backends.base import SessionConfig
from ...backends.errors import UsageError
from ..analysis.shapes import add_missing_shapes
from ..base import Array, Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import constant_tensor, is_op, nodes_of
from ..opsets import standard_version
from .casts import Converter, store_small
from .half_rules import Slots, slots_of
from .placement import matches

TOGETHER = 64
"""Tensors that are read at a time while looking for overflow."""


@dataclass(frozen=True)
class Float16(Pass):
    """Store floats in 16 bits, and compute in them on a GPU.

    Every operator that may run in 16 bits does, by ONNX's type constraints. The others stay in
    float, with one ``Cast`` for all readers at each border: those that ``blocked`` names or that 16
    bits are too coarse for, those whose weights would overflow or vanish, and, with data, those
    that give out or read values beyond half of the largest number of 16 bits. ``If``, ``Loop`` and
    ``Scan`` keep their inputs and outputs in float; what is inside is converted.

    On a CPU a model computes in 16 bits by casts back and forth and is slower, so that target is
    refused; ``size_only`` stores the weights in 16 bits there and computes in float, at the same
    speed: ONNX Runtime casts them once, when it loads the model.

    Options:

    - ``type``: ``float16``, or ``bfloat16`` with the range of float and 8 bits of precision.
    - ``keep_io``: leave the inputs and outputs of the model as they are.
    - ``size_only``: convert the weights alone.
    - ``blocked``: operators, or names of nodes or of their outputs, that stay in float, ``*`` for
      anything.
    - ``samples``: how many samples to read at most in search of overflow; 0 for all.
    """

    name: ClassVar[str] = "float16"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="rounds weights and activations to 16-bit floats", min_sqnr_db=20.0
    )
    summary: ClassVar[str] = "compute in 16-bit floats, or store weights so"

    type: str = "float16"
    keep_io: bool = True
    size_only: bool = False
    blocked: tuple[str, ...] = ()
    samples: int = 32

    def __post_init__(self) -> None:
        if self.type not in {"float16", "bfloat16"}:
            raise UsageError(
                f"float16 has no type {self.type!r}", hint="type is float16 or bfloat16"
            )
        if self.samples < 0:
            raise UsageError(f"float16 cannot read {self.samples} samples")

    @property
    def _kind(self) -> ir.DataType:
        return ir.DataType.FLOAT16 if self.type == "float16" else ir.DataType.BFLOAT16

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Convert ``model``, its subgraphs as well.

        Raises:
            PassError: The target is slower in 16 bits, the model has functions of its own, or
                ``blocked`` names what is not there.
            BackendError: The model does not run on the samples.
        """
        if context.target.name == "cpu" and not self.size_only:
            raise PassError(
                f"ONNX Runtime's CPU provider computes in {self.type} by casts and is slower; "
                "size_only (--size-only) stores the weights so and computes in float",
                hint="give --size-only for a smaller file, --target cuda for speed there",
            )
        self._check_patterns(model)
        result = Result(model)
        if self.size_only:
            store_small(model, self._kind, self._unfit, result)
            return result
        if model.functions:
            raise PassError(
                "the model has functions of its own, whose types depend on the caller",
                hint="inline-functions before it puts them into the graph",
            )
        add_missing_shapes(model)
        slots = self._slots(model, context, result)
        if slots:
            Converter(model, self._kind, self.keep_io, slots).convert(result)
        return result

    def _slots(self, model: ir.Model, context: Context, result: Result) -> dict[ir.Node, Slots]:
        opset = standard_version(model.graph)
        large = self._large(model, context, result)
        found: dict[ir.Node, Slots] = {}
        for node in nodes_of(model):
            values = [value for value in (*node.inputs, *node.outputs) if value is not None]
            floats = [value for value in values if _is_float(value)]
            if not floats or is_op(node, "Constant") or self._is_border(node):
                continue
            slots = slots_of(node, opset, self._kind)
            weights = [constant_tensor(value) for value in node.inputs]
            reasons = [self._unfit(one) for one in weights if one is not None]
            if any(matches(node, self.blocked)):
                result.decline(node, because="it is blocked")
            elif not all(isinstance(value.type, ir.TensorType) for value in values if value.name):
                result.decline(node, because="the type of what it reads or gives out is unknown")
            elif slots is None:
                result.decline(node, because=f"{node.op_type} does not run in {self.type}")
            elif any(reasons):
                result.decline(node, because=next(filter(None, reasons)))
            elif any(value.name in large for value in floats):
                result.decline(node, because="values beyond half of the largest number go through")
            else:
                found[node] = slots
        return found

    def _is_border(self, node: ir.Node) -> bool:
        """Whether ``node`` casts between float and 16 bits."""
        both = {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}
        return is_op(node, "Cast") and both == {ir.DataType.FLOAT, self._kind}

    def _unfit(self, tensor: ir.TensorProtocol) -> str:
        """Why a constant cannot be stored in 16 bits; empty if it can."""
        if tensor.dtype != ir.DataType.FLOAT or tensor.size == 0:
            return ""
        array = np.abs(tensor.numpy())
        finite = array[np.isfinite(array)]
        largest = float(finite.max(initial=0))
        limits = ml_dtypes.finfo(self._kind.numpy())  # type: ignore[no-untyped-call]
        if largest > float(limits.max) and largest < _MASK:
            return f"a weight of {largest:g} overflows"
        if 0 < largest < float(limits.smallest_normal):
            return "all of its weights vanish"
        return ""

    def _large(self, model: ir.Model, context: Context, result: Result) -> set[str]:
        """The tensors of the main graph that come near the end of the range on the samples."""
        if self.type == "bfloat16" or context.data is None:
            result.details["overflow"] = "weights checked"
            return set()
        names = [
            value.name
            for node in model.graph
            for value in node.outputs
            if value.name and _is_float(value) and not is_op(node, "Constant")
        ]
        most = dict.fromkeys(names, 0.0)
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            for answers in self._runs(model, some, context):
                for name in some:
                    array = np.abs(answers[name])
                    largest = float(array[array < _MASK].max(initial=0))
                    most[name] = max(most[name], largest)
        limit = float(np.finfo(np.float16).max) / 2
        large = {name for name, value in most.items() if value > limit}
        result.details["overflow"] = "weights and activations checked"
        result.details["largest"] = max(most.values(), default=0.0)
        return large

    def _runs(
        self, model: ir.Model, names: list[str], context: Context
    ) -> Iterator[dict[str, Array]]:
        wanted = [value.name or "" for value in model.graph.inputs if not value.is_initializer()]
        session = context.sessions(model, SessionConfig(), names)
        seen = 0
        for batch in context.data.batches(8) if context.data is not None else ():
            feeds = {name: np.asarray(batch[name]) for name in wanted if name in batch}
            yield session.run(feeds)
            seen += max((len(array) for array in feeds.values() if array.ndim), default=1)
            context.progress("check", seen, self.samples or None)
            if self.samples and seen >= self.samples:
                return

    def _check_patterns(self, model: ir.Model) -> None:
        found = {pattern for node in nodes_of(model) for pattern in matches(node, self.blocked)}
        for pattern in self.blocked:
            if pattern not in found:
                raise PassError(f"no node, output or operator of the model fits {pattern!r}")


_MASK = 1e30
"""Numbers from here on mean minus infinity, as masks have them: they may become infinite."""


def _is_float(value: ir.Value | None) -> bool:
    if value is None:
        return False
    tensor = constant_tensor(value)
    return (value.dtype if tensor is None else tensor.dtype) == ir.DataType.FLOAT
