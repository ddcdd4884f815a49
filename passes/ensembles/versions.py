"""Bring the members of an ensemble to the same operator-set versions."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...backends.errors import ModelError, PassError
from ..opsets import raise_opset, signature, standard_version
from .members import Member

_STANDARD = frozenset({"", "ai.onnx"})


def harmonise(members: Sequence[Member], least: int) -> dict[str, int]:
    """Raise every member to the highest version of each domain that any of them uses.

    Standard operators are converted; operators of other domains have to be the same in both
    versions.

    Args:
        members: Rewritten in place.
        least: The lowest version of the standard domain that will do.

    Returns:
        The operator sets that the members use, with their versions.

    Raises:
        ModelError: A member uses an operator that cannot be raised; the message says why.
    """
    target = max([least, *(standard_version(body) for m in members for body in m.bodies)])
    versions = {"": target}
    for member in members:
        before = standard_version(member.model.graph)
        try:
            converted = raise_opset(member.model, target)
        except PassError as error:
            raise ModelError(
                f"member {member.name!r} of opset {error.message.removeprefix('opset ')}",
                hint=f"export {member.name!r} again with opset {target}, or leave it out",
            ) from error
        if before not in {0, target} or converted:
            member.details |= {"opset": [before, target], "converted": converted}
        for domain, version in _foreign(member):
            versions[domain] = max(version, versions.get(domain, version))
    for member in members:
        for domain, version in _foreign(member):
            _check_foreign(member, domain, version, versions[domain])
        for body in member.bodies:
            imports = [domain for domain in body.opset_imports if domain in versions]
            body.opset_imports.clear()
            body.opset_imports.update({domain: versions[domain] for domain in imports})
    return versions


_KNOWN = frozenset(
    {*_STANDARD, "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}
)
"""Domains whose operators ONNX Runtime brings."""


def custom_operators(members: Sequence[Member]) -> list[str]:
    """A sentence for each member with operators that somebody has to register."""
    notes = []
    for member in members:
        own = member.model.functions
        found = {
            f"{node.op_type} of {node.domain}"
            for body in member.bodies
            for node in _nodes(body)
            if node.domain not in _KNOWN and node.op_identifier() not in own
        }
        if found:
            notes.append(
                f"member {member.name!r} uses {', '.join(sorted(found))}, which has to be "
                "registered wherever the merged model runs"
            )
    return notes


def _nodes(body: ir.Graph | ir.Function) -> ir.traversal.RecursiveGraphIterator:
    return ir.traversal.RecursiveGraphIterator(body)


def _foreign(member: Member) -> set[tuple[str, int]]:
    """The domains other than the standard one that the member uses, with their versions."""
    graph = member.model.graph
    used = {(node.domain, body) for body in member.bodies for node in _nodes(body)}
    used |= {(function.domain, graph) for function in member.model.functions.values()}
    return {
        (domain, body.opset_imports.get(domain, 1))
        for domain, body in used
        if domain not in _STANDARD
    }


def _check_foreign(member: Member, domain: str, version: int, target: int) -> None:
    """Nothing converts operators of other domains: accept only those that did not change."""
    if version == target:
        return
    for node in (node for body in member.bodies for node in _nodes(body)):
        if node.domain != domain or node.op_identifier() in member.model.functions:
            continue
        before = signature(node.op_type, version, domain)
        if before is None or before != signature(node.op_type, target, domain):
            raise ModelError(
                f"member {member.name!r} uses {node.op_type} of {domain} version {version}, "
                f"another member needs version {target}, and nothing converts between them",
                hint=f"export {member.name!r} again with version {target} of {domain}",
            )
