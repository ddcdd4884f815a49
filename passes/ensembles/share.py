"""Store equal initializers once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir


def share_initializers(graph: ir.Graph) -> dict[str, int]:
    """Let every reader of an initializer of ``graph`` read the first one of the same content.

    Reads only tensors of which another has the same type and shape, one at a time and without
    copying mapped ones.

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
        for value, tensor in values:
            original = kept.setdefault(_digest(tensor), value)
            if original is not value:
                value.replace_all_uses_with(original)
                del graph.initializers[value.name or ""]
                gone["count"] += 1
                gone["bytes"] += tensor.nbytes
    return gone


def _digest(tensor: ir.TensorProtocol) -> bytes:
    digest = hashlib.sha256()
    if isinstance(tensor, ir.StringTensor):
        for text in tensor.string_data():
            digest.update(b"%d:%b" % (len(text), text))
    else:
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    return digest.digest()
