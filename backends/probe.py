"""What ONNX Runtime's int8 and float16 kernels do on this machine, found by running them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

from .base import Array, Feeds, SessionConfig
from .ort import OrtSession, session_of
from .timing import compare_latency

_SCALES: Final = {"s": np.float32(0.02), "v": np.float32(0.002), "t": np.float32(0.05)}


@dataclass(frozen=True)
class KernelSpeed:
    """How many times as fast as float32 one operator runs in ``dtype``, one thread, median."""

    operator: str
    dtype: str
    speedup: float


def u8s8_saturates() -> bool:
    """Whether products of unsigned activations and signed weights are added in 16 bits here.

    Kernels for AVX2 and AVX-512 without VNNI add pairs of products with saturation, so that 64
    times 255 * 127 comes out as 32 times 32767.
    """
    proto = _parsed("main (uint8[1,64] x) => (int32[1,64] y) { y = MatMulInteger(x, w) }")
    _add(proto, {"w": np.full((64, 64), 127, np.int8)})
    answer = session_of(proto.SerializeToString()).run({"x": np.full((1, 64), 255, np.uint8)})
    return int(answer["y"][0, 0]) != 64 * 255 * 127


def kernel_speeds(seconds: float = 0.3) -> list[KernelSpeed]:
    """The speed of int8 and float16 kernels over float32's, for a product and a convolution.

    ``seconds`` is the time for each comparison. It is an indication: what a model gains depends
    on its sizes and on everything around these operators.
    """
    found = []
    for operator, sessions in (("MatMul", _products()), ("Conv", _convolutions())):
        runs = [session.bind(feeds) for session, feeds in sessions.values()]
        timings = compare_latency(runs, list(sessions), seconds=seconds * len(runs), warmup=0.05)
        found += [KernelSpeed(operator, p.candidate, p.speedup) for p in timings.pairs]
    return found


def _products() -> dict[str, tuple[OrtSession, Feeds]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 256)).astype(np.float32)
    w = rng.normal(size=(256, 256)).astype(np.float32)
    plain = "main ({0}[256,256] x) => ({0}[256,256] y) {{ y = MatMul(x, w) }}"
    quantized = """main (uint8[256,256] x) => (uint8[256,256] y) {
        y = QLinearMatMul(x, s, zx, w, v, zw, t, zx)
    }"""
    return _three(plain, quantized, x, w)


def _convolutions() -> dict[str, tuple[OrtSession, Feeds]]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 64, 28, 28)).astype(np.float32)
    w = rng.normal(size=(64, 64, 3, 3)).astype(np.float32)
    plain = (
        "main ({0}[1,64,28,28] x) => ({0}[1,64,28,28] y) {{ y = Conv <pads = [1,1,1,1]> (x, w) }}"
    )
    quantized = """main (uint8[1,64,28,28] x) => (uint8[1,64,28,28] y) {
        y = QLinearConv <pads = [1,1,1,1]> (x, s, zx, w, v, zw, t, zx)
    }"""
    return _three(plain, quantized, x, w)


def _three(plain: str, quantized: str, x: Array, w: Array) -> dict[str, tuple[OrtSession, Feeds]]:
    unsigned = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    signed = np.clip(w * 40, -127, 127).astype(np.int8)
    zeros = {"zx": np.uint8(128), "zw": np.int8(0)}
    half = {"w": w.astype(np.float16)}
    return {
        "float32": (_session(plain.format("float"), {"w": w}), {"x": x}),
        "int8": (_session(quantized, {"w": signed, **_SCALES, **zeros}), {"x": unsigned}),
        "float16": (_session(plain.format("float16"), half), {"x": x.astype(np.float16)}),
    }


def _session(text: str, weights: Mapping[str, Array | np.generic]) -> OrtSession:
    proto = _parsed(text)
    _add(proto, weights)
    return session_of(proto.SerializeToString(), SessionConfig(threads=1))


def _parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}')


def _add(proto: onnx.ModelProto, weights: Mapping[str, Array | np.generic]) -> None:
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    )
