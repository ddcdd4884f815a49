"""Raising a model's opset: the same answers, and everything around the converted nodes kept."""

import re

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import PassError
from onnxpress.backends.ort import session_of
from onnxpress.backends.serde import from_proto
from onnxpress.passes.opsets import raise_opset

OPERATORS = [
    (7, "float", "BatchNormalization(x, four, four, four, four)"),
    (7, "float", "Clip <max = 0.25> (x)"),
    (7, "float", "Clip <min = -0.5, max = 0.25> (x)"),
    (7, "float", "Dropout(x)"),
    (7, "float", "MaxPool <kernel_shape = [2, 2]> (x)"),
    (7, "float", "Pad <pads = [0, 0, 1, 1, 0, 0, 2, 2], value = 1.5> (x)"),
    (7, "double", "Pad <pads = [0, 0, 1, 1, 0, 0, 2, 2]> (x)"),
    (7, "float", "ReduceSum <axes = [1]> (x)"),
    (7, "float", "Slice <starts = [1, 2], ends = [3, 5], axes = [1, 2]> (x)"),
    (7, "float", "Softmax (x)"),
    (7, "float", "Softmax <axis = 2> (x)"),
    (7, "float", "Squeeze <axes = [0]> (x)"),
    (7, "float", 'Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]> (x)'),
    (7, "float", 'Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]> (x)'),
    (9, "float", 'Pad <mode = "edge", pads = [0, 0, 1, 1, 0, 0, 2, 2], value = 1.5> (x)'),
    (9, "float", "ArgMax <axis = 1> (x)"),
    (9, "float", "DepthToSpace <blocksize = 2> (x)"),
    (9, "float", "TopK <axis = 1, k = 2> (x)"),
    (9, "float", 'Upsample <mode = "linear"> (x, twice)'),
    (10, "float", 'Resize <mode = "linear"> (x, twice)'),
    (10, "float", 'Resize <mode = "nearest"> (x, half)'),
    (10, "float", 'Resize <mode = "nearest"> (x, larger)'),
    (11, "float", 'Resize <mode = "nearest"> (x, none, none, nine)'),
    (11, "float", "Split <axis = 1> (x)"),
    (12, "float", "LogSoftmax <axis = -1> (x)"),
    (12, "float", "Unsqueeze <axes = [0, 2]> (x)"),
    (13, "float", "ReduceL2 <axes = [2, 3]> (x)"),
    (16, "float", 'GridSample <mode = "bilinear"> (x, grid)'),
]
WEIGHTS: dict[str, Array] = {
    "four": np.array([0.5, 1.5, 1.0, 2.0], np.float32),
    "grid": np.linspace(-1, 1, 18, dtype=np.float32).reshape(1, 3, 3, 2),
    "half": np.array([1, 1, 0.5, 0.4], np.float32),
    "larger": np.array([1, 1, 1.5, 2.7], np.float32),
    "mixed": np.array([1, 1, 0.5, 2], np.float32),
    "none": np.zeros(0, np.float32),
    "nine": np.array([1, 4, 9, 12]),
    "twice": np.array([1, 1, 2, 2], np.float32),
}


def build(text: str) -> ir.Model:
    used = [name for name in WEIGHTS if re.search(rf"\b{name}\b", text)]
    return ir.from_onnx_text(text, initializers=[ir.tensor(WEIGHTS[n], name=n) for n in used])


def older(opset: int, kind: str, node: str, *outputs: str) -> ir.Model:
    """A model of one node, its output types inferred."""
    results = ", ".join(f"float {name}" for name in outputs)
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    main ({kind}[1,4,6,6] x) => ({results}) {{ {", ".join(outputs)} = {node} }}"""
    proto = ir.to_proto(build(text))
    for output in proto.graph.output:
        output.ClearField("type")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def answers(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled")).run(feeds)


@pytest.mark.parametrize(("opset", "kind", "node"), OPERATORS)
def test_an_older_operator_gives_the_same_answers(opset: int, kind: str, node: str) -> None:
    outputs = ["o", "p"] if node.startswith(("TopK", "Split")) else ["o"]
    model = older(opset, kind, node, *outputs)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 6))
    feeds = {"x": x.astype({"float": np.float32, "double": np.float64}[kind])}
    before = answers(model, feeds)

    assert raise_opset(model, 22) == 1

    assert model.opset_imports == {"": 22}
    after = answers(model, feeds)
    for name in outputs:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-6)


def test_sizes_and_scales_do_not_stand_together() -> None:
    """Next to sizes scales are empty up to opset 12, and not there at all since 13."""
    text = """<ir_version: 8, opset_import: ["" : 11]>
    main (float[1,4,6,6] x, float[0] empty, int64[4] wanted) => (float[1,4,a,b] o) {
        o = Resize <mode = "nearest"> (x, empty, empty, wanted) }"""
    model = build(text)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float32)
    feeds = {"x": x, "empty": np.zeros(0, np.float32), "wanted": np.array([1, 4, 9, 12])}
    before = answers(model, feeds)["o"]

    raise_opset(model, 22)

    np.testing.assert_array_equal(answers(model, feeds)["o"], before)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_bounds_get_the_type_of_what_they_bound(kind: str) -> None:
    model = older(10, kind, "Clip <max = 0.25> (x)", "o")

    raise_opset(model, 22)

    bounds = [node.attributes["value"].as_tensor() for node in model.graph if not node.inputs]
    wanted = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[kind]
    assert [bound.numpy().dtype for bound in bounds] == [wanted] * 2
    assert float(bounds[1].numpy()) == 0.25


@pytest.mark.parametrize(
    ("opset", "node", "reason"),
    [
        (12, "Hardmax (x)", "Hardmax '': it flattens its input"),
        (10, "Resize (x, mixed)", "not known to do only one"),
        (10, "Resize (x, sizes)", "not known to do only one"),
        (8, "BatchNormalization <spatial = 0> (x, four, four, four, four)", "spatial"),
    ],
)
def test_what_cannot_be_raised_is_refused_with_the_reason(
    opset: int, node: str, reason: str
) -> None:
    sizes = "sizes = Constant <value = float[4] {1, 1, 2, 2}> () z = Abs (sizes)"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    main (float[1,4,6,6] x) => (float[N] o) {{ {sizes} o = {node.replace("sizes", "z")} }}"""

    with pytest.raises(
        PassError, match=f"opset {opset} cannot be raised to 22: .*{reason}"
    ) as error:
        raise_opset(build(text), 22)

    assert "with opset 22" in error.value.hint


