"""Slicing: text in, text out. That the numbers hold is tested with the channel rules."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.passes.analysis.channel_rules import RULES
from onnxpress.passes.analysis.channels import channel_groups
from onnxpress.passes.pruning.slice import cuts_of, slice_channels
from tests.passes.pruning.helpers import build, normal


def cut(model: ir.Model, *stay: list[int]) -> list[str]:
    """Keep these channels of the free groups; the graph's lines."""
    coupling = channel_groups(model, RULES)
    groups = [group for group in coupling.groups if not group.frozen]
    masks = [np.isin(np.arange(g.size), s) for g, s in zip(groups, stay, strict=True)]
    slice_channels(model, coupling, cuts_of(groups, masks))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return [line.strip() for line in ir.to_onnx_text(model, exclude_initializers=True).splitlines()]


def test_weights_shapes_and_groups() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[N,4,4,4] a, float[N,8,4,4] d> {
          a = Conv (x, w, b)
          d = Conv <group = 4> (a, k)
          y = Conv (d, v)
        }
        """,
        {"w": normal(4, 3, 1, 1), "b": normal(4), "k": normal(8, 1, 1, 1), "v": normal(2, 8, 1, 1)},
    )
    bias = model.graph.initializers["b"].const_value
    assert bias is not None

    lines = cut(model, [1, 3])

    assert lines[4:] == [
        "main (float[N,3,4,4] x) => (float[N,2,4,4] y)",
        "<float[2,3,1,1] w, float[2] b, float[4,1,1,1] k, float[2,4,1,1] v, float[N,2,4,4] a, "
        "float[N,4,4,4] d>",
        "{",
        "a = Conv (x, w, b)",
        "d = Conv <group: int = 2> (a, k)",
        "y = Conv (d, v)",
        "}",
    ]
    left = model.graph.initializers["b"].const_value
    assert left is not None
    np.testing.assert_array_equal(left.numpy(), bias.numpy()[[1, 3]])


def test_wider_groups_keep_their_number() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,3,4,4] x) => (float[N,2,4,4] y) {
          a = Conv (x, w)
          g = Conv <group = 2> (a, k)
          y = Conv (g, v)
        }
        """,
        {"w": normal(6, 3, 1, 1), "k": normal(4, 3, 1, 1), "v": normal(2, 4, 1, 1)},
    )

    lines = cut(model, [0, 2], [1])

    assert lines[5] == "<float[4,3,1,1] w, float[2,2,1,1] k, float[2,2,1,1] v>"
    assert lines[8] == "g = Conv <group: int = 2> (a, k)"


def test_a_reshape_with_a_shared_shape_gets_its_own() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,3,2,2] x, float[N,2,8] z) => (float[N,2] y, float[N,16] u) {
          a = Conv (x, w)
          f = Reshape (a, s)
          y = Gemm (f, v)
          u = Reshape (z, s)
        }
        """,
        {"w": normal(4, 3, 1, 1), "v": normal(16, 2), "s": np.array([0, 16], dtype=np.int64)},
    )

    lines = cut(model, [0, 1, 2])

    assert lines[5] == '<float[3,3,1,1] w, float[12,2] v, int64[2] s, int64[2] "f.shape">'
    assert lines[8] == 'f = Reshape (a, "f.shape")'
    shape = model.graph.initializers["f.shape"].const_value
    assert shape is not None
    assert shape.numpy().tolist() == [0, 12]


def test_a_constant_node_becomes_an_initializer() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,2] x) => (float[N,1] y) {
          k = Constant <value = float[2,2] {1, 2, 3, 4}> ()
          a = MatMul (x, k)
          y = MatMul (a, v)
        }
        """,
        {"v": normal(2, 1)},
    )

    lines = cut(model, [1])

    assert lines[5:] == [
        '<float[1,1] v, float[2,1] "k.1">',
        "{",
        'a = MatMul (x, "k.1")',
        "y = MatMul (a, v)",
        "}",
    ]


def test_nothing_cut_changes_nothing() -> None:
    model = build(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,2] x) => (float[N,1] y) { a = MatMul (x, w)  y = MatMul (a, v) }
        """,
        {"w": normal(2, 4), "v": normal(4, 1)},
    )
    before = ir.to_onnx_text(model)

    cut(model, [0, 1, 2, 3])

    assert ir.to_onnx_text(model) == before
