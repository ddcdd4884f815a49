"""Bring the members of an ensemble to the same operator-set versions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cache

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...backends.errors import ModelError
from ..graph import subgraphs_of
from .convert import ConversionError, convert
from .members import Member, values_of

STANDARD = ""
"""The domain of ONNX's own operators."""

_ONLY_GREW = frozenset({"Constant", "Loop"})
"""Operators whose newer versions may be written in more ways, and mean the same in the old one."""


def harmonise(members: Sequence[Member], least: int) -> dict[str, int]:
    """Raise every member to the highest version of each domain that any of them uses.

    An operator whose signature is the same in both versions stays untouched: what changed is the
    range of types it takes, which only grows. The others are converted, in subgraphs and local
    functions as well; weights and everything around them stay as they are.

    Args:
        members: Rewritten in place.
        least: The lowest version of the standard domain that will do.

    Returns:
        The operator sets that the members use, with their versions.

    Raises:
        ModelError: A member uses an operator that cannot be raised; the message says why.
    """
    target = max([least, *(_version(body, STANDARD) for m in members for body in m.bodies)])
    versions = {STANDARD: target}
    for member in members:
        before = _version(member.model.graph, STANDARD)
        converted = _raise_standard(member, target)
        if before not in {0, target} or converted:
            member.details |= {"opset": [before, target], "converted": converted}
        for domain, version in _foreign(member):
            versions[domain] = max(version, versions.get(domain, version))
    for member in members:
        for domain, version in _foreign(member):
            _check_foreign(member, domain, version, versions[domain])
        for body in member.bodies:
            imports = {STANDARD, *body.opset_imports} - {"ai.onnx"}
            body.opset_imports.clear()
            body.opset_imports.update({d: versions[d] for d in imports if d in versions})
    return versions


def _version(body: ir.Graph | ir.Function, domain: str) -> int:
    if domain == STANDARD and "ai.onnx" in body.opset_imports:
        return body.opset_imports["ai.onnx"]
    return body.opset_imports.get(domain, 0)


def _nodes(body: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    return iter(ir.traversal.RecursiveGraphIterator(body))


def _is_standard(member: Member, node: ir.Node) -> bool:
    return node.domain in {STANDARD, "ai.onnx"} and (
        node.op_identifier() not in member.model.functions
    )


def _foreign(member: Member) -> set[tuple[str, int]]:
    """The domains other than the standard one that the member uses, with their versions."""
    graph = member.model.graph
    called = {(node.domain, body) for body in member.bodies for node in _nodes(body)}
    called |= {(function.domain, graph) for function in member.model.functions.values()}
    return {
        (domain, _version(body, domain) or 1)
        for domain, body in called
        if domain not in {STANDARD, "ai.onnx"}
    }


def _check_foreign(member: Member, domain: str, version: int, target: int) -> None:
    """Nothing converts operators of other domains: accept only those that did not change."""
    if version == target:
        return
    for node in (node for body in member.bodies for node in _nodes(body)):
        if node.domain != domain or node.op_identifier() in member.model.functions:
            continue
        before = _signature(node.op_type, version, domain)
        if not before or before != _signature(node.op_type, target, domain):
            raise ModelError(
                f"member {member.name!r} uses {node.op_type} of {domain} version {version}, "
                f"another member needs version {target}, and nothing converts between them",
                hint=f"export {member.name!r} again with version {target} of {domain}",
            )


@cache
def _signature(op_type: str, version: int, domain: str = STANDARD) -> Hashable:
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


def _raise_standard(member: Member, target: int) -> int:
    """Convert what changed up to version ``target``; return how many nodes that were."""
    stale: dict[int, list[ir.Node]] = {}
    for body in member.bodies:
        version = _version(body, STANDARD) or target
        for node in _nodes(body) if version < target else ():
            if _is_standard(member, node) and _changed(member, node, version, target):
                stale.setdefault(version, []).append(node)
    if stale:
        _infer_shapes(member.model)
    taken = {value.name for body in member.bodies for value in values_of(body) if value.name}
    for version, nodes in stale.items():
        try:
            convert(nodes, version, target, taken)
        except ConversionError as error:
            raise _cannot_raise(member, version, target, str(error)) from error
    return sum(map(len, stale.values()))


def _changed(member: Member, node: ir.Node, version: int, target: int) -> bool:
    before = _signature(node.op_type, version)
    if before is not None and before == _signature(node.op_type, target):
        return False
    if node.op_type in _ONLY_GREW:
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
    raise _cannot_raise(member, version, target, f"{node.op_type} {node.name!r}: {reason}")


def _cannot_raise(member: Member, version: int, target: int, reason: str) -> ModelError:
    return ModelError(
        f"member {member.name!r} cannot be raised from opset {version} to {target}: {reason}",
        hint=f"export {member.name!r} again with opset {target}, or leave it out",
    )


def _infer_shapes(model: ir.Model) -> None:
    """Fill in types and shapes that the exporter left out, where they can be inferred."""
    # On a copy: the pass takes initializers out while it works and may not put them back.
    inferred = model.clone()
    ShapeInferencePass(check_type=False, strict_mode=False)(inferred)
    for ours, theirs in zip(values_of(model.graph), values_of(inferred.graph), strict=True):
        ours.type = ours.type or theirs.type
        ours.shape = theirs.shape if ours.shape is None else ours.shape
