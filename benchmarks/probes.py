"""What passes take for granted of ONNX Runtime, measured: each form a pass emits against the other.

``python -m benchmarks probe`` times them on this machine, on one thread, in default sessions,
interleaved. The numbers in the docstrings of passes come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import onnx
import onnx_ir as ir
import typer
from rich.console import Console
from rich.table import Column, Table

from onnxpress.backends.base import Array
from onnxpress.backends.serde import from_proto
from onnxpress.compiler.latency import latency_before_and_after

from . import fusion_probes
from .probe import Probe

HEAD = '<ir_version: 9, opset_import: ["" : 17]>'


def _model(body: str, dims: str, weights: dict[str, Array]) -> ir.Model:
    proto = onnx.parser.parse_model(f"{HEAD} g (float[{dims}] x) => (float[a,b,c] y) {{ {body} }}")
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return from_proto(proto)


@dataclass(frozen=True)
class Convolution:
    """A one-dimensional convolution of ``inputs`` to ``outputs`` channels over ``length``."""

    inputs: int
    outputs: int
    length: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def weight(self) -> Array:
        shape = (self.outputs, self.inputs // self.groups, self.kernel)
        weight = np.random.default_rng(0).normal(size=shape) / np.sqrt(shape[1] * shape[2])
        single: Array = weight.astype(np.float32)
        return single

    def call(self, source: str, target: str, weight: str, *, lifted: bool) -> str:
        pad, lead = self.kernel // 2, "1," if lifted else ""
        pads = f"0,{pad},0,{pad}" if lifted else f"{pad},{pad}"
        return (
            f"{target} = Conv <kernel_shape = [{lead}{self.kernel}], strides = [{lead}"
            f"{self.stride}], group = {self.groups}, pads = [{pads}]> ({source}, {weight})\n"
        )


_LIFTED = (
    ("strided", [Convolution(1, 258, 640, 256, 128)]),
    ("strided", [Convolution(128, 64, 4, 3, 2)]),
    ("strided", [Convolution(64, 64, 16_000, 4, 2)]),
    ("strided", [Convolution(384, 384, 3000, 3, 2)]),
    ("strided, few products", [Convolution(16, 16, 8, 3, 2)]),
    ("strided, many products", [Convolution(512, 512, 3199, 3, 2)]),
    ("depthwise", [Convolution(64, 64, 16, 7, groups=64)]),
    ("depthwise", [Convolution(256, 256, 200, 7, groups=256)]),
    ("depthwise", [Convolution(384, 384, 1500, 31, groups=384)]),
    ("grouped", [Convolution(128, 128, 64, 3, groups=4)]),
    ("one alone", [Convolution(64, 64, 128, 3)]),
    ("channels beside blocks", [Convolution(48, 196, 64, 5)]),
    ("a row of four", [Convolution(64, 64, 128, 3)] * 4),
    ("a row of three", [Convolution(32, 32, 400, 9)] * 3),
    ("a row of three", [Convolution(256, 256, 100, 3)] * 3),
)


def widen(seconds: float = 1.0) -> Iterator[Probe]:
    """One-dimensional convolutions, each followed by ``Relu``, against two-dimensional ones."""
    for kind, row in _LIFTED:
        flat, lifted = "", "u = Unsqueeze (x, axis)\n"
        weights: dict[str, Array] = {}
        high: dict[str, Array] = {"axis": np.array([2])}
        for index, one in enumerate(row):
            before, after = (f"r{index - 1}", f"r{index}") if index else ("x", "r0")
            relu = f"{after} = Relu (c{index})\n"
            flat += one.call(before, f"c{index}", f"w{index}", lifted=False) + relu
            source = before if index else "u"
            lifted += one.call(source, f"c{index}", f"w{index}", lifted=True) + relu
            weights[f"w{index}"] = one.weight()
            high[f"w{index}"] = one.weight()[:, :, None]
        last, first = f"r{len(row) - 1}", row[0]
        dims = f"1,{first.inputs},{first.length}"
        models = (
            _model(f"{flat} y = Relu ({last})", dims, weights),
            _model(f"{lifted} y = Squeeze ({last}, axis)", dims, high),
        )
        x = np.random.default_rng(0).normal(size=(1, first.inputs, first.length))
        timed = latency_before_and_after(
            *models, {"x": x.astype(np.float32)}, threads=1, seconds=seconds
        )
        what = f"{kind}: {first.inputs} -> {row[-1].outputs}, length {first.length}"
        what += f", kernel {first.kernel}, stride {first.stride}"
        yield Probe(what, timed["before"]["median_ms"] * 1000, timed["speedup"])


PROBES = {
    "widen-convs": widen,
    "fuse-attention": fusion_probes.attention,
    "fuse-siblings": fusion_probes.siblings,
    "recognize-activations": fusion_probes.normalizations,
}
"""What there is to probe, by the pass that relies on it."""


def probe(
    seconds: Annotated[float, typer.Option(help="Seconds for each comparison.")] = 1.0,
) -> None:
    """Measure what passes take for granted of ONNX Runtime."""
    right = [Column(head, justify="right") for head in ("as it was, us", "speedup")]
    table = Table("pass", "case", *right, box=None)
    for name, probes in PROBES.items():
        for one in probes(seconds):
            table.add_row(name, one.what, f"{one.baseline_us:.0f}", f"{one.speedup:.2f}x")
    Console(width=120).print(table)
