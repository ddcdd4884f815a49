"""Raise a model to a newer version of the standard operator set, in place."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache

import onnx
import onnx_ir as ir

from ..analysis.shapes import add_missing_shapes
from ..graph import Names, subgraphs_of
from .convert import convert, refusal

_STANDARD = frozenset({"", "ai.onnx"})

_ONLY_GREW = {"Cast": 6, "CastLike": 15, "Constant": 1, "Loop": 1, "Reshape": 5, "Shape": 1}
"""Operators whose newer versions may be written in more ways, and mean the same in the old one:
from which version on."""


def raise_opset(model: ir.Model, target: int) -> int:
    """Raise ``model`` and its local functions to version ``target`` of the standard operators.

    An operator whose signature is the same in both versions stays untouched: what changed is the
    range of types it takes, which only grows. The others are converted one by one, in subgraphs
    and functions as well, so that weights, metadata and everything around them stay as they are.
    What already has the version or a higher one is left alone.

    Returns:
        How many nodes were converted.

    Raises:
        PassError: A node cannot be raised; the message says which and why. The model may be left
            half raised.
    """
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    stale: dict[int, list[ir.Node]] = {}
    for body in bodies:
        version = standard_version(body) or target
        if version >= target:
            continue
        for node in ir.traversal.RecursiveGraphIterator(body):
            standard = node.domain in _STANDARD and node.op_identifier() not in model.functions
            if standard and _changed(node, version, target):
                stale.setdefault(version, []).append(node)
    if stale:
        add_missing_shapes(model)
    names = Names(model)
    for version, nodes in stale.items():
        convert(nodes, version, target, names)
    for body in bodies:
        body.opset_imports[""] = max(target, standard_version(body))
        body.opset_imports.pop("ai.onnx", None)
    return sum(map(len, stale.values()))


def standard_version(body: ir.Graph | ir.Function) -> int:
    """The version of the standard operators that ``body`` imports; 0 if it imports none."""
    return max(body.opset_imports.get(domain, 0) for domain in _STANDARD)


@cache
def signature(op_type: str, version: int, domain: str = "") -> Hashable:
    """All that a schema says except types and text; ``None`` if there is no such operator."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return (
        schema.deprecated,
        tuple((formal.option, formal.min_arity) for formal in (*schema.inputs, *schema.outputs)),
        (schema.min_input, schema.max_input, schema.min_output, schema.max_output),
        tuple(
            (name, attribute.type, attribute.required, attribute.default_value.SerializeToString())
            for name, attribute in sorted(schema.attributes.items())
        ),
    )


def _changed(node: ir.Node, version: int, target: int) -> bool:
    before = signature(node.op_type, version)
    if before is not None and before == signature(node.op_type, target):
        return False
    if version >= _ONLY_GREW.get(node.op_type, target):
        return False
    if before is None:
        reason = f"there is no such operator in opset {version}"
    elif subgraphs_of(node):
        reason = "it holds a subgraph"
    elif any(attribute.is_ref() for attribute in node.attributes.values()):
        reason = "an attribute of it is a parameter of the function around it"
    elif node.op_type == "Hardmax" and version < 13 <= target:
        reason = "it flattens its input before opset 13 and does not since"
    else:
        return True
    raise refusal(version, target, f"{node.op_type} {node.name!r}: {reason}")
