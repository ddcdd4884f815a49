"""Which groups of a quantized model become integer kernels, as ``inspect --quantization`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from ..backends.errors import BackendError
from ..backends.optimized import optimized_operators
from ..backends.targets import Target
from ..passes.base import label_of
from ..passes.quantization.groups import Group, find_groups, integer_kernels


def inspect_quantization(model: ir.Model, target: Target) -> dict[str, Any]:
    """What becomes of each operator of ``model`` that touches integers, in JSON-ready form.

    Returns:
        ``groups``, each ``node``, ``operator``, ``kernel`` (empty where it runs in float),
        ``reason``, ``advice``, ``channels`` and ``saturating`` (output channels, and how many of
        them can overflow 16 bits on the target); ``kernels``, how often each kernel was foretold;
        ``found``, how often ONNX Runtime made each on this machine, ``null`` if it could not load
        the model; ``confirmed``, whether both agree, ``null`` likewise.
    """
    groups = find_groups(model, target)
    foretold = _counted(integer_kernels(group.kernel for group in groups))
    try:
        found = _counted(integer_kernels(optimized_operators(model).elements()))
    except BackendError:
        found = None
    return {
        "groups": [_described(group) for group in groups],
        "kernels": foretold,
        "found": found,
        "confirmed": None if found is None else found == foretold,
    }


def _counted(kernels: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kernels).items()))


def _described(group: Group) -> dict[str, Any]:
    return {
        "node": label_of(group.node),
        "operator": group.node.op_type,
        "kernel": group.kernel,
        "reason": group.reason,
        "advice": group.advice,
        "channels": group.channels,
        "saturating": group.saturating,
    }
