"""How operators are done to all members of a family at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ..graph import constant
from .elementwise import BROADCASTING, REDUCTIONS, UNARY
from .lifting import Build, NotLiftedError, Rule, Step, moved
from .movement import Place, axes_of, has_input, numbers, permutation


def _again(step: Step, place: Place, inputs: Sequence[ir.Value | None], **changed: Any) -> ir.Value:
    """The operator of ``step``, with other inputs and some other attributes."""
    attributes = [a for name, a in step.node.attributes.items() if name not in changed]
    attributes += ir.convenience.convert_attributes(changed)
    return place.add(step.node.op_type, inputs, attributes, like=step.node.outputs[0])


def _with_rest(step: Step, first: Build, what: str = "parameters", **changed: Any) -> Build:
    """The operator on ``first``; what it reads besides is the same for all members."""
    rest = [
        step.same(index, what) if step.has(index) else None
        for index in range(1, len(step.node.inputs))
    ]
    return lambda place: _again(step, place, [first(place), *rest], **changed)


def _unary(step: Step) -> Build:
    return _with_rest(step, step.go_on(0, step.axis, stacked=step.is_stacked))


def _aligned(step: Step, index: int, after: int) -> Build:
    """An operand of a broadcasting operator, for results with ``after`` axes behind the stack."""
    rank = step.input_rank(index)
    if (value := step.shared(index)) is not None:
        if rank <= after:
            return lambda _: value
        return lambda place: place.unsqueeze(value, [rank - after])
    if rank >= after:
        return step.go_on(index, rank - after, stacked=True)
    stack = step.go_on(index, 0, stacked=True)
    return lambda place: place.unsqueeze(stack(place), list(range(1, 1 + after - rank)))


def _joined(step: Step, index: int, behind: int) -> Build:
    """An operand of a broadcasting operator, joined along its axis ``behind`` from the end."""
    rank, shared = step.input_rank(index), step.shared(index)
    sizes = [step.lifter.dims(v)[-behind] if rank >= behind else 1 for v in step.inputs(index)]
    if shared is not None and sizes[0] == 1:
        return lambda _: shared
    outputs = [step.lifter.dims(output)[-behind] for output in step.family.members]
    if rank < behind or sizes != outputs:
        raise NotLiftedError("an operand may be repeated along the axis of the slices")
    return step.go_on(index, rank - behind, stacked=False)


def _broadcasting(step: Step) -> Build:
    behind, count = step.rank - step.axis, len(step.node.inputs)
    step.needs_one(*range(count if step.node.op_type != "PRelu" else 1))
    align = _aligned if step.is_stacked else _joined
    operands = [align(step, index, behind) for index in range(count)]
    return lambda place: _again(step, place, [operand(place) for operand in operands])


def _matmul(step: Step) -> Build:
    ranks = [step.input_rank(0), step.input_rank(1)]
    behind = step.rank - step.axis
    step.needs_one(0, 1)
    if step.is_stacked and (right := step.shared(1)) is not None and ranks[1] == 2:
        if behind < 1 or ranks[0] < 1:
            raise NotLiftedError("its inputs are stacked along the columns of a product")
        left = step.go_on(0, step.axis, stacked=True)
        return lambda place: _again(step, place, [left(place), right])
    if min(ranks) < 2 or behind < 2:
        raise NotLiftedError("the slices are joined along the columns of a product")
    if step.is_stacked:
        a, b = _aligned(step, 0, behind), _aligned(step, 1, behind)
    elif behind == 2:
        right, a = step.same(1, "weights"), step.go_on(0, ranks[0] - 2, stacked=False)
        return lambda place: _again(step, place, [a(place), right])
    else:
        a, b = _joined(step, 0, behind), _joined(step, 1, behind)
    return lambda place: _again(step, place, [a(place), b(place)])


def _gemm(step: Step) -> Build:
    """Rows are joined by the operator itself; stacks become a ``MatMul`` and an ``Add``."""
    attributes = step.node.attributes
    if attributes.get_int("transA", 0):
        raise NotLiftedError("Gemm transposes the slices")
    bias = step.has(2)
    if not step.is_stacked:
        if step.axis != 0:
            raise NotLiftedError("the slices are joined along the columns of a product")
        if bias and step.input_rank(2) == 2 and step.lifter.dims(step.inputs(2)[0])[0] != 1:
            raise NotLiftedError("Gemm adds another row to each row")
        return _with_rest(step, step.go_on(0, 0, stacked=False), "weights")
    if attributes.get_float("alpha", 1.0) != 1.0 or (bias and attributes.get_float("beta", 1) != 1):
        raise NotLiftedError("Gemm scales the slices")
    behind = 2 - step.axis
    if behind < 1:
        raise NotLiftedError("its inputs are stacked along the columns of a product")
    weights = [constant(value) for value in step.inputs(1)]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights):
        raise NotLiftedError("the weights of Gemm are not constant")
    if attributes.get_int("transB", 0):
        known = [weight.T for weight in known]
    same = all(weight.shape == known[0].shape for weight in known)
    if not same or (behind < 2 and step.shared(1) is None):
        raise NotLiftedError("the slices have different weights")
    weight = known[0] if step.shared(1) is not None else np.stack(known)
    rows = step.go_on(0, step.axis, stacked=True)
    added = _aligned(step, 2, behind) if bias else None

    def build(place: Place) -> ir.Value:
        like = step.node.outputs[0]
        product = place.add(
            "MatMul",
            [rows(place), place.constant("weight", np.ascontiguousarray(weight))],
            like=like,
        )
        return product if added is None else place.add("Add", [product, added(place)], like=like)

    return build


def _conv(step: Step) -> Build:
    """Of a batch in parts; or of channels in parts, each with weights of its own: groups."""
    if step.is_stacked or step.axis > 1:
        raise NotLiftedError("Conv mixes what lies along the axis of the slices")
    if step.axis == 0:
        return _with_rest(step, step.go_on(0, 0, stacked=False), "weights")
    sizes = {step.lifter.dims(value)[1] for value in step.inputs(0)}
    shapes = {step.lifter.dims(value) for value in step.inputs(1)}
    if len(sizes) > 1 or len(shapes) > 1 or not all(isinstance(size, int) for size in sizes):
        raise NotLiftedError("the groups differ in their number of channels")
    parts = [step.go_on(index, min(index, 1) ^ 1, stacked=False) for index in range(2)]
    if step.has(2):
        parts.append(step.go_on(2, 0, stacked=False))
    group = len(step.nodes) * step.node.attributes.get_int("group", 1)
    return lambda place: _again(step, place, [part(place) for part in parts], group=group)


def _transpose(step: Step) -> Build:
    perm = permutation(step.node, step.rank)
    if perm is None:
        raise NotLiftedError("a permutation is not known")
    if not step.is_stacked:
        source = step.go_on(0, perm[step.axis], stacked=False)
        return lambda place: place.transpose(source(place), perm)
    source = step.go_on(0, step.axis, stacked=True)
    longer = [axis + (axis >= step.axis) for axis in perm]
    longer.insert(step.axis, step.axis)
    return lambda place: place.transpose(source(place), longer)


def _axes(step: Step, rank: int) -> list[int]:
    axes = axes_of(step.node, rank)
    if not axes:
        raise NotLiftedError(f"the axes of {step.node.op_type} are not known")
    if has_input(step.node, 1):
        step.same(1, "axes")
    return axes


def _unsqueeze(step: Step) -> Build:
    axes, axis = _axes(step, step.rank), step.axis
    others = [one for one in axes if one != axis]
    before = sum(one < axis for one in axes)
    if not step.is_stacked:
        source = step.go_on(0, axis - before, stacked=axis in axes)
        if axis not in axes:
            return lambda place: place.unsqueeze(source(place), axes)
        return lambda place: place.unsqueeze(source(place), others)
    longer = [one + (one >= axis) for one in axes]
    source = step.go_on(0, axis - before, stacked=True)
    return lambda place: place.unsqueeze(source(place), longer)


def _squeeze(step: Step) -> Build:
    rank = step.input_rank()
    axes = _axes(step, rank)
    kept = [axis for axis in range(rank) if axis not in axes]
    if not step.is_stacked:
        source = step.go_on(0, kept[step.axis], stacked=False)
        return lambda place: place.squeeze(source(place), axes)
    if (along := step.cut_along()) in axes:
        # Each member has one element along any of the axes.
        source = step.go_on(0, along, stacked=False)
        others = [axis for axis in axes if axis != along]
        perm = moved(len(kept) + 1, sum(axis < along for axis in kept), step.axis)
        return lambda place: place.transpose(place.squeeze(source(place), others), perm)
    place_of = kept[step.axis] if step.axis < len(kept) else rank
    source = step.go_on(0, place_of, stacked=True)
    longer = [axis + (axis >= place_of) for axis in axes]
    return lambda place: place.squeeze(source(place), longer)


def _reshape(step: Step) -> Build:
    target = numbers(step.node, 1, "shape")
    if target is None or step.axis:
        raise NotLiftedError("Reshape mixes what lies along the axis of the slices")
    step.same(1, "shapes")
    source = step.go_on(0, 0, stacked=step.is_stacked)
    if step.is_stacked:
        target = [len(step.nodes), *target]
    elif not target or target[0] not in {0, -1} or step.input_rank() == 0:
        raise NotLiftedError("Reshape mixes what lies along the axis of the slices")
    if step.node.attributes.get_int("allowzero", 0) and 0 in target:
        raise NotLiftedError("Reshape makes something empty")
    return lambda place: place.reshape(source(place), target)


def _softmax(step: Step) -> Build:
    """Along one axis; before version 13, along all axes from one on as if they were one."""
    rank, is_old = step.rank, step.opset < 13
    along = step.node.attributes.get_int("axis", 1 if is_old else -1) % rank
    if is_old and along != rank - 1:
        raise NotLiftedError(f"{step.node.op_type} is taken over several axes")
    if not step.is_stacked and along == step.axis:
        raise NotLiftedError(f"{step.node.op_type} mixes what lies along the axis of the slices")
    if step.is_stacked and along < step.axis:
        along -= 1
    source = step.go_on(0, step.axis, stacked=step.is_stacked)
    return lambda place: _again(step, place, [source(place)], axis=along - rank)


def _layer_norm(step: Step) -> Build:
    """Normalizes all axes from one on."""
    rank = step.rank
    first = step.node.attributes.get_int("axis", -1) % rank
    wide = any(step.has(n) and step.input_rank(n) > rank - first for n in (1, 2))
    if wide or step.axis > first - (not step.is_stacked):
        raise NotLiftedError("LayerNormalization mixes what lies along the axis of the slices")
    return _with_rest(step, step.go_on(0, step.axis, stacked=step.is_stacked), axis=first - rank)


def _reduce(step: Step) -> Build:
    rank = step.input_rank()
    axes, keeps = _axes(step, rank), step.node.attributes.get_int("keepdims", 1)
    kept = [axis for axis in range(rank) if keeps or axis not in axes]
    attributes = {"keepdims": keeps}
    kind = step.node.op_type
    if not step.is_stacked:
        if kept[step.axis] in axes:
            raise NotLiftedError(f"{kind} mixes what lies along the axis of the slices")
        source, longer = step.go_on(0, kept[step.axis], stacked=False), axes
    else:
        place_of = kept[step.axis] if step.axis < len(kept) else rank
        source = step.go_on(0, place_of, stacked=True)
        longer = [axis + (axis >= place_of) for axis in axes]
    return lambda place: place.with_axes(kind, source(place), longer, attributes)


def _gather(step: Step) -> Build:
    """Rows of one table, by the indices of each member."""
    axis = step.node.attributes.get_int("axis", 0) % step.input_rank(0)
    table, indexed = step.shared(0), step.input_rank(1) + step.is_stacked
    if table is None or axis or step.axis >= indexed:
        raise NotLiftedError("Gather takes from different places")
    indices = step.go_on(1, step.axis, stacked=step.is_stacked)
    return lambda place: _again(step, place, [table, indices(place)])


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BROADCASTING, _broadcasting),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "Conv": _conv,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""For each operator that can be lifted, how."""
