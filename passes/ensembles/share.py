"""Store equal initializers once, and alike ones where that is asked for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from ..base import Array
from .combine import FLOATS


def share_initializers(graph: ir.Graph, tolerance: float = 0.0) -> dict[str, int]:
    """Let every reader of an initializer of ``graph`` read the first one of the same content.

    Reads only tensors of which another has the same type and shape, one at a time and without
    copying mapped ones.

    Args:
        graph: Changed in place.
        tolerance: Floats are equal whose largest difference is at most this times the largest
            entry of the one that stays; 0 asks for equal bytes.

    Returns:
        How many initializers went away (``count``), and their size (``bytes``).
    """
    alike: dict[Hashable, list[tuple[ir.Value, ir.TensorProtocol]]] = defaultdict(list)
    for value in graph.initializers.values():
        if (tensor := value.const_value) is not None and not value.is_graph_output():
            alike[tensor.dtype, tuple(tensor.shape.dims)].append((value, tensor))
    gone = {"count": 0, "bytes": 0}
    for values in alike.values():
        if len(values) == 1:
            continue
        kept: dict[bytes, ir.Value] = {}
        close = _Close(tolerance)
        for value, tensor in values:
            original = kept.setdefault(_digest(tensor), value)
            if original is value and tolerance and tensor.dtype in FLOATS:
                original = close.first(value, tensor)
            if original is not value:
                value.replace_all_uses_with(original)
                del graph.initializers[value.name or ""]
                gone["count"] += 1
                gone["bytes"] += tensor.nbytes
    return gone


class _Close:
    """Tensors that nothing seen before is close to."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._seen: list[tuple[ir.Value, Array, float]] = []

    def first(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """What was seen first of those that ``tensor`` is close to, which may be ``value``."""
        array = tensor.numpy().astype(np.float64)
        for other, seen, bound in self._seen:
            if np.abs(array - seen).max(initial=0) <= bound:
                return other
        bound = self._tolerance * float(np.abs(array).max(initial=0))
        self._seen.append((value, array, bound))
        return value


def _digest(tensor: ir.TensorProtocol) -> bytes:
    digest = hashlib.sha256()
    if isinstance(tensor, ir.StringTensor):
        for text in tensor.string_data():
            digest.update(b"%d:%b" % (len(text), text))
    else:
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    return digest.digest()
