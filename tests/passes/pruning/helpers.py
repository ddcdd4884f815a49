"""What the tests of pruning share: running models, zeroing weights, samples, random networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from onnxpress.backends.base import Array, Feeds, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.graph import add_initializer, constant

PLAIN = SessionConfig(level="disabled", threads=1)


@dataclass(frozen=True)
class Samples:
    """Arrays by input name, samples along the first axis."""

    arrays: Mapping[str, Array]

    def batches(self, size: int) -> Iterator[Feeds]:
        count = len(next(iter(self.arrays.values())))
        for start in range(0, count, size):
            yield {name: array[start : start + size] for name, array in self.arrays.items()}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(model: ir.Model, feeds: Feeds) -> dict[str, Array]:
    return session_of(model, PLAIN).run(feeds)


def answers(model: ir.Model) -> dict[str, Array]:
    """What ``model`` says to random inputs, two samples where it leaves the choice."""
    session = session_of(model, PLAIN)
    feeds = {}
    for number, spec in enumerate(session.inputs):
        shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
        feeds[spec.name] = normal(*shape, seed=number)
    return session.run(feeds)


def build(text: str, weights: Mapping[str, Array]) -> ir.Model:
    """The model in ``text`` with ``weights``."""
    tensors = [ir.tensor(array, name=name) for name, array in weights.items()]
    model = ir.from_onnx_text(text, initializers=tensors)
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.shape = ir.Shape(value.const_value.shape.numpy())
            value.type = ir.TensorType(value.const_value.dtype)
    return model


def with_zeros(model: ir.Model, kept: Mapping[str, Mapping[int, Sequence[int]]]) -> ir.Model:
    """A clone of ``model`` whose constants are zero where they are not ``kept``."""
    twin = model.clone()
    values = ir.convenience.create_value_mapping(twin.graph)
    for name, axes in kept.items():
        array = constant(values[name])
        if array is None:
            continue
        array = array.copy()
        for axis, stays in axes.items():
            gone = np.setdiff1d(np.arange(array.shape[axis]), stays)
            np.moveaxis(array, axis, 0)[gone] = 0
        zeroed = add_initializer(twin.graph, f"{name}.zeroed", array)
        values[name].replace_all_uses_with(zeroed)
    return twin


@dataclass
class _Drawing:
    """A network on its way: its lines, its weights, and the tensor that comes next."""

    lines: list[str]
    weights: dict[str, Array]
    tip: str = "x"
    channels: int = 3
    size: int = 8

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = np.float32(1 / np.sqrt(np.prod(shape[1:])))
        self.weights[name] = normal(*shape, seed=len(self.weights)) * scale
        return name

    def add(self, call: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {call}")
        return name

    def conv(self, source: str, reads: int, makes: int, kernel: int = 3, group: int = 1) -> str:
        weight, bias = self.weight(makes, reads // group, kernel, kernel), self.weight(makes)
        pads = [kernel // 2] * 4
        return self.add(f"Conv <group = {group}, pads = {pads}> ({source}, {weight}, {bias})")

    def grow(self, kind: str, width: int) -> None:
        tip, channels = self.tip, self.channels
        if kind == "conv":
            self.tip, self.channels = self.conv(tip, channels, width), width
        elif kind == "depthwise":
            self.tip = self.conv(tip, channels, channels * 2, group=channels)
            self.channels *= 2
        elif kind == "grouped":
            wide = self.conv(tip, channels, 2 * width, 1)
            self.tip, self.channels = self.conv(wide, 2 * width, 4, group=2), 4
        elif kind == "residual":
            inner = self.add(f"Relu ({self.conv(tip, channels, width)})")
            self.tip = self.add(f"Add ({tip}, {self.conv(inner, width, channels)})")
        elif kind == "dense":
            grown = self.conv(tip, channels, width)
            self.tip = self.add(f"Concat <axis = 1> ({tip}, {grown})")
            self.channels += width
        elif kind == "gate":
            pooled = self.add(f"GlobalAveragePool ({tip})")
            gate = self.add(f"HardSigmoid ({self.conv(pooled, channels, channels, 1)})")
            self.tip = self.add(f"Mul ({tip}, {gate})")
        elif kind == "norm":
            names = [self.weight(channels) for _ in range(4)]
            self.weights[names[3]] = np.abs(self.weights[names[3]]) + 1
            self.tip = self.add(f"BatchNormalization ({tip}, {', '.join(names)})")
        elif kind == "split" and channels % 2 == 0:
            halves = f"t{len(self.lines)}a", f"t{len(self.lines)}b"
            self.lines.append(f"{', '.join(halves)} = Split <axis = 1> ({tip})")
            gate = self.add(f"Sigmoid ({halves[1]})")
            self.tip, self.channels = self.add(f"Mul ({halves[0]}, {gate})"), channels // 2
        elif kind == "attention":
            self.attend(heads=2, width=width)
        elif kind == "pool" and self.size > 2:
            self.tip = self.add(f"MaxPool <kernel_shape = [2, 2], strides = [2, 2]> ({tip})")
            self.size //= 2
        else:
            self.tip = self.add(f"Sigmoid ({tip})")

    def attend(self, heads: int, width: int) -> None:
        """Attention between places, added to what is there; each head is ``width`` wide."""
        channels, size = self.channels, self.size
        row = self.add(f"Transpose <perm = [0, 2, 1]> ({self.reshape(self.tip, 0, channels, -1)})")

        def projected(perm: list[int]) -> str:
            product = self.add(f"MatMul ({row}, {self.weight(channels, heads * width)})")
            parts = self.reshape(product, 0, 0, heads, width)
            return self.add(f"Transpose <perm = {perm}> ({parts})")

        query, key, value = map(projected, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = self.add(f"Softmax <axis = -1> ({self.add(f'MatMul ({query}, {key})')})")
        mixed = self.add(
            f"Transpose <perm = [0, 2, 1, 3]> ({self.add(f'MatMul ({scores}, {value})')})"
        )
        joined = self.reshape(mixed, 0, 0, heads * width)
        back = self.add(f"MatMul ({joined}, {self.weight(heads * width, channels)})")
        turned = self.add(f"Transpose <perm = [0, 2, 1]> ({back})")
        self.tip = self.add(f"Add ({self.tip}, {self.reshape(turned, 0, channels, size, size)})")

    def reshape(self, source: str, *shape: int) -> str:
        wanted = self.add(f"Constant <value_ints = {list(shape)}> ()")
        return self.add(f"Reshape ({source}, {wanted})")

    def finish(self, head: str) -> str:
        """What makes the answers."""
        places = self.size**2
        if head == "pooled":
            pooled = self.add(f"ReduceMean <axes = [2, 3], keepdims = 0> ({self.tip})")
            return f"y = Gemm ({pooled}, {self.weight(self.channels, 5)}, {self.weight(5)})"
        if head == "channels last":
            self.tip = self.add(f"Transpose <perm = [0, 2, 3, 1]> ({self.tip})")
        flat = self.add(f"Flatten ({self.tip})")
        product = self.add(f"MatMul ({flat}, {self.weight(self.channels * places, 5)})")
        return f"y = Add ({product}, {self.weight(5)})"


KINDS = (
    *("conv", "depthwise", "grouped", "residual", "dense", "gate", "norm", "pool", "sigmoid"),
    *("split", "attention"),
)


@st.composite
def networks(draw: st.DrawFn) -> ir.Model:
    """Networks of convolutions and attention from ``x[N, 3, 8, 8]`` to ``y[N, 5]``."""
    drawing = _Drawing([], {})
    drawing.grow("conv", draw(st.integers(4, 8)))
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=6)):
        drawing.grow(kind, draw(st.integers(2, 6)))
    last = drawing.finish(draw(st.sampled_from(["pooled", "flat", "channels last"])))
    body = "\n".join([*drawing.lines, last])
    text = (
        '<ir_version: 9, opset_import: ["" : 17]>\n'
        f"main (float[N,3,8,8] x) => (float[N,5] y) {{\n{body}\n}}"
    )
    return build(text, drawing.weights)
