"""Which nodes ONNX Runtime's CUDA provider has kernels for, told from the graph alone."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, Final, TypeAlias

import onnx
import onnx_ir as ir

from ...backends import cuda_kernels
from ..graph import nodes_of
from .types import ElementTypes

Kernel: TypeAlias = tuple[int, int | None, dict[str, list[str]]]
"""First and last opset of an operator's definitions, and types by the name of the constraint."""

_NOT_PLACED: Final = frozenset({"Constant"})
"""Operators that ONNX Runtime turns into something else before it places nodes."""


def cuda_placement(model: ir.Model) -> dict[str, Any]:
    """Where the nodes of ``model`` run in a session on CUDA; JSON-ready.

    ``cuda`` counts the nodes that the provider has kernels for, ``cpu`` the others, which run on
    the CPU with transfers around them; ``fallbacks`` says of these by ``operator`` and ``reason``
    how many ``nodes`` there are. ``source`` is where the table of kernels is from. A type that
    cannot be told is taken to fit. Nodes that ONNX Runtime itself fuses, or keeps on the CPU
    because they only compute shapes, are not foreseen.
    """
    types = ElementTypes(model.opset_imports.get("", 1))
    local = {(domain, name) for domain, name, _ in model.functions}
    fine, found = 0, Counter[tuple[str, str]]()
    for node in nodes_of(model):
        if node.op_type in _NOT_PLACED or (node.domain, node.op_type) in local:
            continue
        version = node.version or model.opset_imports.get(node.domain, 1)
        reason = _reason(node, version, types)
        if reason is None:
            fine += 1
        else:
            found[_name(node), reason] += 1
    return {
        "source": cuda_kernels.SOURCE,
        "cuda": fine,
        "cpu": found.total(),
        "fallbacks": [
            {"operator": operator, "reason": reason, "nodes": count}
            for (operator, reason), count in found.most_common()
        ],
    }


def _name(node: ir.Node) -> str:
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def _reason(node: ir.Node, version: int, types: ElementTypes) -> str | None:
    """Why no kernel takes ``node``; ``None`` where one does."""
    kernels = cuda_kernels.kernels().get(_name(node), [])
    if not kernels:
        return "there is no kernel for it"
    schema = _schema(node.op_type, version, node.domain)
    since = schema.since_version if schema is not None else version
    fitting = [one for one in kernels if _covers(one, since)] if schema is not None else kernels
    if not fitting:
        return f"there is no kernel for its definition of opset {since}"
    wrong = [_clash(node, one[2], schema, types) for one in fitting]
    return None if None in wrong else wrong[0]


def _covers(kernel: Kernel, since: int) -> bool:
    """Whether ``kernel`` is for the definition of opset ``since``.

    One without a last opset is for the definition that it names and for no later one.
    """
    first, last, _ = kernel
    return first == since or (last is not None and first <= since <= last)


def _clash(
    node: ir.Node,
    allowed: dict[str, list[str]],
    schema: onnx.defs.OpSchema | None,
    types: ElementTypes,
) -> str | None:
    """The first type of an input or output that a kernel does not take."""
    if schema is None:  # an operator of ONNX Runtime: its first input decides
        known = sorted({one for names in allowed.values() for one in names})
        dtype = _dtype(node.inputs[0], types) if node.inputs else None
        return _refused(dtype, known) if allowed and dtype not in {None, *known} else None
    for values, formal in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for at, value in enumerate(values):
            parameter = formal[min(at, len(formal) - 1)]
            known = allowed.get(parameter.type_str) or allowed.get(parameter.name) or []
            dtype = _dtype(value, types)
            if known and dtype is not None and dtype not in known:
                return _refused(dtype, known)
    return None


def _refused(dtype: str | None, known: list[str]) -> str:
    return f"there is no kernel for {dtype}, only for {', '.join(known)}"


def _dtype(value: ir.Value | None, types: ElementTypes) -> str | None:
    found = types.of(value) if value is not None else None
    return None if found is None else found.name.lower()


@functools.cache
def _schema(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
