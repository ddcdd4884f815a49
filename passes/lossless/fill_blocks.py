"""Append channels of zeros where that keeps tensors in ONNX Runtime's blocked layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar, Final

import onnx_ir as ir

from ..analysis.channel_rules import RULES
from ..analysis.channels import ChannelGroup, Member, channel_groups
from ..base import Context, Pass, Result
from ..graph import constant_tensor, is_constant, is_op, nodes_in
from .channel_padding import ChannelPadder, insertions
from .constants import resolve, resolved_constant
from .widen_convs import BLOCK, refusal_of_sizes

_POOLS: Final = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_ALIGNED: Final = 4
"""Input channels of a blocked convolution are a multiple of this."""
_MOST: Final = 1.5
"""How many times the channels a convolution may read in the end."""
_MOST_PLAIN: Final = 1.34
"""The same where it has a kernel for few channels, which reads a tensor that is not blocked."""
_MOST_ALONE: Final = 2.0
"""The same for a kernel of one element."""
_MOST_NARROW: Final = 1.25
"""The same for convolutions of one axis."""
# fmt: off
_TAKEN: Final = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Flatten", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "MaxPool", "Mul", "Pow", "QuickGelu", "Relu", "Reshape", "Sigmoid", "Slice",
    "Split", "Sqrt", "Squeeze", "Sum", "Tanh", "Unsqueeze",
})
"""What may read channels of zeros: it makes numbers of numbers, and next to no work."""
_OF_ZEROS: Final = frozenset({"Pow", "Sqrt"})
"""What among that does so for zeros, while other channels may hold anything."""
_KEEP_ZEROS: Final = frozenset({
    "AveragePool", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Identity",
    "LeakyRelu", "MaxPool", "Pow", "QuickGelu", "Relu", "Slice", "Split", "Sqrt", "Squeeze",
    "Tanh", "Unsqueeze",
})
"""What makes zeros of zeros in its first input."""
# fmt: on


@dataclass(frozen=True)
class FillBlocks(Pass):
    """Append channels of zeros, so that convolutions hand on whole blocks of channels.

    ONNX Runtime's CPU provider runs convolutions on blocks of 16 channels with AVX-512, of 8 with
    AVX2. The last block of a tensor is filled up with zeros anyway. But pools leave that layout
    for a number of channels that is no multiple, and so do convolutions that read fewer channels
    than a block, or a number that is not a multiple of 4; for ``widen-convs``, whole blocks are
    what makes convolutions of one axis run in that layout at all. Each costs a pass over memory
    that reorders the tensor, and slower kernels.

    Such channels are appended to the weights here: rows of zeros to what computes a tensor,
    columns of zeros to what reads it, so that what is computed from the new channels does not
    count. They go through activations, sums, products, pools, Concat and depthwise convolutions
    on the way; a set of tensors that have to have the same channels is filled as a whole.

    Measured on one thread with AVX-512, between convolutions: one of 1x1 that reads 8 or 12
    channels runs 1.17 and 1.4 times faster; one of 3x3 that reads 12, 22, 30 or 129 channels 1.0,
    1.2, 1.5 and 1.4 times, but half as fast for 4 or 8, so these stay; squeeze-and-excitation
    with 24 to 200 channels 1.07 times. What reads whole blocks already may not get another one.

    Declined for channels that reach an output of the graph or an operator that might make
    something else than a number of zeros. Only float32, and only for CPUs.
    """

    name: ClassVar[str] = "fill-blocks"
    summary: ClassVar[str] = (
        "fill up channels so that tensors stay in ONNX Runtime's blocked layout"
    )

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fill up every group of channels that gains."""
        result = Result(model)
        block = context.target.channel_block
        if not block or not any(_may_gain(node, block) for node in nodes_in(model.graph)):
            return result
        coupling = channel_groups(model, RULES)
        padder = ChannelPadder(model, coupling)
        for group in coupling.groups:
            reader = _gains(group, block)
            if reader is None:
                continue
            more = -group.size % (BLOCK if _is_narrow(reader) else block)
            places = [insertions(member, group.size, more) for member in group.members]
            at = [one for one in places if one is not None]
            if reason := _refusal(group):
                result.decline(reader, because=reason)
            elif len(at) < len(places):
                result.decline(reader, because="their channels lie among others")
            elif any(map(_loses, group.members, map(len, at), repeat(block))):
                result.decline(reader, because="with so many more channels it would be no faster")
            else:
                padder.pad(group, at)
                result.rewrote(reader)
        if result.modified:
            padder.write()
        return result


def _kernel(node: ir.Node) -> tuple[int, ...] | None:
    """The shape of the weight of a convolution that has blocked kernels, or gets them widened."""
    tensor = constant_tensor(resolve(node.inputs[1])) if is_op(node, "Conv") else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) not in {3, 4}:
        return None
    return tuple(tensor.shape.numpy())


