"""Linear branches that are summed, layers in a row, layers that read the same tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graph_building.affine import affine
from tests.graph_building.arithmetic import combined, kept_aside
from tests.graph_building.axes import axes_of
from tests.graph_building.builder import Scope, Tensor
from tests.graph_building.layers import batch_norm, image
from tests.graph_building.registry import operator


def _same_conv(s: Scope, x: Tensor, outputs: int, group: int) -> Tensor:
    """A Conv that keeps the spatial sizes, and perhaps its normalization."""
    channels = int(x.shape[1])
    kernel = s.choices.of([[3, 3], [1, 1], [1, 3], [3, 1]])
    dilation = s.choices.of([1, 1, 1, 2])
    half = [dilation * (size // 2) for size in kernel]
    fan = channels // group * kernel[0] * kernel[1]
    inputs = [x, s.weights(outputs, channels // group, *kernel, spread=fan**-0.5)]
    if s.choices.flag():
        inputs.append(s.weights(outputs))
    more: dict[str, Any] = {"dilations": [dilation] * 2} if dilation > 1 else {}
    if kernel != [1, 1] or s.choices.flag():
        more["pads"] = half * 2
    kind = [(x.dtype, (x.shape[0], outputs, *x.shape[2:]))]
    made = s.emit("Conv", inputs, kind, bound=3 * x.bound, group=group, **more)[0]
    kept_aside(s, made)
    return batch_norm(s, made) if s.choices.flag() else made


def _branch(s: Scope, x: Tensor, outputs: int, group: int) -> Tensor:
    form = s.choices.below(8)
    same = x.shape[1] == outputs
    if form == 1 and same:
        return x
    if form == 2 and same:
        return batch_norm(s, x)
    if form == 3 and same:
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
        return s.add("AveragePool", [x], x, **attributes)
    if form == 4:  # two layers, as in a diverse branch block
        return _same_conv(s, _same_conv(s, x, outputs, group), outputs, group)
    if form == 5:  # not linear
        return s.add("Relu", [made := _same_conv(s, x, outputs, group)], made)
    if form == 6:
        return affine(s, _same_conv(s, x, outputs, group), 2)
    return _same_conv(s, x, outputs, group)


@operator(double=False, weight=4)
def summed_branches(s: Scope) -> Tensor:
    x = s.pick(
        lambda one: one.rank == 4 and one.fixed(1, 2, 3) is not None and one.bound <= 100,
        (2, 4, 5, 4),
    )
    if x.fixed(1, 2, 3) is None:
        return x
    channels = int(x.shape[1])
    group = s.choices.of([1, 1, channels])
    outputs = channels if group > 1 else s.choices.of([channels, channels, 3])
    parts = [_branch(s, x, outputs, group) for _ in range(2 + s.choices.below(3))]
    if s.choices.below(8) == 1:  # another input
        parts.append(_same_conv(s, s.add("Sigmoid", [x], x, bound=1.0), outputs, group))
    bound = sum(one.bound for one in parts)
    if s.choices.below(4) == 1:
        total = s.add("Sum", parts, parts[0], bound=bound)
    else:
        total = parts[0]
        for part in parts[1:]:
            total = combined(s, s.choices.of(["Add", "Add", "Add", "Sub"]), total, part, bound)
    return s.add("Relu", [total], total) if s.choices.flag() else total


@operator(double=False, weight=2)
def convs_in_a_row(s: Scope) -> Tensor:
    x = image(s)
    if x.rank != 4:
        return x
    first = _same_conv(s, x, s.choices.of([2, 6]), 1)
    return _same_conv(s, affine(s, first, 1), s.choices.of([4, 2]), 1)


@operator(weight=2)
def products_in_a_row(s: Scope) -> Tensor:
    x = _rows(s)
    (inner,) = x.fixed(x.rank - 1) or (1,)
    for width in (s.choices.of([2, 6]), s.choices.of([4, 3])):
        weight = s.weights(inner, width, spread=inner**-0.5)
        x = s.emit("MatMul", [x, weight], [(x.dtype, (*x.shape[:-1], width))], bound=3 * x.bound)[0]
        inner = width
        kept_aside(s, x)
        if s.choices.flag():
            x = combined(s, "Add", x, s.weights(width), x.bound + 4)
    return x


def _rows(s: Scope) -> Tensor:
    return s.pick(
        lambda one: one.rank >= 2 and one.fixed(one.rank - 1) is not None and one.bound <= 100,
        (2, 3, 4),
    )


@operator(weight=3)
def sibling_products(s: Scope) -> Tensor:
    """Products that read the same tensor, as queries, keys and values do, and gates."""
    x = _rows(s)
    (inner,) = x.fixed(x.rank - 1) or (1,)
    use_gemm = x.rank == 2 and s.choices.flag()
    width = s.choices.of([4, 3])
    made = []
    for _ in range(2 + s.choices.below(2)):
        if s.choices.below(5) == 1:
            width = s.choices.of([2, 5])
        weight = s.weights(inner, width, spread=inner**-0.5)
        kind = [(x.dtype, (*x.shape[:-1], width))]
        bias = s.weights(width)
        if use_gemm:
            inputs = [x, weight, bias]
            made += s.emit("Gemm", inputs, kind, bound=3 * x.bound + 4)
            continue
        (product,) = s.emit("MatMul", [x, weight], kind, bound=3 * x.bound)
        kept_aside(s, product)
        form = s.choices.below(4)
        if form in {0, 1}:
            product = combined(s, "Add", product, bias, turn=form == 1)
        made.append(product)
    first, *others = made
    for other in others:
        if other.shape == first.shape:
            gate = s.add("Sigmoid", [other], other, bound=1.0) if s.choices.flag() else other
            first = combined(s, s.choices.of(["Mul", "Add"]), first, gate)
    return first


@operator(double=False, weight=2)
def sibling_convs(s: Scope) -> Tensor:
    x = image(s)
    if x.rank != 4:
        return x
    channels = int(x.shape[1])
    size = s.choices.of([1, 3])
    parts = []
    for _ in range(2 + s.choices.below(2)):
        outputs = s.choices.of([4, 4, 2])
        fan = channels * size * size
        inputs = [x, s.weights(outputs, channels, size, size, spread=fan**-0.5)]
        if s.choices.flag():
            inputs.append(s.weights(outputs))
        kind = [(x.dtype, (x.shape[0], outputs, *x.shape[2:]))]
        pads = [size // 2] * 4
        (part,) = s.emit("Conv", inputs, kind, bound=3 * x.bound, pads=pads)
        kept_aside(s, part)
        parts.append(s.add("Relu", [part], part) if s.choices.flag() else part)
    total = sum(int(part.shape[1]) for part in parts)
    shape = (x.shape[0], total, *x.shape[2:])
    if s.choices.flag():
        return s.emit("Concat", parts, [(x.dtype, shape)], axis=1)[0]
    return parts[-1]


@operator(since=11, weight=2)
def products_of_slices(s: Scope) -> Tensor:
    """One small product for each slice, joined again, as tf2onnx writes a batched product."""
    x = s.pick(lambda one: one.rank == 3 and one.fixed(1, 2) is not None and one.bound <= 100,
               (2, 3, 4))  # fmt: skip
    if x.fixed(1, 2) is None or not isinstance(x.shape[1], int):
        return x
    count, inner = x.fixed(1, 2) or (1, 1)
    count = min(count, 4)
    kind = [(x.dtype, (x.shape[0], inner))]
    shared = s.weights(inner, 3, spread=inner**-0.5)
    parts = []
    for at in range(count):
        (row,) = s.emit("Gather", [x, s.constant(np.array(at))], kind, axis=1)
        weight = shared if s.choices.flag() else s.weights(inner, 3, spread=inner**-0.5)
        (part,) = s.emit("MatMul", [row, weight], [(x.dtype, (x.shape[0], 3))], bound=3 * x.bound)
        shape = (x.shape[0], 1, 3)
        axes, attributes = axes_of(s, "Unsqueeze", [1])
        parts += s.emit("Unsqueeze", [part, *axes], [(x.dtype, shape)], **attributes)
    shape = (x.shape[0], len(parts), 3)
    return s.emit("Concat", parts, [(x.dtype, shape)], axis=1)[0]


@operator(weight=2)
def written_twice(s: Scope) -> Tensor:
    """The same computation twice, or nearly the same."""
    x = s.floats(1, most=30.0)
    number = s.choices.of([0.5, 1.5])
    made = []
    for turn in range(2):
        factor = number + 0.25 * (turn and s.choices.below(4) == 1)
        scaled = combined(s, "Mul", x, s.scalar(factor, x.dtype), 2 * x.bound)
        made.append(s.add(s.choices.of(["Tanh", "Tanh", "Sigmoid"]), [scaled], scaled, bound=1.0))
    return combined(s, s.choices.of(["Sub", "Add"]), made[0], made[1])


@operator(double=False, weight=2)
def convs_over_time(s: Scope) -> Tensor:
    """Convolutions of one axis with whole blocks of channels, and what stands between them."""
    x = s.pick(
        lambda one: one.rank == 3 and one.fixed(1, 2) is not None and one.shape[1] == 16
        and one.bound <= 100,
        (2, 16, 8),
    )  # fmt: skip
    if x.fixed(1, 2) is None or x.shape[1] != 16:
        return x
    for _ in range(1 + s.choices.below(2)):
        length = int(x.shape[2])
        size = s.choices.of([3, 1, 5])
        group = s.choices.of([1, 1, 16])
        weight = s.weights(16, 16 // group, size, spread=(16 // group * size) ** -0.5)
        inputs = [x, weight, *([s.weights(16)] if s.choices.flag() else [])]
        stride = s.choices.of([1, 1, 2])
        pads = [size // 2] * 2
        left = (length + 2 * pads[0] - size) // stride + 1
        kind = [(x.dtype, (x.shape[0], 16, left))]
        attributes: dict[str, Any] = {"pads": pads, "strides": [stride], "group": group}
        (x,) = s.emit("Conv", inputs, kind, bound=3 * x.bound, **attributes)
        kept_aside(s, x)
        x = _between(s, x)
    return x


def _between(s: Scope, x: Tensor) -> Tensor:
    form = s.choices.below(6)
    if form == 1:
        return s.add("LeakyRelu", [x], x, alpha=0.1)
    if form == 2:
        gate = s.add("Sigmoid", [x], x, bound=1.0)
        return combined(s, "Mul", x, gate, x.bound)
    if form == 3:
        return affine(s, x, 2)
    if form == 4:
        return batch_norm(s, x)
    if form == 5 and int(x.shape[2]) >= 2:
        kind = [(x.dtype, (*x.shape[:2], int(x.shape[2]) - 1))]
        return s.emit("MaxPool", [x], kind, kernel_shape=[2])[0]
    return s.add("Relu", [x], x)
