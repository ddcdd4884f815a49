"""What ONNX Runtime's CPU provider does with an operator between two convolutions.

A model of Conv, operator, Conv is loaded, and the graph that ONNX Runtime makes of it is read: is
the operator part of the Conv, does it run on the blocked (NCHWc) layout, or does it leave it, so
that the tensor is reordered there and back? ``python -m benchmarks layout`` prints all of it; the
page "How ONNX Runtime runs a graph" stands on these answers.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from rich.console import Console

from .printing import table

_HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
_CHANNELS, _SIZE = 32, 16

BETWEEN: dict[str, str] = {
    "Relu": "b = Relu (a)",
    "Clip": "b = Clip (a, zero, six)",
    "LeakyRelu": "b = LeakyRelu (a)",
    "Sigmoid": "b = Sigmoid (a)",
    "Tanh": "b = Tanh (a)",
    "HardSigmoid": "b = HardSigmoid (a)",
    "HardSwish": "b = HardSwish (a)",
    "x * HardSigmoid(x)": "h = HardSigmoid <alpha = 0.16666667> (a)  b = Mul (a, h)",
    "x * Sigmoid(x)": "h = Sigmoid (a)  b = Mul (a, h)",
    "QuickGelu": "b = com.microsoft.QuickGelu <alpha = 1.0> (a)",
    "Gelu": "b = com.microsoft.Gelu (a)",
    "Add of two blocked tensors": "h = Relu (a)  c = Conv (h, w2)  b = Add (c, h)",
    "Mul of two blocked tensors": "h = Relu (a)  c = Conv (h, w2)  b = Mul (c, h)",
    "Concat of channels": "h = Relu (a)  c = Conv (h, w2)  d = Concat <axis = 1> (c, h)  "
    "b = Conv (d, wide)",
    "MaxPool": "b = MaxPool <kernel_shape = [2, 2]> (a)",
    "GlobalAveragePool": "b = GlobalAveragePool (a)",
    "Mul by a constant for each channel": "h = Relu (a)  b = Mul (h, each)",
    "Add of a constant for each channel": "h = Relu (a)  b = Add (h, each)",
    "BatchNormalization after an activation": "h = Relu (a)  "
    "b = BatchNormalization (h, s, s, s, s)",
    "Mul by a scalar after an activation": "h = Relu (a)  b = Mul (h, six)",
    "Add of a scalar": "b = Add (a, six)",
    "Div by a scalar": "h = Relu (a)  b = Div (h, six)",
    "HardSwish spelled out": "h = Add (a, three)  c = Clip (h, zero, six)  d = Mul (a, c)  "
    "b = Div (d, six)",
    "Sub of two blocked tensors": "h = Relu (a)  c = Conv (h, w2)  b = Sub (c, h)",
    "Max of two blocked tensors": "h = Relu (a)  c = Conv (h, w2)  b = Max (c, h)",
    "Split of channels": "h, c = Split <axis = 1> (a)  b = Concat <axis = 1> (c, h)",
    "PRelu": "b = PRelu (a, each)",
    "Elu": "b = Elu (a)",
    "Softplus": "b = Softplus (a)",
    "InstanceNormalization": "b = InstanceNormalization (a, s, s)",
    "Transpose of the image": "b = Transpose <perm = [0, 1, 3, 2]> (a)",
    "ReduceMean of the image": "b = ReduceMean <axes = [2, 3]> (a)",
    "a gate of [N, C, 1, 1]": "h = Relu (a)  c = GlobalAveragePool (h)  d = Conv (c, w2)  "
    "e = Sigmoid (d)  b = Mul (h, e)",
}
"""Lines that make ``b`` of ``a``, what one convolution answers and another reads."""


def model(lines: str) -> onnx.ModelProto:
    """Conv, ``lines``, Conv."""
    proto = onnx.parser.parse_model(
        f"{_HEAD} g (float[N,{_CHANNELS},{_SIZE},{_SIZE}] x) => (float[n,c,h,w] y) "
        f"{{ a = Conv (x, w1)  {lines}  y = Conv (b, w3) }}"
    )
    rng = np.random.default_rng(0)
    square = (_CHANNELS, _CHANNELS, 1, 1)
    arrays = {name: rng.normal(size=square) / 6 for name in ("w1", "w2", "w3")}
    arrays["wide"] = rng.normal(size=(_CHANNELS, 2 * _CHANNELS, 1, 1)) / 8
    arrays |= {"each": rng.normal(size=(_CHANNELS, 1, 1)), "s": np.ones(_CHANNELS)}
    arrays |= {"zero": np.array(0.0), "three": np.array(3.0), "six": np.array(6.0)}
    used = {name for node in proto.graph.node for name in node.input}
    for name in sorted(arrays.keys() & used):
        tensor = onnx.numpy_helper.from_array(arrays[name].astype(np.float32), name)
        proto.graph.initializer.append(tensor)
    return proto


def optimized(proto: onnx.ModelProto, level: str = "ALL") -> onnx.ModelProto:
    """The graph that the CPU provider runs in a session of that level."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        providers = ["CPUExecutionProvider"]
        ort.InferenceSession(proto.SerializeToString(), options, providers=providers)
        return onnx.load(path)


