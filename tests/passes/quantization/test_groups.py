"""What the linter says of each group, against the graph that ONNX Runtime makes of it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Feeds
from onnxpress.backends.optimized import optimized_operators
from onnxpress.backends.serde import from_proto
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.groups import Group, find_groups, integer_kernels
from onnxpress.passes.quantization.insert_qdq import InsertQDQ

HASWELL, ARM = Target("cpu", frozenset({"avx2"})), Target("cpu", frozenset({"asimd"}))
VNNI = Target("cpu", frozenset({"avx2", "avx512_vnni"}))

D = "q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  "
E = "e0 = QuantizeLinear (x, t, z)  e = DequantizeLinear (e0, t, z)  "
W = "v = DequantizeLinear <axis = 0> (w, ws, wz)  "
B = "c = DequantizeLinear <axis = 0> (b, bs)  "
M = "n = DequantizeLinear (m, ms, mz)  "


def q(name: str, zero: str = "z", scale: str = "t") -> str:
    return (
        f"r = QuantizeLinear ({name}, {scale}, {zero})  y = DequantizeLinear (r, {scale}, {zero})"
    )


def arrays(kind: str) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    low = np.iinfo(kind).min
    found: dict[str, object] = {
        "s": np.float32(6 / 255), "t": np.float32(0.05), "z": np.asarray(low + 128, kind),
        "least": np.asarray(low, kind), "w": rng.integers(-100, 100, (8, 8, 3, 3), np.int8),
        "ws": np.full(8, 0.01, np.float32), "wz": np.zeros(8, np.int8),
        "u": rng.integers(0, 200, (8, 8, 3, 3), np.uint8), "uz": np.full(8, 128, np.uint8),
        "b": np.zeros(8, np.int32), "bs": np.full(8, 0.06 / 255, np.float32),
        "half_bs": np.full(8, 0.03 / 255, np.float32),
        "b8": np.zeros(8, np.int8), "bf": np.zeros(8, np.float32),
        "wf": rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "m": rng.integers(-100, 100, (6, 6), np.int8), "ms": np.float32(0.01), "mz": np.int8(0),
        "each": np.full(6, 0.01, np.float32), "each0": np.zeros(6, np.int8),
        "half": np.float32(0.5), "zero": np.float32(0), "six": np.float32(6),
        "axes": np.array([2]), "starts": np.array([0]), "ends": np.array([4]),
        "parts": np.array([4, 4]), "roi": np.zeros(0, np.float32), "yes": np.array([True]),
        "scales": np.array([1, 1, 2, 2], np.float32), "shape": np.array([0, 0, -1]),
    }  # fmt: skip
    return {name: np.asarray(array) for name, array in found.items()}


def build(body: str, kind: str = "uint8", opset: int = 17, shape: str = "b,8,6,6") -> ir.Model:
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
        f"main (float[{shape}] x) => (float[n] y) {{ {body} }}"
    )
    used = {name for node in proto.graph.node for name in node.input}
    used -= {name for node in proto.graph.node for name in node.output}
    for name, array in arrays(kind).items():
        if name in used:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return from_proto(proto)


def kernels(groups: list[Group]) -> Counter[str]:
    return Counter(integer_kernels(group.kernel for group in groups))


CASES: dict[str, tuple[str, str]] = {
    "Conv": (D + W + "o = Conv (d, v)  " + q("o"), ""),
    "Conv, bias": (D + W + B + "o = Conv (d, v, c)  " + q("o"), ""),
    "Conv, float bias": (D + W + "o = Conv (d, v, bf)  " + q("o"), ""),
    "Conv, float weight": (D + "o = Conv (d, wf)  " + q("o"), ""),
    "Conv, unsigned weight": (
        D + "v = DequantizeLinear <axis = 0> (u, ws, uz)  o = Conv (d, v)  " + q("o"), "",
    ),
    "Conv, Relu": (D + W + "o = Conv (d, v)  p = Relu (o)  " + q("p", "least"), ""),
    "Conv, Clip": (D + W + "o = Conv (d, v)  p = Clip (o, zero, six)  " + q("p", "least", "s"), ""),
    "Conv, MaxPool": (
        D + W + "o = Conv (d, v)  p = MaxPool <kernel_shape = [2, 2]> (o)  " + q("p"), "",
    ),
    "Conv, no Q": (D + W + "y = Conv (d, v)", "its output is not quantized"),
    "Conv, float input": (W + "o = Conv (x, v)  " + q("o"), "its first input is not dequantized"),
    "Conv, 8-bit bias": (
        D + W + "c = DequantizeLinear <axis = 0> (b8, bs, wz)  o = Conv (d, v, c)  " + q("o"),
        "its bias is not 32-bit",
    ),
    "Conv, bias of another scale": (
        D + W + "c = DequantizeLinear <axis = 0> (b, half_bs)  o = Conv (d, v, c)  " + q("o"),
        "the scale of its bias is not the product",
    ),
    "Conv, Relu that stays": (
        D + W + "o = Conv (d, v)  p = Relu (o)  " + q("p"), "the Relu behind it does not vanish",
    ),
    "Conv, Clip that stays": (
        D + W + "o = Conv (d, v)  p = Clip (o, zero, six)  " + q("p", "least"),
        "the Clip behind it does not vanish",
    ),
    "Conv, HardSwish": (
        D + W + "o = Conv (d, v)  p = HardSwish (o)  " + q("p"),
        "HardSwish stands between it and the QuantizeLinear",
    ),
    "Conv, two readers": (
        D + W + "o = Conv (d, v)  f = Erf (o)  r = QuantizeLinear (o, t, z)  "
        "g = DequantizeLinear (r, t, z)  y = Sub (f, g)",
        "something besides the QuantizeLinear reads its output",
    ),
    "Add": (D + E + "o = Add (d, e)  " + q("o"), ""),
    "Add, Relu": (D + E + "o = Add (d, e)  p = Relu (o)  " + q("p", "least"), ""),
    "Add, no Q": (D + E + "y = Add (d, e)", "its output is not quantized"),
    "Add, one of them": (D + "o = Add (d, x)  " + q("o"), "its input 'x' is not dequantized"),
    "Mul, a constant": (D + "o = Mul (d, half)  " + q("o"), "its input 'half' is not dequantized"),
    "Concat": (D + E + "o = Concat <axis = 1> (d, e)  " + q("o"), ""),
    "Where": (D + E + "o = Where (yes, d, e)  " + q("o"), ""),
    "Softmax": (D + "o = Softmax (d)  " + q("o"), ""),
    "Sub": (D + E + "o = Sub (d, e)  " + q("o"), "ONNX Runtime has no integer kernel for Sub"),
    "Tanh": (D + "o = Tanh (d)  " + q("o"), "ONNX Runtime has no integer kernel for Tanh"),
    "MatMul": (D + M + "o = MatMul (d, n)  " + q("o"), ""),
    "MatMul, no Q": (D + M + "y = MatMul (d, n)", ""),
    "MatMul of activations": (D + E + "o = MatMul (d, e)  " + q("o"), ""),
    "MatMul, scale per column": (
        D + "n = DequantizeLinear <axis = 1> (m, each, each0)  o = MatMul (d, n)  " + q("o"), "",
    ),
    "MatMul, scale per row": (
        D + "n = DequantizeLinear <axis = 0> (m, each, each0)  o = MatMul (d, n)  " + q("o"),
        "its weight has a scale per row",
    ),
    "MatMul, float input": (M + "y = MatMul (x, n)", "its input 'x' is not dequantized"),
    "MaxPool": (D + "o = MaxPool <kernel_shape = [2, 2]> (d)  " + q("o", scale="s"), ""),
    "ReduceMax": (D + "o = ReduceMax <axes = [2]> (d)  " + q("o", scale="s"), ""),
    "DepthToSpace": (D + "o = DepthToSpace <blocksize = 2> (d)  " + q("o", scale="s"), ""),
    "Flatten": (D + "o = Flatten (d)  " + q("o", scale="s"), ""),
    "Flatten, other scale": (D + "o = Flatten (d)  " + q("o"), "the scales and zero points"),
    "Resize": (D + "o = Resize (d, roi, scales)  " + q("o", scale="s"), ""),
    "Resize, linear": (
        D + 'o = Resize <mode = "linear"> (d, roi, scales)  ' + q("o", scale="s"),
        "by nearest neighbours only",
    ),
    "Split": (
        D + "k, l = Split <axis = 1> (d, parts)  k1 = QuantizeLinear (k, s, z)  "
        "k2 = DequantizeLinear (k1, s, z)  l1 = QuantizeLinear (l, s, z)  "
        "l2 = DequantizeLinear (l1, s, z)  y = Sub (k2, l2)",
        "ONNX Runtime has no integer kernel for Sub",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_what_onnx_runtime_does(case: str, kind: str) -> None:
    body, reason = CASES[case]
    model = build(body, kind)

    groups = find_groups(model, HASWELL)

    assert reason in " ".join(group.reason for group in groups)
    assert bool(reason) == any(not group.kernel for group in groups)
    assert all(group.reason and group.advice for group in groups if not group.kernel)
    made = optimized_operators(model)
    assert kernels(groups) == Counter(integer_kernels(made.elements()))
    if not reason and not any(group.reason for group in groups):
        assert made["DequantizeLinear"] <= 1


@pytest.mark.parametrize("opset", [13, 19, 21, 23])
@pytest.mark.parametrize("case", ["Conv, Relu", "Conv, Clip", "Conv, MaxPool", "Concat", "MatMul"])
def test_newer_opsets_fuse_alike(case: str, opset: int) -> None:
    model = build(CASES[case][0], opset=opset)

    made = Counter(integer_kernels(optimized_operators(model).elements()))

    assert kernels(find_groups(model, HASWELL)) == made != Counter()


@pytest.mark.parametrize("case", ["Conv", "Add", "Concat", "Sigmoid", "MaxPool", "MatMul"])
def test_16_bits_have_no_kernels(case: str) -> None:
    body = CASES[case][0] if case in CASES else D + "o = Sigmoid (d)  " + q("o")
    model = build(body, "uint16", opset=21)

    groups = find_groups(model, HASWELL)

    assert [group.reason for group in groups] == [
        "its inputs are uint16, and there are kernels for 8 bits alone"
    ]
    assert not Counter(integer_kernels(optimized_operators(model).elements()))


@pytest.mark.parametrize(
    ("body", "kernel", "reason"),
    [
        (M + "y = Gemm (d, n)", "QGemm", ""),
        (M + "y = Gemm <transA = 1, transB = 1, alpha = 0.5> (d, n)", "QGemm", ""),
        (M + "o = Gemm (d, n)  p = Relu (o)  " + q("p", "least"), "QGemm", ""),
        (M + "y = Gemm (d, n, each)", "", "its bias is not dequantized"),
    ],
)
def test_gemm(body: str, kernel: str, reason: str) -> None:
    model = build(D + body, shape="6,6")

    (group,) = find_groups(model, HASWELL)

    assert (group.kernel, group.reason) == (kernel, reason)
    assert Counter(integer_kernels(optimized_operators(model).elements())) == kernels([group])


def test_a_shared_dequantize_keeps_signed_activations_in_float() -> None:
    two = "o = Conv (d, v)  r0 = QuantizeLinear (o, t, z)  f = DequantizeLinear (r0, t, z)  "
    model = build(
        D + W + two + "o1 = Conv (d, v)  " + q("o1").replace("y =", "g =") + "y = Sub(f, g)", "int8"
    )

    reasons = [g.reason for g in find_groups(model, HASWELL) if g.node.op_type == "Conv"]

    assert (
        reasons
        == ["signed activations that several operators read, which x86 has no kernels for"] * 2
    )
    assert not optimized_operators(model)["QLinearConv"]
    assert all(g.kernel for g in find_groups(model, ARM) if g.node.op_type == "Conv")


def test_float_models_have_no_groups() -> None:
    assert find_groups(build("y = Conv (x, wf)"), HASWELL) == []


def test_what_reads_a_shape_only_is_no_group() -> None:
    assert find_groups(build(D + "k = Shape (d)  y = Cast <to = 1> (k)"), HASWELL) == []


def test_groups_in_bodies_are_found() -> None:
    body = (
        D + "y = If (yes) <then_branch = a () => (float[b,8,4,4] k) { "
        "v = DequantizeLinear <axis = 0> (w, ws, wz)  k0 = Conv (d, v)  "
        "k1 = QuantizeLinear (k0, t, z)  k = DequantizeLinear (k1, t, z) }, "
        "else_branch = b () => (float[b,8,4,4] l) { l = Conv (x, wf) }>"
    )
    model = build(body)
    proto = ir.to_proto(model)
    names = {init.name for init in proto.graph.initializer}
    for name in {"w", "ws", "wz", "t", "wf"} - names:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(arrays("uint8")[name], name))

    (group,) = find_groups(from_proto(proto), HASWELL)

    assert group.kernel == "QLinearConv"


@pytest.mark.parametrize(
    ("target", "saturating", "advice"),
    [
        (HASWELL, 7, "weights overflow 16-bit sums"),
        (Target("portable"), 7, "weights overflow 16-bit sums"),
        (VNNI, 0, ""),
        (ARM, 0, ""),
    ],
)
def test_channels_that_overflow_are_counted(target: Target, saturating: int, advice: str) -> None:
    (group,) = find_groups(build(CASES["Conv"][0]), target)

    assert (group.channels, group.saturating) == (8, saturating)
    assert group.advice.startswith(advice)


@pytest.mark.parametrize(
    ("case", "kind", "target", "advice"),
    [
        ("Conv, unsigned weight", "uint8", VNNI, "unsigned weights are slower"),
        ("Conv", "int8", VNNI, "signed activations are slow on x86"),
        ("Conv", "int8", ARM, ""),
    ],
)
def test_slow_types_are_told(case: str, kind: str, target: Target, advice: str) -> None:
    (group,) = find_groups(build(CASES[case][0], kind), target)

    assert group.kernel == "QLinearConv"
    assert group.advice.startswith(advice)


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["ppocr-det", "ppocr-rec", "nudenet-320n", "mobilenet-v2-torchscript"]
)
def test_real_models_become_what_is_foretold(name: str) -> None:
    from benchmarks.corpus import load_corpus

    corpus = load_corpus()[name]
    if not corpus.is_fetched:
        pytest.skip(f"{name} is not fetched")
    feeds = corpus.feeds()[0]

    class One:
        def batches(self, size: int) -> Iterator[Feeds]:
            del size
            yield feeds

    model = ir.load(corpus.path)
    InsertQDQ(where="pays").rewrite(model, Context(data=One()))

    foretold = kernels(find_groups(model, HASWELL))
    made = optimized_operators(model)
    assert foretold == Counter(integer_kernels(made.elements())) != Counter()
