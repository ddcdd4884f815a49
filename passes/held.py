"""Nodes that a pass is to leave alone, shown to it as operators that it does not know."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import onnx_ir as ir

from .base import label_of
from .graph import nodes_of

HELD: Final = "onnxpress.held:"
"""What stands before the domain of a node that is held."""


@contextmanager
def held(model: ir.Model, labels: Collection[str]) -> Iterator[None]:
    """While the block runs, the nodes called ``labels`` are of a domain that no pass knows.

    So any pass leaves them as they are, without having to know of it: what it does not recognise it
    does not rewrite. Labels are those of :class:`~.base.Result`.
    """
    if not labels:
        yield
        return
    for node in nodes_of(model):
        if label_of(node) in labels:
            node.domain = HELD + node.domain
    try:
        yield
    finally:
        for node in nodes_of(model):  # copies that the pass made of them as well
            node.domain = node.domain.removeprefix(HELD)


def is_standard(domain: str) -> bool:
    """Whether ``domain`` is that of ONNX's own operators, of nodes that are held as well."""
    return domain.removeprefix(HELD) in {"", "ai.onnx"}