def test_an_unknown_standard_operator_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12]>
    main (float[1,4,6,6] x) => (float[N] o) { o = ScaledTanh (x) }"""

    with pytest.raises(PassError, match="ScaledTanh '': there is no such operator in opset 12"):
        raise_opset(build(text), 22)


def test_what_did_not_change_is_not_touched() -> None:
    text = """<ir_version: 8, opset_import: ["" : 9]>
    main (float[1,4,6,6] x) => (float[1,4,6,6] o) {
      [keep] a = Relu (x)
      o = Clip <min = 0.0, max = 1.0> (a)
    }"""
    model = build(text)
    first, last = model.graph
    first.metadata_props["origin"], last.metadata_props["origin"] = "layer 1", "layer 2"
    last.name, last.doc_string = "bound", "keeps it small"

    raise_opset(model, 22)

    nodes = {node.op_type: node for node in model.graph}
    assert nodes["Relu"].name == "keep"
    assert nodes["Relu"].metadata_props == {"origin": "layer 1"}
    clip = nodes["Clip"]
    assert (clip.name, clip.doc_string) == ("bound", "keeps it small")
    assert clip.metadata_props == {"origin": "layer 2"}
    names = [output.name for node in model.graph for output in node.outputs]
    assert names == ["a", "bound/Constant", "bound/Constant.1", "o"]


def test_subgraphs_and_functions_are_raised_as_well() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12, "local" : 1]>
    main (float[1,4,6,6] x) => (float[1,4,1,1] o) {
      s = ReduceSum (x)
      c = Squeeze <axes = [0, 1, 2, 3]> (s)
      zero = Constant <value = float {0}> ()
      yes = Greater (c, zero)
      f = local.Spread <power = 2.0> (x)
      o = If (yes) <
        then_branch = t () => (float[1,4,1,1] a) { a = ReduceSum <axes = [2, 3]> (f) },
        else_branch = e () => (float[1,4,1,1] b) { b = ReduceSum <axes = [2, 3]> (x) }
      >
    }
    <opset_import: ["" : 12], domain: "local">
    Spread <power> (x) => (y) {
      e = Constant <value_float: float = @power> ()
      p = Pow (x, e)
      y = Softmax <axis = 2> (p)
    }"""
    model = build(text)
    feeds = [{"x": sign * np.ones((1, 4, 6, 6), np.float32)} for sign in (1, -1)]
    before = [answers(model, feed)["o"] for feed in feeds]

    assert raise_opset(model, 22) == 5

    (function,) = model.functions.values()
    assert function.opset_imports == {"": 22}
    assert model.opset_imports == {"": 22, "local": 1}
    for feed, wanted in zip(feeds, before, strict=True):
        np.testing.assert_allclose(answers(model, feed)["o"], wanted, rtol=1e-6)


def test_a_parameter_of_a_function_on_a_changed_operator_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12, "local" : 1]>
    main (float[1,4,6,6] x) => (float[1,4,6,6] o) { o = local.Norm <axis = 1> (x) }
    <opset_import: ["" : 12], domain: "local">
    Norm <axis> (x) => (y) { y = Softmax <axis: int = @axis> (x) }"""

    with pytest.raises(PassError, match="Softmax '': an attribute of it is a parameter"):
        raise_opset(build(text), 22)


def test_a_subgraph_is_not_rewritten_from_outside() -> None:
    text = """<ir_version: 8, opset_import: ["" : 8]>
    main (float[1,3,2] x) => (float[1,3,2] y) {
      y = Scan <num_scan_inputs = 1, body = b (float[2] i) => (float[2] o) { o = Relu (i) }> ( , x)
    }"""

    with pytest.raises(PassError, match="Scan '': it holds a subgraph"):
        raise_opset(build(text), 22)


def test_a_classifier_that_answers_with_maps_is_raised() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 12, "ai.onnx.ml" : 1]>
        main (float[N,3] x) => (seq(map(int64, float)) y) {
          p = Softmax (x)
          y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2]> (p)
        }"""
    )
    model = from_proto(proto)

    assert raise_opset(model, 13) == 1
    assert model.opset_imports == {"": 13, "ai.onnx.ml": 1}


def test_a_raised_model_is_left_alone() -> None:
    model = older(22, "float", "Softmax (x)", "o")
    before = ir.to_onnx_text(model)

    assert raise_opset(model, 13) == 0
    assert ir.to_onnx_text(model) == before


def test_the_long_name_of_the_standard_domain_gives_way_to_the_short_one() -> None:
    model = older(12, "float", "Softmax (x)", "o")
    model.graph.opset_imports["ai.onnx"] = model.graph.opset_imports.pop("")

    assert raise_opset(model, 22) == 1
    assert model.opset_imports == {"": 22}
