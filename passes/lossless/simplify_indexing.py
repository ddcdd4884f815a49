"""Fewer operators that cut tensors up and join them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import is_op, nodes_of
from .constants import drop_unused
from .indexing import Indexing
from .indexing_rules import RULES
from .movement import Places, is_settled
from .pieces import Pieces
from .scattering import write_as_concat


@dataclass(frozen=True)
class SimplifyIndexing(Pass):
    """Write ``Slice``, ``Gather``, ``Split``, ``Concat`` and ``ScatterND`` by constants shorter. ::

        Slice(Slice(x, 2:9), 1:4)  =  Slice(x, 3:6)      Slice(Slice(x, rows), columns)  in one
        Squeeze(Slice(x, 3:4))  =  Gather(x, 3)          Unsqueeze(Gather(x, 3))  =  Gather(x, [3])
        Concat(Concat(x, y), z)  =  Concat(x, y, z)      Slice(Concat(x, y))  =  Slice(y)
        Concat(x[0:3], x[3:5], y)  =  Concat(x[0:5], y)  Split(Concat(x, y))  =  x, y
        x[0:3], x[3:5]  =  Split(x)                      where that is all of x
        ScatterND(ScatterND(x, rows 0:2, u), rows 2:4, v)  =  Concat(u, v, x[4:])

    Exact whatever the sizes are: where an axis may be shorter than a slice says, or an index
    counts from the end of an axis of unknown length, the rules that would mean something else
    do not apply. Declined: ``ScatterND`` that adds or multiplies, or whose ``Concat`` would take
    more operators.
    """

    name: ClassVar[str] = "simplify-indexing"
    summary: ClassVar[str] = "merge and cancel slices, gathers, splits, concats and scatters"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Shorten whatever a rule fits, once from the first node to the last."""
        del context
        result = Result(model)
        if not any(is_op(node, *RULES, "ScatterND") for node in nodes_of(model)):
            return result
        facts = Facts(model)
        indexing = Indexing(Pieces(facts), Places(model))
        for node in nodes_of(model):
            if node.graph is None or not is_settled(node):
                continue
            if node.op_type == "ScatterND":
                why = write_as_concat(node, indexing)
                if why is None:
                    result.rewrote(node)
                elif why:
                    result.decline(node, because=why)
                continue
            for rule in RULES.get(node.op_type, ()):
                label = node.name or f"{node.op_type} -> {node.outputs[0].name}"
                if rule(indexing, node):
                    result.rewrote(label)
                    break
        drop_unused(*indexing.replaced)
        return result
