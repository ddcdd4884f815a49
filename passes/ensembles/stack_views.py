"""How operators that only move or pick entries run on stacked values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Dims
from ..graph import constant
from .bundles import Bundle
from .stack_rules import Inputs, Rule, same_input, the_only
from .stacker import NEW, Stacked, Stacker, Unfit


def transpose(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """The branches' axis goes along with the one that it is part of."""
    stacked = stacker.untailed(the_only(inputs))
    rank = stacked.rank
    perm = list(bundle.first.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    dims = tuple(stacked.dims[at] for at in perm)
    whole = [0, *(at + 1 for at in perm)] if stacked.axis == NEW else perm
    value = stacker.op("Transpose", [stacked.value], {"perm": whole})
    axis = NEW if stacked.axis == NEW else perm.index(stacked.axis)
    return Stacked(value, stacked.count, dims, axis)


def reshape(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """What stands before the branches' axis has to stay as it is, or that axis is the last."""
    stacked = stacker.untailed(the_only(inputs))
    after = stacker.dims(bundle.first.outputs[0])
    axis, dims = stacked.axis, stacked.dims
    if axis != NEW and axis < len(after) and dims[:axis] == after[:axis]:
        size = after[axis]
        target = [0] * axis + [stacked.count * size if isinstance(size, int) else -1]
        target += [dim if isinstance(dim, int) else -1 for dim in after[axis + 1 :]]
    elif axis == stacked.rank - 1 and dims[-1:] == after[-1:] and isinstance(dims[-1], int):
        target = [*_kept(dims, after[:-1]), stacked.count * dims[-1]]
        axis = len(after) - 1
    else:
        stacked, axis = stacker.in_front(stacked), NEW
        target = [stacked.count, *_kept(dims, after)]
    if target.count(-1) > 1:
        raise Unfit("more than one size is not fixed")
    if 0 in after:
        raise Unfit("it is empty")
    return Stacked(stacker.reshape(stacked.value, target), stacked.count, after, axis)


def _kept(dims: Dims, after: Dims) -> list[int]:
    """What to reshape to: 0 for an unknown size that stays in its place, -1 for another one."""
    return [
        size if isinstance(size, int) else 0 if at < len(dims) and dims[at] == size else -1
        for at, size in enumerate(after)
    ]


def squeeze(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Other axes than the branches' go away."""
    axes = _axes(bundle.first)
    if axes is None:
        return reshape(stacker, bundle, inputs)
    stacked = stacker.untailed(the_only(inputs))
    own = sorted(axis % stacked.rank for axis in axes)
    if stacked.axis in own:
        stacked = stacker.in_front(stacked)
    value = _along(stacker, bundle.first, stacked, own)
    axis = stacked.axis
    if axis != NEW:
        axis -= sum(one < axis for one in own)
    return Stacked(value, stacked.count, stacker.dims(bundle.first.outputs[0]), axis)


def unsqueeze(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Axes of length 1 come in beside the branches'."""
    axes = _axes(bundle.first)
    if axes is None:
        raise Unfit("its axes are not constant")
    stacked = stacker.untailed(the_only(inputs))
    rank = stacked.rank + len(axes)
    own = sorted(axis % rank for axis in axes)
    value = _along(stacker, bundle.first, stacked, own)
    axis = stacked.axis
    if axis != NEW:
        axis = [at for at in range(rank) if at not in own][axis]
    return Stacked(value, stacked.count, stacker.dims(bundle.first.outputs[0]), axis)


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        known = constant(node.inputs[1])
        return None if known is None else [int(axis) for axis in known.reshape(-1)]
    given = node.attributes.get("axes")
    return None if given is None else list(given.as_ints())


def _along(stacker: Stacker, node: ir.Node, stacked: Stacked, axes: Sequence[int]) -> ir.Value:
    """``node`` on the axes of ``stacked`` that are ``axes`` of each value."""
    whole = [axis + (stacked.axis == NEW) for axis in axes]
    if len(node.inputs) < 2:
        return stacker.op(node.op_type, [stacked.value], {"axes": whole})
    return stacker.op(
        node.op_type, [stacked.value, stacker.constant(np.array(whole, np.int64))], like=node
    )


def take(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """Entries of the same places in all branches, along another axis than theirs."""
    node = bundle.first
    stacked = stacker.untailed(the_only(inputs))
    indices = same_input(stacker, bundle, 1)
    axis = node.attributes.get_int("axis", 0) % stacked.rank
    if axis == stacked.axis:
        stacked = stacker.in_front(stacked)
    after = stacker.dims(node.outputs[0])
    layout = stacked.axis
    whole = axis + (layout == NEW)
    value = stacker.op("Gather", [stacked.value, indices], {"axis": whole})
    if layout > axis:
        layout += len(after) - stacked.rank
    return Stacked(value, stacked.count, after, layout)


def cut(stacker: Stacker, bundle: Bundle, inputs: Inputs) -> Stacked:
    """A ``Slice`` of the same places in all branches, along other axes than theirs."""
    node = bundle.first
    stacked = stacker.untailed(the_only(inputs))
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None:
        raise Unfit("the axes of the slice are not constant")
    own = [int(axis) % stacked.rank for axis in axes]
    if stacked.axis in own:
        stacked = stacker.in_front(stacked)
    whole = stacker.constant(np.array([at + (stacked.axis == NEW) for at in own], axes.dtype))
    bounds = [same_input(stacker, bundle, at) for at in (1, 2)]
    steps = [same_input(stacker, bundle, 4)] if len(node.inputs) > 4 else []
    value = stacker.op("Slice", [stacked.value, *bounds, whole, *steps])
    return Stacked(value, stacked.count, stacker.dims(node.outputs[0]), stacked.axis)


VIEWS: Final[Mapping[str, Rule]] = {
    "Transpose": transpose,
    **dict.fromkeys(("Reshape", "Flatten"), reshape),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Slice": cut,
}
"""The rule of each; that of ``Gather`` stands with the layers, as it may be an embedding."""
