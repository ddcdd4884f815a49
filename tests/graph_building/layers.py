"""Layers with weights, what normalizes them, and pooling."""

from __future__ import annotations

import math
from typing import Any

from tests.graph_building.builder import FLOAT16, Scope, Tensor
from tests.graph_building.registry import operator

_LARGEST = 12
"""No axis grows past this size."""


def image(s: Scope, least: int = 1) -> Tensor:
    """A tensor with channels and one or two spatial axes of fixed sizes, none below ``least``."""

    def fits(one: Tensor) -> bool:
        sizes = one.fixed(*range(1, one.rank)) if one.rank in {3, 4} else None
        return sizes is not None and min(sizes[1:]) >= least and one.bound <= 1e3

    return s.pick(fits, (2, 4, 6, 5) if s.choices.below(3) != 2 else (2, 4, 6))


def _sizes(x: Tensor) -> tuple[int, ...]:
    sizes = x.fixed(*range(1, x.rank))
    assert sizes is not None
    return sizes


def _windows(s: Scope, x: Tensor, most: int = 3) -> tuple[list[int], list[int], dict[str, Any]]:
    """The kernel of a window over ``x``, the sizes of what comes out, and the attributes."""
    spatial, count = _sizes(x)[1:], x.rank - 2
    kernel = [1 + s.choices.below(min(most, size)) for size in spatial]
    strides = [1 + s.choices.below(2)] * count
    mode = s.choices.below(5)
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if strides[0] != 1 or s.choices.flag():
        attributes["strides"] = strides
    pads = [0] * (2 * count)
    if mode == 1:  # no more than half a kernel, which is what ONNX Runtime's pooling takes
        pads = [s.choices.below(1 + kernel[axis % count] // 2) for axis in range(2 * count)]
        attributes["pads"] = pads
    elif mode == 2:
        attributes["auto_pad"] = "VALID"
    elif mode == 3 and min(kernel) >= strides[0]:
        attributes["auto_pad"] = "SAME_UPPER"
        return kernel, [-(-size // strides[0]) for size in spatial], attributes
    sizes = [
        (size + pads[axis] + pads[axis + count] - kernel[axis]) // strides[axis] + 1
        for axis, size in enumerate(spatial)
    ]
    return kernel, sizes, attributes


def _group(s: Scope, channels: int) -> int:
    return s.choices.of([1, channels, 2 if channels % 2 == 0 else 1])


@operator(double=False)
def conv(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or image(s)
    kernel, sizes, attributes = _windows(s, x)
    channels = _sizes(x)[0]
    group = _group(s, channels)
    outputs = group * s.choices.of([2, 1]) if group > 1 else s.choices.of([4, 2, 3])
    fan = channels // group * math.prod(kernel)
    inputs = [x, s.weights(outputs, channels // group, *kernel, spread=fan**-0.5)]
    if s.choices.flag():
        inputs.append(s.weights(outputs))
    if group > 1 or s.choices.flag():
        attributes["group"] = group
    shape = (x.shape[0], outputs, *sizes)
    return s.emit("Conv", inputs, [(x.dtype, shape)], bound=3 * x.bound, **attributes)[0]


@operator(double=False)
def conv_transpose(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or image(s)
    channels, *spatial = _sizes(x)
    if max(spatial) > _LARGEST // 2:
        return conv(s, x)
    group, per_group = _group(s, channels), 1 + s.choices.below(2)
    count = len(spatial)
    stride = 1 + s.choices.below(2)
    kernel = [stride + s.choices.below(2) for _ in spatial]
    pads, extra = [s.choices.below(2)] * 2 * count, s.choices.below(stride)
    if any(size == 1 for size in spatial) or min(kernel) == 1:
        pads = [0] * 2 * count
    fan = channels // group * math.prod(kernel)
    weight = s.weights(channels, per_group, *kernel, spread=fan**-0.5)
    inputs = [x, weight, *([s.weights(group * per_group)] if s.choices.flag() else [])]
    sizes = [
        (size - 1) * stride + width - 2 * pads[0] + extra
        for size, width in zip(spatial, kernel, strict=True)
    ]
    attributes: dict[str, Any] = {"strides": [stride] * count, "pads": pads, "group": group}
    if extra:
        attributes["output_padding"] = [extra] * count
    shape = (x.shape[0], group * per_group, *sizes)
    kind = [(x.dtype, shape)]
    return s.emit("ConvTranspose", inputs, kind, bound=3 * x.bound, **attributes)[0]


def _matrix(s: Scope) -> Tensor:
    def fits(one: Tensor) -> bool:
        return one.rank == 2 and one.fixed(1) is not None and one.bound <= 1e3

    return s.pick(fits, (3, 4))


@operator()
def gemm(s: Scope, x: Tensor | None = None) -> Tensor:
    x = x or _matrix(s)
    attributes: dict[str, Any] = {}
    if s.choices.flag():
        attributes |= {"alpha": 0.5, "beta": 2.0}
    rows, inner = x.shape
    if s.choices.below(4) == 1 and isinstance(rows, int) and rows:
        rows, inner, attributes["transA"] = inner, rows, 1
    assert isinstance(inner, int)
    outputs = s.choices.of([3, 5])
    shape = (inner, outputs)
    if s.choices.flag():
        shape, attributes["transB"] = shape[::-1], 1
    inputs = [x, s.weights(*shape, spread=inner**-0.5)]
    bias = s.choices.below(4)
    if bias or s.style.opset < 11:
        inputs.append(s.weights(*[(outputs,), (outputs,), (1, outputs), ()][bias]))
    kind = [(x.dtype, (rows, outputs))]
    return s.emit("Gemm", inputs, kind, bound=3 * x.bound + 4, **attributes)[0]


@operator()
def matmul(s: Scope, x: Tensor | None = None) -> Tensor:
    if x is None:
        x = s.pick(
            lambda one: one.rank >= 2 and one.fixed(one.rank - 1) is not None and one.bound <= 1e3,
            (3, 4),
        )
    inner = x.shape[-1]
    assert isinstance(inner, int)
    outputs = s.choices.of([inner, 3])
    weight = s.weights(inner, outputs, spread=inner**-0.5)
    kind = [(x.dtype, (*x.shape[:-1], outputs))]
    return s.emit("MatMul", [x, weight], kind, bound=3 * x.bound)[0]


@operator()
def attention_scores(s: Scope) -> Tensor:
    """A product of two tensors that both depend on the input: x with itself, transposed."""
    x = s.pick(lambda one: one.rank >= 2 and not one.is_empty and one.bound <= 30, (2, 3, 4))
    axes = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    shape = [x.shape[axis] for axis in axes]
    turned = s.emit("Transpose", [x], [(x.dtype, shape)], perm=axes)[0]
    product = (*x.shape[:-1], shape[-1])
    return s.emit("MatMul", [x, turned], [(x.dtype, product)], bound=8 * x.bound**2)[0]


@operator()
def batch_norm(s: Scope, x: Tensor | None = None) -> Tensor:
    if x is None:
        x = s.pick(
            lambda one: one.rank >= 2 and one.fixed(1) is not None and one.bound <= 1e3, (2, 4, 5)
        )
    (channels,) = x.fixed(1) or (1,)
    statistics = [s.weights(channels), s.weights(channels), s.weights(channels)]
    attributes = s.choices.of([{}, {"epsilon": 0.01}, {"epsilon": 1e-3, "momentum": 0.5}])
    inputs = [x, *statistics, s.positive(channels)]
    return s.add("BatchNormalization", inputs, x, bound=4 * x.bound + 8, **attributes)


def _after(s: Scope, x: Tensor) -> Tensor:
    """What exporters put after a layer: a bias, a normalization, an activation."""
    (channels,) = x.fixed(1) or (1,)
    if s.choices.below(3) == 1:
        shape = (channels, *[1] * (x.rank - 2))
        pair = [x, s.weights(*shape)]
        x = s.add("Add", pair if s.choices.below(2) == 0 else pair[::-1], x, bound=x.bound + 4)
    for _ in range(s.choices.of([1, 0, 2])):
        x = batch_norm(s, x)
    return s.add("Relu", [x], x) if s.choices.flag() else x


@operator(weight=4)
def linear_block(s: Scope) -> Tensor:
    x = _matrix(s)
    x = batch_norm(s, x) if s.choices.below(3) == 1 else x
    return _after(s, s.choices.of([gemm, matmul])(s, x))


@operator(double=False, weight=4)
def conv_block(s: Scope) -> Tensor:
    x = image(s)
    x = batch_norm(s, x) if s.choices.below(3) == 1 else x
    return _after(s, s.choices.of([conv, conv, conv_transpose])(s, x))


@operator(double=False, weight=4)
def branches(s: Scope) -> Tensor:
    """Convs, poolings, normalizations and shortcuts over one image, added up."""
    x = image(s)
    channels, count = _sizes(x)[0], x.rank - 2
    made = []
    for kind in [0, *(s.choices.below(5) for _ in range(s.choices.of([1, 2, 3])))]:
        reach, dilation = s.choices.of([1, 0, 2]), 1 + s.choices.below(2)
        windows: dict[str, Any] = {"pads": [reach * dilation] * 2 * count}
        if kind < 2:
            group = _group(s, channels)
            windows |= {"group": group, "dilations": [dilation] * count}
            fan = channels // group * (2 * reach + 1) ** count
            weight = s.weights(
                channels, channels // group, *[2 * reach + 1] * count, spread=fan**-0.5
            )
            made.append(s.add("Conv", [x, weight], x, bound=3 * x.bound, **windows))
        elif kind == 2:
            kernel = {"kernel_shape": [3] * count, "pads": [1] * 2 * count}
            made.append(s.add("AveragePool", [x], x, count_include_pad=1, **kernel))
        else:
            made.append(x if kind == 3 else batch_norm(s, x))
        if s.choices.flag():
            factor = s.weights(channels, *[1] * count)
            made[-1] = s.add("Mul", [made[-1], factor], x, bound=4 * made[-1].bound)
    total = made[0]
    for other in made[1:]:
        adding = s.choices.of(["Add", "Sum", "Sub"])
        pair = [total, other] if s.choices.below(2) == 0 else [other, total]
        total = s.add(adding, pair, x, bound=total.bound + other.bound)
    return total


@operator(double=False)
def sequence(s: Scope) -> Tensor:
    """Convolutions along one axis with as many channels as a blocked kernel takes at a time."""
    x = s.pick(lambda one: one.rank == 3 and one.fixed(1, 2) == (16, 6), (2, 16, 6))
    for _ in range(s.choices.of([2, 1, 3])):
        group = s.choices.of([1, 16])
        weight = s.weights(16, 16 // group, 3, spread=(48 / group) ** -0.5)
        x = s.add("Conv", [x, weight], x, bound=3 * x.bound, pads=[1, 1], group=group)
        kind = s.choices.of(["Relu", "Tanh", "Add", "Mul", "Concat"])
        if kind == "Concat":
            shape = (x.shape[0], 32, 6)
            x = s.emit("Concat", [x, x], [(x.dtype, shape)], bound=x.bound, axis=-2)[0]
            weight = s.weights(16, 32, 1, spread=32**-0.5)
            x = s.emit("Conv", [x, weight], [(x.dtype, (x.shape[0], 16, 6))], bound=3 * x.bound)[0]
        elif kind in {"Add", "Mul"}:
            x = s.add(kind, [s.weights(16, 1), x], x, bound=5 * x.bound)
        else:
            x = s.add(kind, [x], x, bound=x.bound)
    return x


@operator(double=False)
def classifier(s: Scope) -> Tensor:
    """A normalization, a flattening and a Gemm."""
    x = batch_norm(s, image(s))
    width = math.prod(_sizes(x))
    flat = (x.shape[0], width)
    if s.choices.flag() and not x.is_empty:
        x = s.emit("Reshape", [x, s.ints(0, -1)], [(x.dtype, flat)])[0]
    else:
        x = s.emit("Flatten", [x], [(x.dtype, flat)])[0]
    return gemm(s, x)


@operator(double=False)
def max_pool(s: Scope) -> Tensor:
    x = image(s)
    _, sizes, attributes = _windows(s, x)
    return s.emit("MaxPool", [x], [(x.dtype, (*x.shape[:2], *sizes))], **attributes)[0]


@operator(double=False)
def average_pool(s: Scope) -> Tensor:
    x = image(s)
    _, sizes, attributes = _windows(s, x)
    if s.choices.flag():
        attributes["count_include_pad"] = 1
    return s.emit("AveragePool", [x], [(x.dtype, (*x.shape[:2], *sizes))], **attributes)[0]


@operator(double=False)
def global_pool(s: Scope) -> Tensor:
    x = image(s)
    kind = s.choices.of(["GlobalAveragePool", "GlobalMaxPool"])
    return s.emit(kind, [x], [(x.dtype, (*x.shape[:2], *[1] * (x.rank - 2)))])[0]


def _epsilon(x: Tensor) -> float:
    """A large one: what is divided by nearly nothing magnifies rounding errors."""
    return 1.0 if x.dtype == FLOAT16 else 0.1


@operator(double=False)
def instance_norm(s: Scope) -> Tensor:
    x = image(s, least=2)
    channels = _sizes(x)[0]
    inputs = [x, s.weights(channels), s.weights(channels)]
    return s.add("InstanceNormalization", inputs, x, epsilon=_epsilon(x), bound=16.0)


@operator(since=17)
def layer_norm(s: Scope) -> Tensor:
    x = s.pick(lambda one: one.rank >= 2 and one.fixed(one.rank - 1) is not None, (3, 4))
    (width,) = x.fixed(x.rank - 1) or (1,)
    inputs = [x, s.weights(width), *([s.weights(width)] if s.choices.flag() else [])]
    return s.add("LayerNormalization", inputs, x, epsilon=_epsilon(x), axis=-1, bound=16.0)


@operator(double=False)
def local_response_norm(s: Scope) -> Tensor:
    x = image(s)
    return s.add("LRN", [x], x, size=s.choices.of([1, 3])) if x.rank == 4 else x


@operator(since=12)
def einsum(s: Scope) -> Tensor:
    x = _matrix(s)
    (inner,) = x.fixed(1) or (1,)
    kind = [(x.dtype, (x.shape[0], 3))]
    pair = [x, s.weights(inner, 3)]
    return s.emit("Einsum", pair, kind, equation="ij,jk->ik", bound=3 * x.bound)[0]
