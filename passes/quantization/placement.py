"""Where Q/DQ pairs pay, and where they do not.

What ONNX Runtime cannot fuse it runs as three operators, slower than float. So a plan holds the
operators that will be fused (:mod:`.kernels`), and no others:

- ``Conv``, ``MatMul`` and ``Gemm`` with constant weights, wherever they stand;
- what lies between two of those and has an integer kernel or only moves data, so that the numbers
  need not become float in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..errors import PassError
from ..graph import is_op, nodes_of
from .kernels import (
    INTEGER,
    MOVES_DATA,
    READS_SHAPE,
    WEIGHTED,
    Kernel,
    other_kernel,
    weighted_kernel,
)

NOT_ALL = "not all of its inputs come from integer kernels"


@dataclass
class Plan:
    """The kernels of a graph in topological order, and the tensors between them.

    ``roots`` maps each tensor that is quantized to the one whose range it is quantized by: itself,
    or what an operator that only moves data made it from.
    """

    kernels: list[Kernel] = field(default_factory=list)
    roots: dict[ir.Value, ir.Value] = field(default_factory=dict)
    declined: dict[ir.Node, str] = field(default_factory=dict)


Unwanted = Callable[[ir.Node], str]
"""Says why the user does not want a node quantized, or nothing."""


def find_plan(graph: ir.Graph, unwanted: Unwanted, unusable: Mapping[ir.Value, str]) -> Plan:
    """Choose the kernels of ``graph``.

    Args:
        graph: A main graph, topologically sorted, with inferred shapes where possible: the rank
            of a ``MatMul`` decides how ONNX Runtime treats its bias.
        unwanted: What the user excludes.
        unusable: Tensors that cannot be quantized, and why.
    """
    found = Plan()
    kernels: dict[ir.Node, Kernel] = {}
    available: set[ir.Value] = set()
    for node in graph:
        weighted = is_op(node, *WEIGHTED)
        if not weighted and not is_op(node, *INTEGER, *MOVES_DATA):
            continue
        if not weighted and not available.intersection(filter(None, node.inputs)):
            continue
        kernel = unwanted(node) or (weighted_kernel(node) if weighted else other_kernel(node))
        if isinstance(kernel, Kernel):
            kernel = _usable(kernel, unusable) or kernel
        if isinstance(kernel, Kernel) and not (weighted or available.issuperset(kernel.reads())):
            kernel = NOT_ALL
        if isinstance(kernel, str):
            found.declined[node] = kernel
        else:
            kernels[node] = kernel
            available.update(kernel.outputs)

    wanted: set[ir.Value] = set()
    for kernel in reversed(list(kernels.values())):
        if kernel.weight is None and not wanted.intersection(kernel.outputs):
            del kernels[kernel.node]
            found.declined[kernel.node] = "no integer kernel reads its output"
        else:
            wanted.update(kernel.reads())

    found.kernels = list(kernels.values())
    for kernel in found.kernels:
        for value in kernel.reads():
            found.roots.setdefault(value, value)
        if not kernel.float_output or wanted.intersection(kernel.outputs):
            source = next(kernel.reads())
            for value in kernel.outputs:
                found.roots[value] = found.roots[source] if kernel.moves_data else value
    _find_islands(graph, found, kernels)
    return found


def _find_islands(graph: ir.Graph, found: Plan, kernels: Mapping[ir.Node, Kernel]) -> None:
    """Name the operators that cut the integers in two because no kernel is there for them."""
    inside = {kernel.activation for kernel in found.kernels}
    inside |= {kernel.bias_add for kernel in found.kernels}
    for node in graph:
        if node in kernels or node in inside or node in found.declined or is_op(node, *READS_SHAPE):
            continue
        if any(v in found.roots for v in node.inputs if v) and any(
            v in found.roots for v in node.outputs
        ):
            known = is_op(node, *INTEGER, *MOVES_DATA)
            missing = f"ONNX Runtime has no integer kernel for {node.op_type}"
            found.declined[node] = NOT_ALL if known else missing


def _usable(kernel: Kernel, unusable: Mapping[ir.Value, str]) -> str:
    touched = [*kernel.reads(), *(() if kernel.float_output else kernel.outputs)]
    return next((unusable[value] for value in touched if value in unusable), "")


def matches(node: ir.Node, patterns: Iterable[str]) -> Iterator[str]:
    """The ``patterns`` (as in :mod:`fnmatch`) that name, operator or an output of ``node`` fits."""
    from fnmatch import fnmatchcase

    names = {node.name, node.op_type, *(value.name for value in node.outputs)}
    for pattern in patterns:
        if any(name and fnmatchcase(name, pattern) for name in names):
            yield pattern


def check_patterns(model: ir.Model, patterns: Sequence[str]) -> None:
    """Check that each of ``patterns`` fits something in ``model``.

    Raises:
        PassError: One fits nothing.
    """
    found = {pattern for node in nodes_of(model) for pattern in matches(node, patterns)}
    for pattern in patterns:
        if pattern not in found:
            raise PassError(
                f"no node, output or operator of the model fits {pattern!r}",
                hint="`onnxpress inspect` shows the operators; an earlier pass may have "
                "renamed or removed the node",
            )
