"""Fold inference-time batch normalization into the linear layers beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..base import Context, Pass, Result
from .affine_carriers import FLATTENING
from .affine_folder import Folder
from .affine_plan import Search
from .affine_sizes import Sizes
from .affine_steps import Chain
from .constants import resolved_constant
from .normalizations import EPSILON

_ROLES: Final = ("scale", "shift", "mean", "variance")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Take batch normalizations into the weights of the layers around them.

    At inference a normalization is ``x * scale + shift`` per channel, with
    ``scale = gamma / sqrt(variance + epsilon)`` and ``shift = beta - mean * scale``
    (https://onnx.ai/onnx/operators/onnx__BatchNormalization.html). With a layer ``W x + b``
    before it, which is always exact, and with a layer after it, exact where each output of that
    layer sees its whole kernel or where nothing is shifted::

        scale (W x + b) + shift = (scale W) x + (scale b + shift)
        W (scale x + shift) + b = (W scale) x + (b + W shift)

    Layers are ``Conv``, ``ConvTranspose``, ``Gemm`` and ``MatMul``, with a constant per-channel
    ``Add`` after them or a ``Flatten`` before the latter two. Normalizations in a row are folded
    as one; a row with no layer beside it becomes one normalization. Computed in float64 and
    rounded once, to the weight's own type.
    """

    name: ClassVar[str] = "fold-batch-norm"
    summary: ClassVar[str] = "fold batch normalization into Conv, ConvTranspose, Gemm and MatMul"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fold every normalization that can be; ``details`` tells of bytes that doubled."""
        del context
        search = Search(Sizes(model), FLATTENING, frozenset())
        return NormFolder(model, {"BatchNormalization"}, search).run()


class NormFolder(Folder):
    """Makes one normalization of a row that has to stay."""

    def stay(self, chain: Chain, because: str) -> None:
        """Make the last normalization of ``chain`` do what all of them do."""
        if len(chain.nodes) > 1:
            self.merge(chain)
        super().stay(chain, because)

    def merge(self, chain: Chain) -> None:
        """Take the others away."""
        *first, last = chain.nodes
        size = chain.affine.scale.size
        gamma = chain.affine.scale * np.sqrt(1 + last.attributes.get_float("epsilon", EPSILON))
        arrays = gamma, chain.affine.shift, np.zeros(size), np.ones(size)
        old = [resolved_constant(value) for value in last.inputs[1:5]]
        types = [array.dtype for array in old if array is not None]
        for index, (array, dtype, role) in enumerate(zip(arrays, types, _ROLES, strict=True), 1):
            self.writer.replace(last, index, f"{chain.output.name}.{role}", array.astype(dtype))
        last.replace_input_with(0, chain.source)
        self.remove(first)
        for norm in first:
            self.result.rewrote(norm)
