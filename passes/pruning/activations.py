"""What a layer has to give where a Relu or a Clip behind it cuts off what is too low or high.

Of a wanted result below the lower bound ``low``, only that it lies below is seen. For the error
that is seen, ``|clip(z) - clip(y)|``, the distance of ``z`` to the nearest number that does as well
as ``y`` is an upper bound: ``y`` itself between the bounds, beyond them whatever ``z`` is there,
else the bound. Fitting to that number for the ``z`` of the last fit, again and again, lowers the
sum of the bounds each time (majorization, as in Zhang et al. 2015, "Accelerating very deep
convolutional networks for classification and detection", who solve for the ``Relu`` by an
auxiliary variable instead).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import constant, is_op


@dataclass(frozen=True)
class Clipped:
    """Everything below ``low`` counts as ``low``, everything above ``high`` as ``high``."""

    low: float
    high: float

    def targets(self, wanted: Array, last: Array) -> Array:
        """What to fit to: ``wanted``, or ``last`` where it already does as well beyond a bound."""
        last = last.astype(wanted.dtype)
        below = np.where(wanted <= self.low, np.minimum(last, self.low), wanted)
        return np.where(wanted >= self.high, np.maximum(last, self.high), below)


def clips(y: ir.Value) -> Clipped | None:
    """What cuts off ``y`` where nothing else reads it; ``None`` if there is no such node."""
    readers = list(y.uses())
    if len(readers) != 1 or y.is_graph_output():
        return None
    node = readers[0].node
    if is_op(node, "Relu"):
        return Clipped(0.0, np.inf)
    if not is_op(node, "Clip"):
        return None
    bounds = []
    for name, index, free in (("min", 1, -np.inf), ("max", 2, np.inf)):
        given = node.inputs[index] if len(node.inputs) > index else None
        if given is None:
            bounds.append(node.attributes.get_float(name, free))
        elif (known := constant(given)) is not None:
            bounds.append(float(known))
        else:
            return None
    return Clipped(*bounds)
