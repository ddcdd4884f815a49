"""Shapes follow from the inputs and are never believed where they are stale."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from onnx import helper

from onnxpress.backends.errors import ModelError
from onnxpress.passes.analysis.shapes import (
    add_missing_shapes,
    annotate_shapes,
    inferred_shapes,
    with_shapes,
)

HEADER = (
    '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "com.example" : 1, "f" : 1]>'
)


def build(body: str, **initializers: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(f"{HEADER}\nmain {body}")
    for name, array in initializers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def shapes(model: ir.Model) -> dict[str, str]:
    """All shapes as text, by the name of the value."""
    return {
        output.name or "": str(output.shape)
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        for output in node.outputs
    }


def test_shapes_are_followed_through_arithmetic_on_shapes() -> None:
    model = build(
        """(float[2,3,8,8] x) => (float[] y) {
          c = Conv <kernel_shape = [3, 3]> (x, w)
          s = Shape (c)
          i = Constant <value_ints = [0]> ()
          n = Gather (s, i)
          rest = Constant <value_ints = [-1]> ()
          to = Concat <axis = 0> (n, rest)
          y = Reshape (c, to)
        }""",
        w=np.ones((16, 3, 3, 3), np.float32),
    )

    annotate_shapes(model)

    assert shapes(model) | {"i": "", "rest": ""} == {
        "c": "[2,16,6,6]",
        "s": "[4]",
        "i": "",
        "n": "[1]",
        "rest": "",
        "to": "[2]",
        "y": "[2,576]",
    }
    assert {value.name: value.dtype for value in model.graph.outputs} == {"y": ir.DataType.FLOAT}


def test_stale_shapes_and_types_are_forgotten() -> None:
    model = build("(float[2,3] x) => (float[9,9] y) <int64[7] a> { a = Neg (x) y = Relu (a) }")

    annotate_shapes(model)

    assert shapes(model) == {"a": "[2,3]", "y": "[2,3]"}
    assert model.graph[0].outputs[0].dtype == ir.DataType.FLOAT


def test_a_shape_that_does_not_follow_is_none() -> None:
    model = build(
        "(float[2,3] x, int64[K] to) => (float[P,Q] y) { a = Reshape (x, to) y = Neg (a) }"
    )
    model.graph[0].outputs[0].shape = ir.Shape([1, 2, 3])

    annotate_shapes(model)

    assert shapes(model)["a"] == "None"
    assert shapes(model)["y"] == "[P,Q]", "what callers were told stays"


def test_unknown_dimensions_that_are_the_same_have_one_name() -> None:
    model = build("(float[2,3] x) => (int64[P,2] y) { a = NonZero (x) y = Transpose (a) }")

    annotate_shapes(model)

    assert shapes(model) == {"a": "[2,unk__0]", "y": "[P,2]"}


def test_operators_that_onnx_does_not_know_keep_what_is_said() -> None:
    model = build(
        """(float[N,3] x) => (float[] y) <float[N,5] b, float[N,7] c> {
          a = Neg (x)
          b = com.example.Magic (a)
          c = Relu (b)
          y = Sigmoid (c)
        }"""
    )

    assert shapes(with_shapes(model)) == {"a": "[N,3]", "b": "[N,5]", "c": "[N,5]", "y": "[N,5]"}
    assert shapes(with_shapes(model, {"N": 4}))["b"] == "[4,5]"


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        ("com.microsoft.Gelu (x)", "[N,4,6]"),
        ("com.microsoft.BiasGelu (x, x)", "[N,4,6]"),
        ("com.microsoft.SkipLayerNormalization (x, x, w)", "[N,4,6]"),
        ("SimplifiedLayerNormalization (x, w)", "[N,4,6]"),
        ("com.microsoft.FusedMatMul (x, x)", "None"),
        ("com.microsoft.MatMulNBits <K = 6, N = 10> (x, w, w)", "[N,4,10]"),
        ("com.microsoft.QLinearAdd (x, w, w, x, w, w, w, w)", "[N,4,6]"),
        ("com.microsoft.FusedConv <activation = \"Relu\"> (x, k)", "[N,8,5]"),
        ("com.microsoft.DynamicQuantizeMatMul (x, m, w, w)", "[N,4,7]"),
        ("com.microsoft.EmbedLayerNormalization (i, i, m)", "[N,9,7]"),
        ("com.microsoft.Unknown (x)", "None"),
    ],
)  # fmt: skip
def test_operators_of_onnx_runtime(call: str, shape: str) -> None:
    model = build(
        f"(float[N,4,6] x, int32[N,9] i) => (float[] y) {{ a = {call} y = Neg (a) }}",
        w=np.ones(6, np.float32),
        k=np.ones((8, 4, 2), np.float32),
        m=np.ones((6, 7), np.float32),
    )

    assert shapes(with_shapes(model))["a"] == shape


def test_subgraphs_and_functions_are_followed() -> None:
    model = build(
        """(float[N,3] x, bool c) => (float[] y, float[] z) {
          a = f.turn (x)
          y = If (c) <then_branch = t () => (float[9] p) { q = Neg (a) p = Abs (q) },
                      else_branch = e () => (float[9] r) { r = Relu (a) }>
          z = Neg (a)
        }
        <domain: "f", opset_import: ["" : 21]> turn (u) => (v) { v = Transpose (u) }"""
    )

    annotate_shapes(model)

    assert shapes(model) == dict.fromkeys("ayqprz", "[3,N]")


def test_names_of_dimensions_are_filled_in() -> None:
    model = build("(float[N,T] x) => (float[N,T] y) { y = Neg (x) }")

    sized = with_shapes(model, {"N": 2, "unused": 9})

    assert str(sized.graph.inputs[0].shape) == "[2,T]"
    assert shapes(sized) == {"y": "[2,T]"}
    assert shapes(model) == {"y": "[N,T]"}


def test_shapes_of_an_old_ir_version() -> None:
    model = build("(float[2,3] x) => (float[] y) { y = MatMul (x, w) }", w=np.ones((3, 5)))
    model.ir_version = 3
    model.opset_imports[""] = 9

    assert shapes(with_shapes(model)) == {"y": "[2,5]"}


def test_a_scalar_has_a_shape() -> None:
    model = build("(float[3] x) => (float[] y) { y = MatMul (x, x) }")
    assert shapes(with_shapes(model)) == {"y": "[]"}


def test_maps_of_classifiers_have_no_shape() -> None:
    header = HEADER.replace('"f"', '"ai.onnx.ml"')
    model = ir.from_onnx_text(
        f"{header} main (float[N,3] x) => (float[] y) {{"
        "y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2]> (a) a = Relu (x) }"
    )
    model.graph.sort()
    model.graph.outputs[0].type = None
    model.graph.outputs[0].shape = None

    assert shapes(with_shapes(model)) == {"a": "[N,3]", "y": "None"}


def test_missing_shapes_are_added_and_others_stay() -> None:
    model = build(
        """(float[N,3] x, bool c) => (float[N,3] y) {
          a = Neg (x)
          b = Neg (a)
          y = If (c) <then_branch = t () => (float[N,3] u) { i = Neg (b) u = Neg (i) },
                      else_branch = e () => (float[N,3] v) { v = Neg (b) }>
        }"""
    )
    model.graph[0].outputs[0].shape = ir.Shape([8, 3])

    add_missing_shapes(model)

    found = shapes(model)
    assert (found["a"], found["b"], found["i"]) == ("[8,3]", "[N,3]", "[N,3]")


def test_nothing_is_added_where_nothing_can_be_inferred() -> None:
    model = build("(float[2,3] x) => (float[5] y) { a = Neg (x) y = not.imported (a) }")
    before = ir.to_onnx_text(model)

    add_missing_shapes(model)

    assert ir.to_onnx_text(model) == before


def test_inferred_shapes_are_by_value() -> None:
    model = build(
        "(float[N,3] x, int64[K] to) => (float[P] y) { a = MatMul (x, w) y = Reshape (a, to) }",
        w=np.ones((3, 5), np.float32),
    )

    found = inferred_shapes(model)

    assert {value.name: str(shape) for value, shape in found.items()} == {
        "x": "[N,3]",
        "to": "[K]",
        "w": "[3,5]",
        "a": "[N,5]",
        "y": "[P]",
    }
    assert set(found) <= {*model.graph.inputs, *model.graph.initializers.values()} | {
        output for node in model.graph for output in node.outputs
    }
    assert model.graph[0].outputs[0].shape is None


def test_a_failure_is_raised_and_changes_nothing() -> None:
    model = build("(float[2,3] x) => (float[5] y) { a = Neg (x) y = not.imported (a) }")
    model.graph[0].outputs[0].shape = ir.Shape([8])
    before = ir.to_onnx_text(model)

    with pytest.raises(ModelError, match="shapes cannot be inferred"):
        annotate_shapes(model)

    assert ir.to_onnx_text(model) == before


def test_weights_are_neither_copied_nor_changed() -> None:
    class Untouchable(ir.Tensor):  # type: ignore[type-arg]
        def tobytes(self) -> bytes:
            raise AssertionError("a weight was serialized")

    model = build(
        """(float[N,1000] x) => (float[] y) {
          c = Constant <value: tensor = float[1] {0}> ()
          t = MatMul (x, w)
          y = Add (t, c)
        }""",
        w=np.zeros((1000, 1000), np.float32),
    )
    weight = Untouchable(np.zeros((1000, 1000), np.float32), name="w")
    model.graph.initializers["w"].const_value = weight
    constant = ir.AttrTensor("value", Untouchable(np.zeros((1, 1000), np.float32)))
    model.graph[0].attributes["value"] = constant

    assert shapes(with_shapes(model)) == {"c": "[1,1000]", "t": "[N,1000]", "y": "[N,1000]"}
    assert model.graph.initializers["w"].const_value is weight
    assert model.graph[0].attributes["value"] is constant


def test_five_thousand_nodes_take_well_under_a_second() -> None:
    nodes = [helper.make_node("Add", [f"v{k}", "w"], [f"v{k + 1}"]) for k in range(5000)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("v0", onnx.TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("v5000", onnx.TensorProto.FLOAT, None)],
        [helper.make_tensor("w", onnx.TensorProto.FLOAT, [64], [0.0] * 64)],
    )
    model = ir.from_proto(helper.make_model(graph, ir_version=8))

    started = time.process_time()
    annotate_shapes(model)

    assert time.process_time() - started < 1
    assert str(model.graph.outputs[0].shape) == "[N,64]"
