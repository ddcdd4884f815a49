"""What fusing passes take for granted of ONNX Runtime: attention, siblings, normalizations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx

from onnxpress.backends.base import Array
from onnxpress.backends.serde import from_proto
from onnxpress.compiler.latency import latency_before_and_after

from .probe import Probe

NEWEST: Final = 23

Sizes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Forms:
    """Two ways to compute the same, as ONNX text.

    ``inputs`` maps each input to its sizes, ``held`` names to constants, of which a form
    holds those that it reads.
    """

    what: str
    before: str
    after: str
    inputs: Sizes
    held: Mapping[str, Any]
    outputs: tuple[str, ...] = ("y",)

    def probe(self, seconds: float) -> Probe:
        """Time them."""
        rng = np.random.default_rng(0)
        feeds: dict[str, Array] = {
            name: rng.normal(size=sizes).astype(np.float32) for name, sizes in self.inputs.items()
        }
        before, after = self._model(self.before), self._model(self.after)
        timed = latency_before_and_after(before, after, feeds, threads=1, seconds=seconds)
        return Probe(self.what, timed["before"]["median_ms"] * 1000, timed["speedup"])

    def _model(self, body: str) -> Any:
        given = ", ".join(
            f"float[{','.join(map(str, sizes))}] {name}" for name, sizes in self.inputs.items()
        )
        answers = ", ".join(f"float {name}" for name in self.outputs)
        head = f'<ir_version: 10, opset_import: ["" : {NEWEST}]>'
        proto = onnx.parser.parse_model(f"{head} g ({given}) => ({answers}) {{ {body} }}")
        for output in proto.graph.output:
            output.type.tensor_type.ClearField("shape")
        for name in sorted(set(re.findall(r"\w+", body)) & self.held.keys()):
            array = self.held[name]
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return from_proto(proto)


def attention(seconds: float = 1.0) -> Iterator[Probe]:
    """Heads split, two products and a softmax, against the operator; then heads in groups."""
    for heads, size, length in ((12, 32, 16), (12, 32, 128), (3, 64, 197), (12, 64, 512)):
        width = heads * size
        held: dict[str, Any] = {
            "split": np.array([0, 0, heads, size]),
            "join": np.array([0, 0, width]),
        }
        held["root"] = np.float32(size**-0.5)
        turned = "".join(
            f"{part}4 = Reshape ({part}, split) {part}t = Transpose <perm = [{perm}]> ({part}4) "
            for part, perm in (("q", "0,2,1,3"), ("k", "0,2,3,1"), ("v", "0,2,1,3"))
        )
        before = (
            f"{turned} qs = Mul (qt, root) s = MatMul (qs, kt) w = Softmax <axis = -1> (s) "
            "o = MatMul (w, vt) t = Transpose <perm = [0,2,1,3]> (o) y = Reshape (t, join)"
        )
        counts = f"q_num_heads = {heads}, kv_num_heads = {heads}, scale = {size**-0.5}"
        after = f"y = Attention <{counts}> (q, k, v)"
        inputs: Sizes = dict.fromkeys("qkv", (1, length, width))
        yield Forms(f"{heads} heads of {size}, length {length}", before, after, inputs, held).probe(
            seconds
        )
    for heads, groups, queries, keys in ((8, 2, 64, 64), (8, 2, 1, 128), (32, 8, 1, 500)):
        held = {"two": np.array([2]), "times": np.array([1, 1, heads // groups, 1, 1])}
        held |= {"join": np.array([0, heads, -1, 64]), "root": np.float32(0.125)}
        repeated = "".join(
            f"{part}5 = Unsqueeze ({part}, two) {part}e = Expand ({part}5, times) "
            f"{part}r = Reshape ({part}e, join) "
            for part in "kv"
        )
        before = (
            f"{repeated} kt = Transpose <perm = [0,1,3,2]> (kr) s = MatMul (q, kt) "
            "n = Mul (s, root) w = Softmax <axis = -1> (n) y = MatMul (w, vr)"
        )
        inputs = {"q": (1, heads, queries, 64)} | dict.fromkeys("kv", (1, groups, keys, 64))
        what = f"{heads} heads in {groups} groups, {queries} queries, {keys} keys"
        after = "y = Attention <scale = 0.125> (q, k, v)"
        yield Forms(what, before, after, inputs, held).probe(seconds)


def siblings(seconds: float = 1.0) -> Iterator[Probe]:
    """Several layers that read the same, each with a ``Relu``, against one and a ``Split``."""
    rng = np.random.default_rng(0)
    for kernel, channels, size, width, count in (
        *((kernel, 64, 20, width, 2) for kernel in (1, 3) for width in (4, 8, 12, 16, 64)),
        *((1, 16, 40, width, 3) for width in (4, 8, 16)),
    ):
        weights = rng.normal(size=(count, width, channels, kernel, kernel)).astype(np.float32)
        pad = f"pads = [{','.join([str(kernel // 2)] * 4)}]"
        what = f"{count} Convs {kernel}x{kernel}, {channels} -> {width}, {size}x{size}"
        held = {"w": weights.reshape(-1, *weights.shape[2:]), "sizes": np.array([width] * count)}
        call = f"Conv <{pad}> (c, {{}})"
        first = {"e": rng.normal(size=(channels, channels, 1, 1)).astype(np.float32)}
        inputs: Sizes = {"x": (1, channels, size, size)}
        yield _siblings(
            what, "c = Conv (x, e)", call, 1, list(weights), inputs, held | first
        ).probe(seconds)
    for rows, inner, width, count in (
        *((1, 512, width, 2) for width in (4, 64)),
        *((100, 256, width, 2) for width in (4, 8, 16)),
        *((128, 384, 384, 3),),
    ):
        weights = rng.normal(size=(count, inner, width)).astype(np.float32)
        held = {"w": np.concatenate(list(weights), axis=1), "sizes": np.array([width] * count)}
        what = f"{count} MatMuls, {rows} rows, {inner} -> {width}"
        inputs = {"c": (1, rows, inner)}
        yield _siblings(what, "", "MatMul (c, {})", 2, list(weights), inputs, held).probe(seconds)


def _siblings(
    what: str,
    start: str,
    call: str,
    axis: int,
    weights: list[Array],
    inputs: Sizes,
    held: Mapping[str, Any],
) -> Forms:
    places = range(len(weights))
    relus = " ".join(f"y{at} = Relu (p{at})" for at in places)
    before = " ".join(f"p{at} = {call.format(f'w{at}')}" for at in places)
    parts = ", ".join(f"p{at}" for at in places)
    after = f"p = {call.format('w')} {parts} = Split <axis = {axis}> (p, sizes)"
    held = {**held, **{f"w{at}": weight for at, weight in enumerate(weights)}}
    outputs = tuple(f"y{at}" for at in places)
    one, other = (f"{start} {body} {relus}" for body in (before, after))
    return Forms(what, one, other, inputs, held, outputs)


_MEAN_SQUARE = "q = Mul (x, x) m = ReduceMean (q, last) a = Add (m, e) s = Sqrt (a) "
_DEVIATION = (
    "n = ReduceMean (x, last) c = Sub (x, n) q = Mul (c, c) m = ReduceMean (q, last) "
    "a = Add (m, e) s = Sqrt (a) "
)
_IMAGE_DEVIATION = _DEVIATION.replace("last", "places")
_SUM = "q = Mul (x, x) m = ReduceSum (q, last) s = Sqrt (m) y = Div (x, s)"
_NORMALIZATIONS: Final = (
    ("root mean square, reciprocal", _MEAN_SQUARE + "r = Reciprocal (s) y = Mul (x, r)",
     "y = RMSNormalization <axis = -1, epsilon = 0.00001> (x, ones)"),
    ("layer, without parameters", _DEVIATION + "y = Div (c, s)",
     "y = LayerNormalization <axis = -1, epsilon = 0.00001> (x, ones)"),
    ("root of summed squares", _SUM, "y = LpNormalization <axis = -1, p = 2> (x)"),
    ("stable softplus", "r = Relu (x) b = Abs (x) n = Neg (b) f = Exp (n) o = Add (f, one) "
     "l = Log (o) y = Add (r, l)", "y = Softplus (x)"),
)  # fmt: skip
_OF_IMAGES: Final = (
    ("instances", _IMAGE_DEVIATION + "y = Div (c, s)",
     "y = InstanceNormalization <epsilon = 0.00001> (x, ones, zeros)"),
    ("groups of channels", "r = Reshape (x, apart) i = InstanceNormalization (r, each, none) "
     "y = Reshape (i, whole)", "y = GroupNormalization <num_groups = 8> (x, ones, zeros)"),
)  # fmt: skip


def normalizations(seconds: float = 1.0) -> Iterator[Probe]:
    """Spelled out, against the operator."""
    held: dict[str, Any] = {"last": np.array([-1]), "e": np.float32(1e-5), "one": np.float32(1)}
    for sizes in ((1, 128, 384), (1, 16, 256), (512, 64)):
        ones = {"ones": np.ones(sizes[-1], np.float32)}
        for name, before, after in _NORMALIZATIONS:
            forms = Forms(f"{name}, {sizes}", before, after, {"x": sizes}, held | ones)
            yield forms.probe(seconds)
    for shape in ((1, 64, 32, 32), (2, 128, 8, 8)):
        more: dict[str, Any] = {"places": np.array([2, 3]), "apart": np.array([0, 8, -1])}
        more |= {"whole": np.array(shape), "e": held["e"]}
        more |= {"ones": np.ones(shape[1], np.float32), "zeros": np.zeros(shape[1], np.float32)}
        more |= {"each": np.ones(8, np.float32), "none": np.zeros(8, np.float32)}
        for name, before, after in _OF_IMAGES:
            yield Forms(f"{name}, {shape}", before, after, {"x": shape}, more).probe(seconds)
