"""InsertQDQ: every group becomes an integer kernel, the answers stay, the rest has a reason."""

import re
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import DataError, PassError, UsageError
from onnxpress.backends.serde import from_proto
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.arithmetic import INT16_MAX, QMAX
from onnxpress.passes.quantization.groups import find_groups, integer_kernels
from onnxpress.passes.quantization.insert_qdq import InsertQDQ
from onnxpress.passes.quantization.saturation import worst_sums

WEIGHTS: dict[str, tuple[int, ...]] = {
    "w": (8, 4, 3, 3), "v": (4, 8, 1, 1), "d": (8, 1, 3, 3), "b": (8,), "c": (4,),
    "m": (16, 12), "n": (12, 16), "t": (12, 16), "u": (6, 8), "e": (12,), "f": (16,),
    "stack": (5, 16, 12), "table": (3, 12),
}  # fmt: skip


def _int64(values: list[int]) -> Array:
    return np.array(values, np.int64)


def _float32(values: list[float]) -> Array:
    return np.array(values, np.float32)


CONSTANTS: dict[str, Any] = {
    "zero": np.float32(0), "half": np.float32(0.5), "six": np.float32(6), "max": np.float32(3e38),
    "parts": _int64([4, 4]), "axes": _int64([2]), "starts": _int64([0]),
    "ends": _int64([4]), "scales": _float32([1, 1, 2, 2]), "roi": _float32([]),
    "nan": np.full((16, 12), np.nan, np.float32), "inf": np.full(12, np.inf, np.float32),
    "fp64": np.ones((16, 12), np.float64), "vector": np.ones(16, np.float32),
}  # fmt: skip
IMAGE = "(float[b,4,6,6] x) => (float[b,p,q,r] y)"
ROWS = "(float[b,16] x) => (float[b,p] y)"
STEPS = "(float[b,5,16] x) => (float[b,5,12] y)"
CONV = "Conv <pads = [1,1,1,1]>"


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def build(signature: str, body: str, opset: int = 13) -> ir.Model:
    """A model whose constants are those of WEIGHTS and CONSTANTS that it names."""
    rng = np.random.default_rng(0)
    arrays = {name: normal(rng, shape) for name, shape in WEIGHTS.items()}
    arrays |= {name: np.asarray(value) for name, value in CONSTANTS.items()}
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\nmain {signature} {{\n{body}\n}}'
    used = {name for name in re.findall(r"\w+", body) if name in arrays}
    used -= set(re.findall(r"\] (\w+)", signature))
    tensors = [ir.tensor(arrays[name], name=name) for name in sorted(used)]
    return ir.from_onnx_text(text, initializers=tensors)


def sample(model: ir.Model, count: int = 32, seed: int = 1) -> Array:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    count = shape[0] if isinstance(shape[0], int) else count
    inner = [size if isinstance(size, int) else 3 for size in shape[1:]]
    return normal(np.random.default_rng(seed), (count, *inner))


def quantize(model: ir.Model, samples: type, target: str = "cpu", **options: Any) -> Any:
    context = Context(
        target=Target(target),  # type: ignore[arg-type]
        data=samples({model.graph.inputs[0].name: sample(model)}),
    )
    return InsertQDQ(**options).rewrite(model, context)


def expand(operators: str) -> Counter[str]:
    """``Q 2xQLinearConv DQ`` as a counter."""
    counts: Counter[str] = Counter()
    for word in operators.split():
        count, _, name = word.rpartition("x") if re.match(r"\d+x", word) else ("1", "", word)
        counts[{"Q": "QuantizeLinear", "DQ": "DequantizeLinear"}.get(name, name)] += int(count)
    return counts


