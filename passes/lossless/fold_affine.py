"""Fold factors and summands, per channel or for all, into the linear layers around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..base import Context, Pass, Result
from ..graph import is_op, nodes_of
from .affine import Affine
from .affine_carriers import CARRIERS
from .affine_emit import fits
from .affine_folder import Folder
from .affine_guards import fused_by_runtime, may_jump
from .affine_plan import Search
from .affine_sizes import Sizes
from .affine_steps import ARITHMETIC, Chain
from .constants import resolve, resolved_constant
from .fold_batch_norm import NormFolder

_FLOATS: Final = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
}


@dataclass(frozen=True)
class FoldAffine(Pass):
    """Take ``x * scale + shift`` with constant numbers into the layers around it.

    ``Mul``, ``Add``, ``Sub`` and ``Div`` by a constant that holds one number for all or one per
    channel, and ``BatchNormalization``, in rows as long as possible. As with a normalization, a
    layer ``W x + b`` before takes all of it, and layers behind do where each of their outputs
    sees the whole kernel or where nothing is shifted::

        scale (W x + b) + shift = (scale W) x + (scale b + shift)
        W (scale x + shift) + b = (W scale) x + (b + W shift)

    On the way to layers it passes operators that keep channels apart (``Transpose``,
    ``Reshape``, ``Concat``, ``Slice``, ``Pad`` …), means and linear interpolation, which commute
    with it; ``Relu`` and the largest of a window, which do with positive factors; sums, whose
    terms are all scaled and of which one is shifted; and products, of which one factor is scaled.
    All layers at the ends of these ways have to take it, and none may be reached twice.

    Where only factors or only summands can go, the others stay as one node::

        W (scale x + shift) = (W scale) (x + shift / scale)

    A row that cannot be folded becomes at most one ``Mul`` and one ``Add``; ``Div`` becomes ``Mul``
    and ``Sub`` becomes ``Add``, but not in front of ``Floor``, ``Cast`` and the like, which tell
    whole numbers from their neighbours. What ONNX Runtime fuses is left as it finds it: the scale
    of a normalization, GELU, a factor on a product of matrices. Half-precision factors do not pass
    sums and products, which might overflow.
    """

    name: ClassVar[str] = "fold-affine"
    summary: ClassVar[str] = "fold constant factors and summands into the layers around them"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fold what can be; ``details`` tells of bytes that doubled."""
        del context
        search = Search(Sizes(model), CARRIERS)
        folder = _AffineFolder(model, {*ARITHMETIC, "BatchNormalization"}, search)
        folder.fold_all()
        for node in nodes_of(model):
            if is_op(node, "Div", "Sub"):
                folder.respell(node)
        return folder.finish()


class _AffineFolder(NormFolder):
    """Folds all kinds of affine maps."""

    def is_left_alone(self, chain: Chain) -> bool:
        """Whether ONNX Runtime does better with ``chain`` as it is, or it is a bias already."""
        before = chain.source.producer()
        if len(chain.nodes) == 1 and is_op(chain.nodes[0], "Add") and is_op(before, "MatMul"):
            return True
        factor = chain.affine.uniform and not chain.affine.shifts
        if why := fused_by_runtime(chain.source, chain.output, factor=factor):
            self.result.decline(chain.nodes[-1], because=why)
        return bool(why)

    def fold_partly(self, chain: Chain) -> bool:
        """Only where one node cannot do all of it."""
        return not self.is_norm(chain) and super().fold_partly(chain)

    def is_norm(self, chain: Chain) -> bool:
        """Whether ``chain`` is better one normalization."""
        new = not chain.normalizations and self.maps.is_image(chain)
        return new and not may_jump(chain.output)

    def stay(self, chain: Chain, because: str) -> None:
        """Write ``chain`` with as few nodes as there can be, none of them a ``Div``."""
        if chain.normalizations:
            super().stay(chain, because)
        elif self.is_norm(chain):
            self.replace(chain, self.maps.write_norm(chain))
        elif self.can_shorten(chain):
            self.put(chain, chain.source, chain.affine)
        else:
            Folder.stay(self, chain, because)

    def can_shorten(self, chain: Chain) -> bool:
        """Whether ``chain`` has more nodes than it needs."""
        needed = int(chain.affine.scales) + int(chain.affine.shifts)
        shorter = 0 < needed < len(chain.nodes) and self.maps.can_write(chain, chain.affine)
        return shorter and not may_jump(chain.output)

    def respell(self, node: ir.Node) -> None:
        """Make ``Mul`` of ``Div`` and ``Add`` of ``Sub``, where the second input is constant."""
        source, divisor = node.inputs[0], resolve(node.inputs[1])
        constant = resolved_constant(divisor)
        if source is None or divisor is None or constant is None or not constant.size:
            return
        if (dtype := self.search.sizes.dtype(divisor)) not in _FLOATS:
            return
        factor = node.op_type == "Div" and constant.size == 1
        if fused_by_runtime(source, node.outputs[0], factor=factor) or may_jump(node.outputs[0]):
            return
        wide, divides = constant.astype(np.float64), node.op_type == "Div"
        with np.errstate(all="ignore"):
            array = np.asarray(1 / wide if divides else -wide)
        factors = array.reshape(-1) if divides else np.ones(1)
        if not np.isfinite(array).all() or not fits(Affine(factors, np.zeros(1)), dtype):
            return
        role = "scale" if divides else "shift"
        rounded = array.astype(constant.dtype)
        self.writer.replace(node, 1, f"{node.outputs[0].name}.{role}", rounded)
        node.op_type = "Mul" if divides else "Add"
        self.result.rewrote(node)