def _is_narrow(node: ir.Node) -> bool:
    """Whether ``node`` is a convolution of one axis."""
    kernel = _kernel(node)
    return kernel is not None and len(kernel) == 3


def _may_gain(node: ir.Node, block: int) -> bool:
    """Whether ``node`` looks as if it left the blocked layout for its number of channels."""
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type in _POOLS:
        source = node.inputs[0].producer()
        while source is not None and not is_op(source, "Conv"):
            first = source.inputs[0] if source.op_type in _TAKEN else None
            source = None if first is None else first.producer()
        kernel = None if source is None else _kernel(source)
        return kernel is not None and kernel[0] % block != 0
    return node.inputs[0].producer() is not None and _reads_too_few(node, block)


def _reads_too_few(node: ir.Node, block: int) -> bool:
    """Whether ``node`` is a convolution that reads no number of channels that can be blocked."""
    kernel = _kernel(node)
    if kernel is None or node.attributes.get_int("group", 1) != 1:
        return False
    if len(kernel) == 4:
        return kernel[1] < block or kernel[1] % _ALIGNED != 0
    whole = (kernel[0], -(-kernel[1] // BLOCK) * BLOCK, kernel[2])
    return whole[1] > kernel[1] and not refusal_of_sizes(whole, 1)


def _gains(group: ChannelGroup, block: int) -> ir.Node | None:
    """What would run in blocks with more channels in ``group``, and does not now."""
    blocked = any(
        index == 1 and member.axis == 0 and _kernel(node) is not None
        for member in group.members
        for node, index in member.value.uses()
    )
    for member in group.members if blocked else ():
        for node, index in member.value.uses():
            if index or member.axis != 1 or node.domain:
                continue
            pooled = node.op_type in _POOLS and member.size == group.size
            if (pooled and group.size % block) or _reads_too_few(node, block):
                return node
    return None


def _loses(member: Member, more: int, block: int) -> bool:
    """Whether a convolution that reads ``member`` would have more to do than it gains."""
    for node, index in member.value.uses():
        kernel = _kernel(node)
        if index or member.axis != 1 or kernel is None or node.attributes.get_int("group", 1) != 1:
            continue
        channels = kernel[1]
        if not _reads_too_few(node, block):
            most = 1.0 if len(kernel) == 3 else -(-channels // block) * block / channels
        elif len(kernel) == 3:
            most = _MOST_NARROW
        elif math.prod(kernel[2:]) == 1:
            most = _MOST_ALONE
        else:
            most = _MOST_PLAIN if channels < block else _MOST
        if channels + more > most * channels:
            return True
    return False


def _zeros(group: ChannelGroup) -> set[ir.Value]:
    """The tensors of ``group`` that hold zeros in channels that are appended to it."""
    zeros: set[ir.Value] = set()
    for member in group.members:
        node = member.value.producer()
        if node is None or is_constant(member.value):
            zeros.add(member.value)
            continue
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Conv" or node.op_type in {"Add", "Concat", "Sum"}:
            kept = all(value in zeros for value in inputs[node.op_type == "Conv" :])
        elif node.op_type == "Mul":
            kept = any(value in zeros for value in inputs)
        else:
            kept = node.op_type in _KEEP_ZEROS and inputs[0] in zeros
        if kept:
            zeros.add(member.value)
    return zeros


def _refusal(group: ChannelGroup) -> str:
    """Why zeros cannot be appended to ``group``; empty if they can."""
    if group.frozen:
        return group.frozen
    zeros: set[ir.Value] | None = None
    for member in group.members:
        if member.axis != 1 and not is_constant(member.value):
            return f"they are on axis {member.axis} of {member.value.name!r}"
        for node, index in member.value.uses():
            fits = node.op_type in _TAKEN
            if node.op_type in _OF_ZEROS:
                zeros = _zeros(group) if zeros is None else zeros
                fits = index == 0 and member.value in zeros and _has_positive_power(node)
            if not fits:
                return f"they reach {node.op_type}, which may make something else of zeros"
            if is_op(node, "BatchNormalization") and not node.attributes.get_float("epsilon", 1e-5):
                return "a variance of zero has no inverse"
            if node.op_type == "Gemm" and len(member.positions) > group.size and not index:
                return "a matrix that reads every position would grow"
    return ""


def _has_positive_power(node: ir.Node) -> bool:
    """Whether ``node`` is no power, or one by a number above zero."""
    if node.op_type != "Pow":
        return True
    power = resolved_constant(node.inputs[1])
    return power is not None and power.size == 1 and bool((power > 0).all())
