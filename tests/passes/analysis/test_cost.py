"""What is counted, and how."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from onnxpress.passes.analysis.cost import macs, node_count, operators, parameters, weight_bytes

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "f" : 1]>'


def build(body: str, **shapes: tuple[int, ...]) -> ir.Model:
    """A model with float32 weights of the given shapes."""
    proto = onnx.parser.parse_model(f"{HEADER}\nmain {body}")
    for name, shape in shapes.items():
        array = np.ones(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


BRANCHES = """(float[N,8] x, bool c) => (float[] y) {
  k = Constant <value: tensor = float[2] {1, 2}> ()
  a = f.twice (x)
  y = If (c) <then_branch = t () => (float[] p) { p = MatMul (a, w) },
              else_branch = e () => (float[] r) { q = MatMul (a, w) r = MatMul (q, v) }>
}
<domain: "f", opset_import: ["" : 18]>
twice (u) => (z) {
  two = Constant <value: tensor = float[1] {2}> ()
  m = MatMul (u, u)
  z = Mul (m, two)
}"""


def test_nodes_and_operators_are_those_of_all_graphs_without_constants() -> None:
    model = build(BRANCHES, w=(8, 8), v=(8, 4))

    assert operators(model) == {"MatMul": 3, "If": 1, "f.twice": 1}
    assert list(operators(model)) == ["MatMul", "If", "f.twice"]
    assert node_count(model) == 5


def test_parameters_and_bytes_are_those_of_all_constants() -> None:
    model = build(BRANCHES, w=(8, 8), v=(8, 4))
    assert parameters(model) == 64 + 32 + 2 + 1
    assert weight_bytes(model) == 4 * (64 + 32 + 2 + 1)


def test_shapes_and_labels_are_no_parameters_and_shared_tensors_count_once() -> None:
    model = build("(float[8] x) => (float[8] y) { a = Mul (x, w) y = Mul (a, v) }", w=(8,), v=(8,))
    shared = model.graph.initializers["w"].const_value
    model.graph.initializers["v"].const_value = shared
    for name, array in {"i": np.ones(3, np.int64), "b": np.ones(5, bool)}.items():
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        model.graph.register_initializer(value)
    quantized = ir.Value(name="q", const_value=ir.tensor(np.ones(7, np.int8), name="q"))
    model.graph.register_initializer(quantized)

    assert parameters(model) == 8 + 7
    assert weight_bytes(model) == 32 + 24 + 5 + 7


@pytest.mark.parametrize(
    ("call", "weights", "expected"),
    [
        ("Conv (image, w)", {"w": (16, 3, 3, 3)}, 16 * 62 * 62 * 27),
        ("Conv <group = 3, strides = [2, 2]> (image, w)", {"w": (6, 1, 2, 2)}, 6 * 32 * 32 * 4),
        ("ConvTranspose <strides = [2, 2]> (image, w)", {"w": (3, 5, 2, 2)}, 3 * 64 * 64 * 20),
        ("com.microsoft.FusedConv (image, w)", {"w": (16, 3, 3, 3)}, 16 * 62 * 62 * 27),
        ("MatMul (x, w)", {"w": (6, 7)}, 2 * 4 * 6 * 7),
        ("MatMul (x, w)", {"w": (2, 6, 7)}, 2 * 4 * 6 * 7),
        ("MatMul (v, w)", {"w": (6,)}, 6),
        ("Gemm (m, w)", {"w": (5, 7)}, 3 * 5 * 7),
        ("Gemm <transA = 1, transB = 1> (m, w)", {"w": (7, 3)}, 3 * 5 * 7),
        ("com.microsoft.MatMulNBits <K = 6, N = 9> (x, w, w)", {"w": (1,)}, 2 * 4 * 6 * 9),
        ("LSTM <hidden_size = 5> (x, w, r)", {"w": (1, 20, 6), "r": (1, 20, 5)}, 8 * (120 + 100)),
        (
            "GRU <hidden_size = 5, direction = \"bidirectional\"> (x, w, r)",
            {"w": (2, 15, 6), "r": (2, 15, 5)},
            8 * (180 + 150),
        ),
        ("RNN <hidden_size = 5> (x, w, r)", {"w": (1, 5, 6), "r": (1, 5, 5)}, 8 * (30 + 25)),
        ("Einsum <equation = \"bij,jk->bik\"> (x, w)", {"w": (6, 7)}, 2 * 4 * 6 * 7),
        ("Einsum <equation = \"...ij, jk -> ...ik\"> (x, w)", {"w": (6, 7)}, 2 * 4 * 6 * 7),
        ("Einsum <equation = \"bij->bji\"> (x)", {}, 0),
        ("Softmax (x)", {}, 0),
        ("com.microsoft.Gelu (x)", {}, 0),
    ],
)  # fmt: skip
def test_macs_of_one_operator(
    call: str, weights: dict[str, tuple[int, ...]], expected: int
) -> None:
    arguments = "float[1,3,64,64] image, float[2,4,6] x, float[3,5] m, float[6] v"
    model = build(f"({arguments}) => (float[] y) {{ y = {call} }}", **weights)
    assert macs(model) == expected


@pytest.mark.parametrize(
    ("call", "inputs", "expected"),
    [
        (
            "Attention (q, k, v)",
            "float[2,4,7,8] q, float[2,2,9,8] k, float[2,2,9,5] v",
            2 * 4 * 7 * 9 * (8 + 5),
        ),
        (
            "Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)",
            "float[2,7,32] q, float[2,9,16] k, float[2,9,10] v",
            2 * 4 * 7 * 9 * (8 + 5),
        ),
        (
            "Attention (q, k, v, , p, p)",
            "float[2,4,7,8] q, float[2,4,9,8] k, float[2,4,9,8] v, float[2,4,11,8] p",
            2 * 4 * 7 * (9 + 11) * 16,
        ),
        (
            "com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)",
            "float[2,7,32] q, float[2,9,32] k, float[2,9,32] v",
            2 * 4 * 7 * 9 * (8 + 8),
        ),
        (
            "com.microsoft.Attention <num_heads = 4> (q, k)",
            "float[2,7,32] q, float[32,96] k",
            2 * 7 * 32 * 96 + 2 * 4 * 7 * 7 * (8 + 8),
        ),
        ("com.microsoft.MultiHeadAttention <num_heads = 4> (q)", "float[2,7,4,3,8] q", None),
    ],
)
def test_macs_of_attention(call: str, inputs: str, expected: int | None) -> None:
    header = HEADER.replace(": 21", ": 23")
    model = ir.from_onnx_text(f"{header} main ({inputs}) => (float[] y) {{ y = {call} }}")
    assert macs(model) == expected


@pytest.mark.parametrize(
    ("dims", "rows"),
    [(None, 16), ({"N": 5}, 5 * 16), ({"M": 5}, 16), ({"N": 2, "x[1]": 3}, 6)],
)
def test_dynamic_dimensions_start_small_unless_given(
    dims: dict[str, int] | None, rows: int
) -> None:
    model = build("(float[N,?,8] x) => (float[N,?,4] y) { y = MatMul (x, w) }", w=(8, 4))
    assert macs(model, dims) == rows * 8 * 4
    assert str(model.graph.outputs[0].shape).startswith("[N,")


def test_the_dearer_branch_and_the_bodies_of_functions_count() -> None:
    model = build(BRANCHES.replace("[N,8] x", "[8,8] x"), w=(8, 8), v=(8, 4))
    assert macs(model) == 8 * 8 * 8 + (8 * 8 * 8 + 8 * 8 * 4)
    assert model.functions


def test_a_loop_counts_once_and_a_scan_as_often_as_it_runs() -> None:
    loop = build(
        """(float[8,8] x, int64 n, bool c) => (float[] y) {
          y = Loop (n, c, x) <body = b (int64 i, bool go, float[8,8] s) => (bool on, float[8,8] t) {
            on = Identity (go)
            t = MatMul (s, w)
          }>
        }""",
        w=(8, 8),
    )
    assert macs(loop) == 8 * 8 * 8
    scan = build(
        """(float[8] x, float[5,8] xs) => (float[] y, float[] ys) {
          y, ys = Scan <num_scan_inputs = 1, body = b (float[8] s, float[8] e) =>
            (float[8] t, float[8] o) { o = MatMul (e, w) t = Add (s, o) }> (x, xs)
        }""",
        w=(8, 8),
    )
    assert macs(scan) == 5 * 8 * 8


def test_an_unknown_shape_makes_the_count_unknown() -> None:
    reshaped = (
        "(float[2,8] x, int64[2] to) => (float[] y) { a = Reshape (x, to) y = MatMul (a, w) }"
    )
    assert macs(build(reshaped, w=(8, 4))) is None
    harmless = reshaped.replace("MatMul (a, w)", "Relu (a)")
    assert macs(build(harmless, w=(8, 4))) == 0


def test_shapes_that_cannot_be_make_the_count_unknown() -> None:
    model = build(
        """(float[2,8] x) => (float[] y) { y = f.g (x, x) }
        <domain: "f", opset_import: ["" : 21]> g (u) => (z) { z = Neg (u) }"""
    )
    assert macs(model) is None
