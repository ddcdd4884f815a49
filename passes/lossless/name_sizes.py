"""Tell ONNX Runtime which sizes of intermediate tensors are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import is_op, nodes_in


@dataclass(frozen=True)
class NameSizes(Pass):
    """Write down the sizes of tensors of images that are added or multiplied.

    For ``Add(Conv(a), b)`` ONNX Runtime's CPU provider lets the convolution do the sum, and stays
    in its blocked layout for ``Mul`` as well, where it can tell that both tensors have the same
    sizes. Where height and width are not fixed, it follows them from one blocked operator to the
    next and loses track at the first that is none, a squeeze-and-excitation gate for one. It then
    reshapes both tensors and the sum, each time the model runs.

    Here sizes are followed from the inputs of the model through every operator, and equal ones
    get equal names in the type of the tensors (``value_info``). Nothing that is computed changes.
    Declined where the sizes cannot be told to be the same, and for outputs of the graph, whose
    type is what users see. Only for CPUs.
    """

    name: ClassVar[str] = "name-sizes"
    summary: ClassVar[str] = "tell ONNX Runtime which sizes are the same, so that sums are fused"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Name the sizes of every operand for which that makes a difference."""
        result = Result(model)
        # Only behind blocked operators is there anything to gain.
        if context.target.name != "cpu" or not any(is_op(node, "Conv") for node in model.graph):
            return result
        facts: Facts | None = None
        for node in nodes_in(model.graph):
            if not is_op(node, "Add", "Sum", "Mul") or len(node.inputs) < 2:
                continue
            operands = [value for value in node.inputs if value is not None]
            if not all(value.producer() is not None for value in operands):
                continue
            if facts is None:
                facts = Facts(model)
                facts.follow_all()
            sizes = [facts.dims(value) for value in operands]
            if not any(map(_is_open_image, sizes)):
                continue
            if reason := _refusal(operands, sizes, facts):
                result.decline(node, because=reason)
            elif _write(operands, sizes):
                result.rewrote(node)
        return result


def _is_open_image(dims: Dims | None) -> bool:
    """Whether ``dims`` are those of images of a height or a width that is not fixed."""
    return dims is not None and len(dims) == 4 and any(isinstance(size, str) for size in dims[2:])


def _refusal(operands: list[ir.Value], sizes: list[Dims | None], facts: Facts) -> str:
    """Why the sizes of ``operands`` are not written down; empty if they are."""
    if any(dims != sizes[0] for dims in sizes):
        return "its operands are not known to have the same sizes"
    if any(facts.dtype(value) != ir.DataType.FLOAT for value in operands):
        return "only float32 runs in the blocked layout"
    if any(value.is_graph_output() for value in operands):
        return "an operand is an output of the graph"
    return ""


def _write(operands: list[ir.Value], sizes: list[Dims | None]) -> bool:
    """Give ``operands`` their sizes; returns whether one of them had others."""
    changed = False
    for value, dims in zip(operands, sizes, strict=True):
        shape = ir.Shape(dims or ())
        if value.shape != shape:
            value.shape = shape
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            changed = True
    return changed