def operators(proto: onnx.ModelProto) -> Counter[str]:
    """The operators of a graph."""
    return Counter(node.op_type for node in proto.graph.node)


def verdict(name: str) -> str:
    """What becomes of ``BETWEEN[name]``: ``fused``, ``a Conv``, ``blocked`` or ``leaves``."""
    before = model(BETWEEN[name])
    found = operators(optimized(before))
    # The first Conv reads, and the last answers, a tensor in the common layout.
    if found["ReorderInput"] + found["ReorderOutput"] > 2:
        return "leaves"
    if found["Conv"] > operators(before)["Conv"]:
        return "a Conv"
    return "fused" if found.keys() <= {"Conv", "ReorderInput", "ReorderOutput"} else "blocked"


FUSIONS: dict[str, str] = {
    "GELU by the error function": "a = Div (x, root)  b = Erf (a)  c = Add (b, one)  "
    "d = Mul (x, c)  y = Mul (d, half)",
    "layer normalization in nine operators": "m = ReduceMean <axes = [-1]> (x)  d = Sub (x, m)  "
    "p = Pow (d, two)  v = ReduceMean <axes = [-1]> (p)  e = Add (v, small)  r = Sqrt (e)  "
    "n = Div (d, r)  g = Mul (n, row)  y = Add (g, row)",
    "MatMul and Add on matrices": "a = MatMul (x, square)  y = Add (a, row)",
    "Transpose and MatMul": "t = Transpose (x)  y = MatMul (t, x)",
    "x * Sigmoid(x)": "a = Sigmoid (x)  y = Mul (x, a)",
    "Softplus as Log(1 + Exp(x))": "a = Exp (x)  b = Add (a, one)  y = Log (b)",
    "QuantizeLinear around a Conv": "q = QuantizeLinear (i, s, z)  d = DequantizeLinear (q, s, z)  "
    "w = DequantizeLinear (k, s, n)  c = Conv (d, w)  u = QuantizeLinear (c, s, z)  "
    "y = DequantizeLinear (u, s, z)",
    "the same without QuantizeLinear behind": "q = QuantizeLinear (i, s, z)  "
    "d = DequantizeLinear (q, s, z)  w = DequantizeLinear (k, s, n)  y = Conv (d, w)",
}
"""Lines that make ``y`` of a matrix ``x``, or of an image ``i``."""


def fused(name: str) -> list[str]:
    """The operators that ``FUSIONS[name]`` becomes, in order."""
    lines = FUSIONS[name]
    source = "i" if "(i," in lines else "x"
    dims = "1,4,8,8" if source == "i" else "6,8"
    proto = onnx.parser.parse_model(
        f"{_HEAD} g (float[{dims}] {source}) => (float y) {{ {lines} }}"
    )
    arrays: dict[str, object] = {"root": 2**0.5, "one": 1.0, "two": 2.0, "half": 0.5, "small": 1e-5}
    arrays |= {"row": np.ones(8), "square": np.ones((8, 8)), "s": 0.1}
    for key, array in arrays.items():
        if any(key in node.input for node in proto.graph.node):
            single = np.asarray(array, np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(single, key))
    if source == "i":
        whole = {"z": np.uint8(128), "n": np.int8(0), "k": np.ones((4, 4, 3, 3), np.int8)}
        for key, number in whole.items():
            tensor = onnx.numpy_helper.from_array(np.asarray(number), key)
            proto.graph.initializer.append(tensor)
    return [node.op_type for node in optimized(proto).graph.node]


def layout_suite() -> None:
    """Read what ONNX Runtime makes of an operator between two convolutions, and of patterns."""
    shown = table("between two convolutions", "what becomes of it", "operators")
    for name, lines in BETWEEN.items():
        found = operators(optimized(model(lines)))
        counts = ", ".join(f"{kind} {count}" for kind, count in found.items())
        shown.add_row(name, verdict(name), counts)
    console = Console(width=140)
    console.print(shown)
    shown = table("pattern", "operators")
    for name in FUSIONS:
        shown.add_row(name, ", ".join(fused(name)))
    console.print(shown)
    console.print(f"onnxruntime {ort.__version__}")