FUSED = {
    "a Conv": (IMAGE, f"y = {CONV} (x, w)", "Q QLinearConv DQ"),
    "its bias": (IMAGE, f"y = {CONV} (x, w, b)", "Q QLinearConv DQ"),
    "its Relu": (IMAGE, f"h = {CONV} (x, w, b)\n y = Relu (h)", "Q QLinearConv DQ"),
    "its Clip": (IMAGE, f"h = {CONV} (x, w)\n y = Clip (h, zero, six)", "Q QLinearConv DQ"),
    "a Clip off zero": (
        IMAGE, f"h = {CONV} (x, w)\n y = Clip (h, half, six)", "Q QLinearConv DQ Clip",
    ),
    "a Clip without end": (
        IMAGE, f"h = {CONV} (x, w)\n y = Clip (h, zero, max)", "Q QLinearConv DQ Clip",
    ),
    "a Clip with one bound": (
        IMAGE, f"h = {CONV} (x, w)\n y = Clip (h, zero)", "Q QLinearConv DQ Clip",
    ),
    "depthwise": (
        IMAGE, f"h = {CONV} (x, w)\n y = Conv <group = 8> (h, d, b)", "Q 2xQLinearConv DQ",
    ),
    "MaxPool": (
        IMAGE,
        f"h = {CONV} (x, w)\n p = MaxPool <kernel_shape = [2,2]> (h)\n y = Conv (p, v)",
        "Q 2xQLinearConv MaxPool DQ",
    ),
    "two readers": (
        IMAGE,
        f"h = {CONV} (x, w)\n l = Conv (h, v)\n r = Conv (h, v, c)\n y = Add (l, r)",
        "Q 3xQLinearConv 2xDQ Add",
    ),
    "a residual": (
        IMAGE,
        f"h = {CONV} (x, w)\n l = Conv (h, v)\n r = Conv (h, v, c)\n a = Add (l, r)\n"
        f"k = Relu (a)\n y = {CONV} (k, w, b)",
        "Q 4xQLinearConv QLinearAdd DQ",
    ),
    "SiLU": (
        IMAGE,
        f"h = {CONV} (x, w)\n s = Sigmoid (h)\n a = Mul (h, s)\n y = Conv (a, v)",
        "Q 2xQLinearConv QLinearSigmoid QLinearMul DQ",
    ),
    "LeakyRelu": (
        IMAGE,
        f"h = {CONV} (x, w)\n s = LeakyRelu (h)\n y = Conv (s, v)",
        "Q 2xQLinearConv QLinearLeakyRelu DQ",
    ),
    "AveragePool": (
        IMAGE,
        f"h = {CONV} (x, w)\n s = AveragePool <kernel_shape = [2,2]> (h)\n y = Conv (s, v)",
        "Q 2xQLinearConv QLinearAveragePool DQ",
    ),
    "Split and Concat": (
        IMAGE,
        f"h = {CONV} (x, w)\n l, r = Split <axis = 1> (h, parts)\n"
        "a = Concat <axis = 1> (r, l)\n y = Conv (a, v)",
        "Q 2xQLinearConv Split QLinearConcat DQ",
    ),
    "Resize": (
        IMAGE,
        f'h = {CONV} (x, w)\n a = Resize <mode = "nearest"> (h, roi, scales)\n y = Conv (a, v)',
        "Q 2xQLinearConv Resize DQ",
    ),
    "DepthToSpace": (
        IMAGE,
        f"h = {CONV} (x, w)\n a = DepthToSpace <blocksize = 2> (h)\n"
        "s = SpaceToDepth <blocksize = 2> (a)\n y = Conv (s, v)",
        "2xQ 2xQLinearConv 2xDQ DepthToSpace SpaceToDepth",
    ),
    "Slice and Transpose": (
        IMAGE,
        f"h = {CONV} (x, w)\n s = Slice (h, starts, ends, axes)\n"
        "a = Transpose <perm = [0,1,3,2]> (s)\n y = Conv (a, v)",
        "Q 2xQLinearConv Slice DQ",
    ),
    "pooled into a Gemm": (
        "(float[b,4,6,6] x) => (float[b,p] y)",
        f"h = {CONV} (x, w, b)\n k = Relu (h)\n g = GlobalAveragePool (k)\n"
        "z = Flatten (g)\n y = Gemm <transB = 1> (z, u)",
        "Q QLinearConv QLinearGlobalAveragePool Flatten QGemm",
    ),
    "read in float as well": (
        "(float[b,4,6,6] x) => (float[b,p,q,r] y, float[b,8,1,6] z)",
        f"h = {CONV} (x, w)\n k = Relu (h)\n z = ReduceSum (k, axes)\n y = Conv (k, v)",
        "Q 2xQLinearConv 2xDQ ReduceSum",
    ),
    "an output in the middle": (
        "(float[b,4,6,6] x) => (float[b,p,q,r] y, float[b,8,6,6] k)",
        f"h = {CONV} (x, w)\n k = Relu (h)\n y = Conv (k, v)",
        "Q 2xQLinearConv 2xDQ",
    ),
    "a shape that is read": (
        "(float[b,4,6,6] x) => (float[b,p,q,r] y, int64[4] s)",
        f"h = {CONV} (x, w)\n k = Relu (h)\n s = Shape (k)\n y = Conv (k, v)",
        "Q 2xQLinearConv DQ Shape Gather",
    ),
    "float in between": (
        IMAGE,
        f"h = {CONV} (x, w)\n k = Erf (h)\n y = Conv (k, v)",
        "2xQ 2xQLinearConv 2xDQ Erf",
    ),
    "float first": (IMAGE, f"h = Erf (x)\n y = {CONV} (h, w)", "Erf Q QLinearConv DQ"),
    "float last": (
        IMAGE, f"h = {CONV} (x, w)\n p = GlobalMaxPool (h)\n y = Erf (p)",
        "Q QLinearConv DQ GlobalMaxPool Erf",
    ),
    "a Gemm": (ROWS, "y = Gemm (x, m, e)", "Q QGemm"),
    "a Gemm with factors": (ROWS, "y = Gemm <alpha = 0.5, beta = 2.0> (x, m, e)", "Q QGemm"),
    "a Gemm, transposed": (ROWS, "y = Gemm <transB = 1> (x, t)", "Q QGemm"),
    "a Gemm, one bias": (ROWS, "y = Gemm (x, m, half)", "Q QGemm"),
    "two Gemms": (ROWS, "h = Gemm (x, m, e)\n r = Relu (h)\n y = Gemm (r, n, f)", "Q 2xQGemm"),
    "a Gemm, a Relu in float": (
        ROWS, "h = Gemm (x, m, e)\n r = Relu (h)\n y = Softmax (r)", "Q QGemm DQ Softmax",
    ),
    "a Gemm, a Relu put out": (ROWS, "h = Gemm (x, m, e)\n y = Relu (h)", "Q QGemm Relu"),
    "a Gemm, a Clip that stays": (
        ROWS, "h = Gemm (x, m, e)\n r = Clip (h, half, six)\n y = Softmax (r)",
        "Q QGemm DQ Clip Softmax",
    ),
    "a MatMul": (ROWS, "y = MatMul (x, m)", "Q MatMulIntegerToFloat"),
    "a stack of weights": (
        "(float[5,b,16] x) => (float[5,b,12] y)", "y = MatMul (x, stack)", "Q MatMulIntegerToFloat",
    ),
    "two MatMuls": (
        ROWS, "h = MatMul (x, m)\n y = MatMul (h, n)", "Q QLinearMatMul MatMulIntegerToFloat",
    ),
    "a MatMul, its bias": (ROWS, "h = MatMul (x, m)\n y = Add (h, e)", "Q QGemm"),
    "a bias on the left": (
        ROWS, "h = MatMul (x, m)\n a = Add (e, h)\n y = Relu (a)", "Q QGemm Relu",
    ),
    "a Gemm, transposed behind": (
        "(float[b,16] x) => (float[12,b] y)", "h = Gemm (x, m)\n y = Transpose (h)", "Q QGemm",
    ),
    "a Gemm, summed up": (ROWS, "h = Gemm (x, m)\n y = Sum (h, e)", "Q QGemm Sum"),
    "a Gemm, an Identity, a Relu": (
        ROWS, "h = Gemm (x, m)\n k = Identity (h)\n r = Relu (k)\n y = Softmax (r)",
        "Q QGemm DQ Relu Softmax",
    ),
    "a dense network": (
        ROWS,
        "h = MatMul (x, m)\n a = Add (h, e)\n r = Relu (a)\n k = MatMul (r, n)\n"
        "z = Add (k, f)\n y = Softmax (z)",
        "Q 2xQGemm Softmax",
    ),
    "a MatMul, something added": (
        ROWS, "h = MatMul (x, m)\n k = Gemm (x, m, e)\n y = Add (k, h)", "Q 2xQGemm Add",
    ),
    "a sequence": (
        STEPS, "h = MatMul (x, m)\n y = Add (h, e)", "Q MatMulIntegerToFloat Add",
    ),
    "a sequence of known size": (
        STEPS.replace("b,", "1,"), "h = MatMul (x, m)\n y = Add (h, e)",
        "Q MatMulIntegerToFloat Add",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FUSED)
def test_every_group_becomes_an_integer_kernel(
    case: str, samples: type, fused: Any, run: Any, run_fused: Any, decibels: Any
) -> None:
    signature, body, operators = FUSED[case]
    model = build(signature, body)
    x = sample(model, seed=1)
    before = run(model, {"x": x})

    result = quantize(model, samples)

    left = Counter({name.removeprefix("Nhwc"): n for name, n in fused(model).items()})
    del left["Transpose"], left["Reshape"]
    assert left == expand(operators)
    assert result.modified
    assert sum(result.details["kernels"].values()) == len(result.rewritten)
    foretold = Counter(integer_kernels(one.kernel for one in find_groups(model, Target())))
    assert foretold == Counter(integer_kernels(left.elements()))
    for reference, simulated, real in zip(
        before, run(model, {"x": x}), run_fused(model, {"x": x}), strict=True
    ):
        assert reference.shape == real.shape
        assert decibels(reference, simulated) > 25
        assert decibels(reference, real) > 25


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a computed weight": (
        "(float[b,16] x, float[16,12] k) => (float[b,12] y)", "y = MatMul (x, k)", {},
        "its weight is not constant",
    ),
    "a computed bias": (
        "(float[b,16] x, float[12] k) => (float[b,12] y)", "y = Gemm (x, m, k)", {},
        "its bias is not constant",
    ),
    "a bias per element": (
        "(float[3,16] x) => (float[3,12] y)", "y = Gemm (x, m, table)", {},
        "its bias is not one number per column",
    ),
    "a weight of NaN": (ROWS, "y = MatMul (x, nan)", {}, "infinities or NaN"),
    "a bias of infinity": (ROWS, "y = Gemm (x, m, inf)", {}, "its bias holds infinities or NaN"),
    "a vector": (ROWS, "y = MatMul (x, vector)", {}, "its weight has the shape [16]"),
    "double": (
        "(double[b,16] x) => (double[b,12] y)", "y = MatMul (x, fp64)", {},
        "its weight is float64",
    ),
    "nothing to read": (ROWS, "y = MatMul (t, m)", {}, "its first input is constant"),
    "nobody to read it": (
        ROWS, "h = MatMul (x, m)\n y = Relu (x)", {}, "nothing reads its output",
    ),
    "excluded": (ROWS, "y = MatMul (x, m)", {"exclude": ("y",)}, "it is excluded"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_declines_and_says_why(case: str, samples: type) -> None:
    signature, body, options, reason = REFUSED[case]
    model = build(signature, body)
    before = ir.to_onnx_text(model)
    data: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = [size if isinstance(size, int) else 4 for size in value.shape]
        data[value.name or ""] = np.ones(shape, value.dtype.numpy())

    result = InsertQDQ(**options).rewrite(model, Context(data=samples(data)))

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


BETWEEN = {
    "a constant": ("a = Mul (h, half)", "one of its inputs is constant"),
    "an activation in float": (
        "g = Erf (h)\n a = Add (h, g)", "not all of its inputs come from integer kernels",
    ),
    "no reader on integers": (
        "p = AveragePool <kernel_shape = [1,1]> (h)\n a = Erf (p)", "no integer kernel reads",
    ),
    "no kernel": ("a = Erf (h)", "ONNX Runtime has no integer kernel for Erf"),
    "cubic": ('a = Resize <mode = "cubic"> (h, roi, scales)', "by nearest neighbours only"),
    "linear": ('a = Resize <mode = "linear"> (h, roi, scales)', "by nearest neighbours only"),
    "indices": (
        "a, i = MaxPool <kernel_shape = [1,1]> (h)\n z = Cast <to = 1> (i)", "its indices are read",
    ),
    "half a Split": ("a, z = Split <axis = 2> (h)", "nothing reads one of its outputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", BETWEEN)
def test_what_stays_in_float_between_kernels_has_a_reason(
    case: str, samples: type, fused: Any
) -> None:
    body, reason = BETWEEN[case]
    signature = IMAGE.replace("y)", "y, float[b,p,q,r] z)") if case == "indices" else IMAGE
    model = build(signature, f"h = {CONV} (x, w)\n {body}\n y = Conv (a, v)")

    result = quantize(model, samples)

    assert reason in " ".join(result.declined.values())
    assert fused(model)["QLinearConv"] == 2


def test_the_graph_that_is_left(samples: type) -> None:
    model = build(ROWS, "h = Gemm (x, m, e)\n r = Relu (h)\n k = MatMul (r, n)\n y = Erf (k)")

    result = quantize(model, samples)

    text = ir.to_onnx_text(model, exclude_initializers=True)
    lines = [re.sub(r"^\[.*?\] ", "", line.strip()) for line in text.splitlines()]
    assert lines[6:] == [
        "{",
        '"x.quantized" = QuantizeLinear (x, "x.scale", "x.zero_point")',
        '"x.dequantized" = DequantizeLinear ("x.quantized", "x.scale", "x.zero_point")',
        '"m.dequantized" = DequantizeLinear <axis: int = 1> '
        '("m.quantized", "m.scale", "m.zero_point")',
        '"e.dequantized" = DequantizeLinear <axis: int = 0> ("e.quantized", "e.scale")',
        'h = Gemm ("x.dequantized", "m.dequantized", "e.dequantized")',
        "r = Relu (h)",
        '"r.quantized" = QuantizeLinear (r, "r.scale", "r.zero_point")',
        '"r.dequantized" = DequantizeLinear ("r.quantized", "r.scale", "r.zero_point")',
        '"n.dequantized" = DequantizeLinear <axis: int = 1> '
        '("n.quantized", "n.scale", "n.zero_point")',
        'k = MatMul ("r.dequantized", "n.dequantized")',
        "y = Erf (k)",
        "}",
    ]
    kinds = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert {kinds[f"{name}.quantized"] for name in "mn"} == {ir.DataType.INT8}
    assert kinds["e.quantized"] == ir.DataType.INT32
    assert "m" not in kinds
    assert result.rewritten == ["Gemm -> h", "MatMul -> k"]
    assert set(result.details["ranges"]) == {"x", "r"}
    assert result.details["kernels"] == {"Gemm": 1, "MatMul": 1}
    assert result.details["samples"] == 32


def test_a_bias_is_stored_on_exactly_the_scale_of_the_products(samples: type) -> None:
    model = build(IMAGE, f"y = {CONV} (x, w, b)")

    quantize(model, samples)

    values = {k: v.const_value.numpy() for k, v in model.graph.initializers.items()}  # type: ignore[union-attr]
    np.testing.assert_array_equal(values["b.scale"], values["x.scale"] * values["w.scale"])


def test_a_tiny_weight_makes_room_for_its_bias(samples: type, run: Any, run_fused: Any) -> None:
    model = build(IMAGE, f"y = {CONV} (x, w, b)")
    model.graph.initializers["w"].const_value = ir.tensor(np.full((8, 4, 3, 3), 1e-12, np.float32))
    x = sample(model)
    (before,) = run(model, {"x": x})

    quantize(model, samples)

    step = np.ptp(before) / 255
    np.testing.assert_allclose(run(model, {"x": x})[0], before, atol=step)
    np.testing.assert_allclose(run_fused(model, {"x": x})[0], before, atol=step)


def test_a_shared_weight_is_stored_once_and_read_by_each(samples: type, fused: Any) -> None:
    model = build(ROWS, "h = MatMul (x, m)\n k = Relu (x)\n l = MatMul (k, m)\n y = Add (h, l)")

    quantize(model, samples)

    assert [name for name in model.graph.initializers if name.endswith("m.quantized")] == [
        "m.quantized"
    ]
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph) == 6
    assert fused(model)["QGemm"] == 2


def test_a_weight_that_is_read_in_float_as_well_stays(samples: type) -> None:
    model = build(ROWS, "h = MatMul (x, m)\n k = Erf (m)\n y = MatMul (x, k)")

    quantize(model, samples)

    assert "m" in model.graph.initializers


def test_a_weight_in_a_constant_node_goes_with_it(samples: type) -> None:
    body = "k = Constant <value = float[2,2] {1.0, -2.0, 3.0, 4.0}> ()\n y = MatMul (x, k)"
    model = build("(float[b,2] x) => (float[b,2] y)", body)

    quantize(model, samples)

    assert "Constant" not in {node.op_type for node in model.graph}


@pytest.mark.parametrize(
    ("saturation", "target", "features", "avoided"),
    [
        ("avoid", "cpu", {"avx512_vnni"}, True),
        ("ignore", "cpu", set(), False),
        ("auto", "cpu", set(), True),
        ("auto", "cpu", {"avx2"}, True),
        ("auto", "cpu", {"avx2", "avx_vnni"}, False),
        ("auto", "cpu", {"asimddp"}, False),
        ("auto", "portable", {"avx512_vnni"}, True),
    ],
)
@pytest.mark.parametrize(
    ("signature", "body", "weight"),
    [
        (IMAGE, f"y = {CONV} (x, w)", "w"),
        (ROWS, "y = MatMul (x, m)", "m"),
        (ROWS, "y = Gemm <transB = 1> (x, t)", "t"),
    ],
)
def test_pairs_saturate_only_where_that_does_not_matter(
    signature: str,
    body: str,
    weight: str,
    saturation: str,
    target: Any,
    features: set[str],
    avoided: bool,
    samples: type,
) -> None:
    model = build(signature, body)
    context = Context(Target(target, frozenset(features)), samples({"x": sample(model)}))

    result = InsertQDQ(saturation=saturation).rewrite(model, context)

    tensor = model.graph.initializers[f"{weight}.quantized"].const_value
    assert tensor is not None
    array = tensor.numpy()
    rows = {"w": np.moveaxis(array, 1, -1).reshape(len(array), -1), "m": array.T, "t": array}
    assert bool((QMAX * worst_sums(rows[weight][:, None]) <= INT16_MAX).all()) == avoided
    assert bool(result.details["channels_kept_from_saturating"]) == avoided


OTHER_TYPES = [
    *("its Relu", "its Clip", "depthwise", "two readers", "a residual", "SiLU", "Split and Concat"),
    *("pooled into a Gemm", "a MatMul", "two MatMuls", "a Gemm", "read in float as well"),
]


@pytest.mark.parametrize("case", OTHER_TYPES)
def test_unsigned_weights_fuse_alike(
    case: str, samples: type, fused: Any, run: Any, run_fused: Any, decibels: Any
) -> None:
    signature, body, operators = FUSED[case]
    model = build(signature, body)
    x = sample(model, seed=1)
    before = run(model, {"x": x})

    result = quantize(model, samples, types="u8u8", saturation="avoid")

    left = Counter({name.removeprefix("Nhwc"): n for name, n in fused(model).items()})
    del left["Transpose"], left["Reshape"]
    assert left == expand(operators)
    assert ir.DataType.INT8 not in {v.dtype for v in model.graph.initializers.values()}
    assert result.details["channels_kept_from_saturating"] == 0
    for reference, simulated, real in zip(
        before, run(model, {"x": x}), run_fused(model, {"x": x}), strict=True
    ):
        assert decibels(reference, simulated) > 25
        assert decibels(reference, real) > 25


@pytest.mark.parametrize("case", OTHER_TYPES)
def test_signed_activations_are_for_arm(
    case: str, samples: type, fused: Any, run: Any, decibels: Any
) -> None:
    signature, body, operators = FUSED[case]
    model = build(signature, body)
    x = sample(model, seed=1)
    before = run(model, {"x": x})
    arm, x86 = (Target("cpu", frozenset({name})) for name in ("asimd", "avx2"))

    InsertQDQ(types="s8s8").rewrite(model, Context(arm, samples({"x": sample(model)})))

    def foretold(target: Target) -> Counter[str]:
        return Counter(integer_kernels(one.kernel for one in find_groups(model, target)))

    assert ir.DataType.UINT8 not in {v.dtype for v in model.graph.initializers.values()}
    assert foretold(arm) == Counter(integer_kernels(expand(operators).elements()))
    assert foretold(x86) == Counter(integer_kernels(fused(model).elements()))
    for reference, simulated in zip(before, run(model, {"x": x}), strict=True):
        assert decibels(reference, simulated) > 25


def test_signed_activations_are_refused_for_x86(samples: type) -> None:
    context = Context(Target("cpu", frozenset({"avx2"})), samples({"x": np.ones((1, 16))}))

    with pytest.raises(PassError, match="kernels on Arm alone"):
        InsertQDQ(types="s8s8").rewrite(build(ROWS, "y = MatMul (x, m)"), context)


def test_a_depthwise_conv_keeps_its_full_range(samples: type) -> None:
    model = build("(float[b,8,6,6] x) => (float[b,p,q,r] y)", "y = Conv <group = 8> (x, d)")
    model.graph.initializers["d"].const_value = ir.tensor(np.ones((8, 1, 3, 3), np.float32))

    result = quantize(model, samples, saturation="avoid")

    assert result.details["channels_kept_from_saturating"] == 0
    assert (model.graph.initializers["d.quantized"].const_value.numpy() == 127).all()  # type: ignore[union-attr]


def test_a_stack_of_weights_is_kept_from_saturating(samples: type) -> None:
    model = build("(float[5,b,16] x) => (float[5,b,12] y)", "y = MatMul (x, stack)")

    quantize(model, samples, saturation="avoid")

    array = model.graph.initializers["stack.quantized"].const_value.numpy()  # type: ignore[union-attr]
    assert QMAX * worst_sums(array.swapaxes(1, 2).reshape(1, -1, 16)).max() <= INT16_MAX


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_an_old_opset_is_raised(
    opset: int, samples: type, fused: Any, run: Any, decibels: Any
) -> None:
    body = f"h = {CONV} (x, w, b)\n k = Flatten (h)\n s = Softmax (k)\n y = Add (s, s)"
    model = build("(float[b,4,6,6] x) => (float[b,p] y)", body, opset)
    model.metadata_props["author"] = "somebody"
    model.graph.doc_string = "a graph"
    model.graph.initializers["w"].const_value = ir.tensor(
        np.random.default_rng(3).normal(size=(8, 4, 3, 3)).astype(np.float32), name="w"
    )
    x = sample(model)
    (before,) = run(model, {"x": x})

    result = quantize(model, samples)

    assert model.opset_imports[""] == 13
    assert result.details["opset"] == [opset, 13]
    assert (model.metadata_props["author"], model.graph.doc_string) == ("somebody", "a graph")
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert fused(model)["QLinearConv"] == 1
    assert decibels(before, run(model, {"x": x})[0]) > 20


def test_dead_activations_are_left_in_float(samples: type, fused: Any, run: Any) -> None:
    """Below the Relu everything is zero; the pooling behind it falls out with it."""
    body = (
        f"z = Neg (x)\n h = {CONV} (z, w)\n q = Mul (h, h)\n s = Neg (q)\n k = Relu (s)\n"
        "l = Conv (k, v, c)\n y = Relu (l)"
    )
    model = build(IMAGE, body)

    result = quantize(model, samples)

    assert result.declined["Conv -> l"] == "the tensor 'k' is zero in every sample"
    assert fused(model)["QLinearConv"] == 1


def test_what_is_always_empty_is_left_in_float() -> None:
    class Empty:
        def batches(self, size: int) -> Any:
            yield {"x": np.zeros((0, 16), np.float32), "i": np.zeros(1, np.int64)}

    text = "(float[b,16] x, int64[k] i) => (float[b,12] y, int64[k] j)"
    model = build(text, "y = MatMul (x, m)\n j = Identity (i)")

    result = InsertQDQ().rewrite(model, Context(data=Empty()))

    assert result.declined == {"MatMul -> y": "the tensor 'x' is empty in every sample"}


def test_a_sample_of_nan_is_an_error(samples: type) -> None:
    model = build(ROWS, "y = MatMul (x, m)")

    with pytest.raises(DataError, match="'x' becomes infinite or NaN"):
        InsertQDQ().rewrite(
            model, Context(data=samples({"x": np.full((2, 16), np.nan, np.float32)}))
        )


def test_a_subgraph_reads_what_a_kernel_gives_out(samples: type, run: Any, fused: Any) -> None:
    body = (
        f"one = Constant <value = bool {{1}}> ()\n h = {CONV} (x, w)\n k = Relu (h)\n"
        "y = If (one) <then_branch = yes () => (float[r,8,6,6] z) { z = Neg (k) },"
        " else_branch = no () => (float[r,8,6,6] l) { l = Exp (k) }>"
    )
    model = build(IMAGE, body)
    x = sample(model)
    (before,) = run(model, {"x": x})

    quantize(model, samples)

    assert fused(model)["QLinearConv"] == 1
    np.testing.assert_allclose(run(model, {"x": x})[0], before, atol=0.02 * np.abs(before).max())


def test_a_second_run_finds_nothing_left(samples: type) -> None:
    model = build(IMAGE, f"h = {CONV} (x, w, b)\n k = Relu (h)\n y = Conv (k, v)")

    quantize(model, samples)
    text = ir.to_onnx_text(model)
    result = quantize(model, samples)

    assert not result.modified
    assert set(result.declined.values()) == {"it is quantized already"}
    assert ir.to_onnx_text(model) == text


def test_nothing_to_quantize_changes_nothing(samples: type) -> None:
    model = build(ROWS, "y = Relu (x)", opset=11)
    before = ir.to_onnx_text(model)

    assert not quantize(model, samples).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ((), ("h",), ["Gemm -> y"]),
        ((), ("MatMul",), ["Gemm -> y"]),
        (("Gemm",), (), ["Gemm -> y"]),
        (("*",), ("y",), ["MatMul -> h"]),
    ],
)
def test_what_to_quantize_can_be_chosen(
    include: tuple[str, ...], exclude: tuple[str, ...], left: list[str], samples: type
) -> None:
    model = build(ROWS, "h = MatMul (x, m)\n y = Gemm (h, n)")

    assert quantize(model, samples, include=include, exclude=exclude).rewritten == left


