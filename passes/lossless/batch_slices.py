"""Compute at once what a graph computes slice by slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import is_op, nodes_of
from .constants import drop_unused
from .lifting import Lifter, NotLiftedError
from .lifting_rules import RULES
from .movement import Opsets, Places, is_settled


@dataclass(frozen=True)
class BatchSlices(Pass):
    """Move operators that do the same to each slice of a tensor behind the joining of the slices.

    Exporters unroll loops over steps, heads or groups. With ``x[i]`` the slices of ``x``, cut out
    by ``Slice``, ``Split`` or ``Gather``, and ``Concat`` joining them again in their order::

        Concat(f(x[0]), f(x[1]), …)        =  f(x)
        Concat(x[0] W0 + b0, x[1] W1 + b1, …)  =  x stack(W) + stack(b)     one batched MatMul
        Concat(Conv(x[0], W0), Conv(x[1], W1), …)  =  Conv(x, concat(W), group=n)

    ``f`` is a chain, or a tree, of operators that treat the elements along that axis alike:
    elementwise ones with broadcasting, ``MatMul``, ``Gemm``, ``Conv``, reductions, ``Softmax``,
    normalizations, ``Gather``, ``Transpose``, ``Reshape``, ``Squeeze``, ``Unsqueeze``. What they
    read besides is the same for all slices, or constant. Declined: slices of several tensors or in
    another order; steps in between that something else reads.
    """

    name: ClassVar[str] = "batch-slices"
    trades: ClassVar[bool] = True
    summary: ClassVar[str] = "compute at once what is computed slice by slice, in one MatMul"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Lift every ``Concat`` that can be over what it joins."""
        del context
        result = Result(model)
        joins = [node for node in nodes_of(model) if is_op(node, "Concat") and is_settled(node)]
        if not joins:
            return result
        places = Places(model)
        lifter = Lifter(Facts(model), Opsets(model), RULES)
        replaced: list[ir.Value] = []
        for join in joins:
            members = [value for value in join.inputs if value is not None]
            if len(members) < 2 or not _alike(members, join):
                continue
            try:
                build = lifter.lift_join(join)
            except NotLiftedError as why:
                result.decline(join, because=str(why))
                continue
            result.rewrote(join)
            place = places.before(join)
            place.answer(build(place))
            replaced.append(join.outputs[0])
        drop_unused(*replaced)
        return result


def _alike(members: list[ir.Value], join: ir.Node) -> bool:
    """Whether what ``join`` reads is computed next to it, by the same operator each."""
    producers = [member.producer() for member in members]
    first = producers[0]
    return first is not None and all(
        node is not None and node.op_type == first.op_type and node.graph is join.graph
        for node in producers
    )
