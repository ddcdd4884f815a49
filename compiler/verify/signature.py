"""Whether a rewritten model can still be called as the original is."""

from __future__ import annotations

import onnx_ir as ir

from ...backends.guess import fed_inputs
from ...passes.guards.finite import guarded


def check_signature(original: ir.Model, candidate: ir.Model) -> list[str]:
    """What of the original's signature the candidate does not keep; empty if it keeps all.

    Inputs and outputs keep name, order, type and rank. A fixed size stays as it is. An input that
    takes any size goes on to, and an output dimension named after one of an input stays dynamic.
    Inputs that have an initializer as default do not count, nor do outputs behind the original's
    that a guard added (``guard-outputs``).
    """
    free: set[str | None] = {
        dim.value
        for value in fed_inputs(original)
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value not in {None, "?"}
    }
    return [
        *_compare("input", fed_inputs(original), fed_inputs(candidate), set()),
        *_compare("output", list(original.graph.outputs), _own_outputs(original, candidate), free),
    ]


def _own_outputs(original: ir.Model, candidate: ir.Model) -> list[ir.Value]:
    """The outputs of ``candidate`` without those that guards added behind the original's."""
    outputs, count = list(candidate.graph.outputs), len(original.graph.outputs)
    return [*outputs[:count], *(value for value in outputs[count:] if not guarded(value))]


def _compare(
    what: str, before: list[ir.Value], after: list[ir.Value], free: set[str | None]
) -> list[str]:
    names, others = [value.name for value in before], [value.name for value in after]
    if names != others:
        return [f"the {what}s are {others} and were {names}"]
    problems = []
    for old, new in zip(before, after, strict=True):
        label = f"the {what} {old.name!r}"
        if old.dtype is not None and new.dtype is not None and old.dtype != new.dtype:
            problems.append(f"{label} became {new.dtype} and was {old.dtype}")
        elif (problem := _shape_problem(old.shape, new.shape, what, free)) is not None:
            problems.append(f"{label} {problem}: {new.shape}, not {old.shape}")
    return problems


def _shape_problem(
    old: ir.Shape | None, new: ir.Shape | None, what: str, free: set[str | None]
) -> str | None:
    if old is None:
        return None
    if new is None:
        return "lost its shape"
    if len(old) != len(new):
        return "changed its rank"
    for before, after in zip(old, new, strict=True):
        if not isinstance(after, int) or before == after:
            continue
        if isinstance(before, int) and before >= 0:
            return "changed its size"
        if what == "input":
            return "takes only one size now"
        if isinstance(before, ir.SymbolicDim) and before.value in free:
            return "has a fixed size now"
    return None