def test_a_name_that_is_not_there_is_an_error(samples: type) -> None:
    with pytest.raises(PassError, match="fits 'layer7'"):
        quantize(build(ROWS, "y = MatMul (x, m)"), samples, exclude=("layer7",))


def test_cuda_has_no_kernels_for_it(samples: type) -> None:
    with pytest.raises(PassError, match="CUDA provider has no kernels"):
        quantize(build(ROWS, "y = MatMul (x, m)"), samples, target="cuda")


def test_it_needs_samples() -> None:
    with pytest.raises(PassError, match="needs calibration samples"):
        InsertQDQ()(build(ROWS, "y = MatMul (x, m)"))


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "int4"},
        {"types": "s8u8"},
        {"method": "guess"},
        {"saturation": "maybe"},
        {"samples": -1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="insert-qdq"):
        InsertQDQ(**options)


def test_a_classifier_that_answers_with_maps(samples: type) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13, "ai.onnx.ml" : 1]>
        main (float[b,16] x) => (seq(map(int64, float)) y) {
          p = MatMul (x, m)
          y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3]> (p)
        }"""
    )
    weight = normal(np.random.default_rng(0), (16, 4))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "m"))

    result = quantize(from_proto(proto), samples)

    assert result.details["kernels"] == {"MatMul": 1}
