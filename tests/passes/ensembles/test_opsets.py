"""Raising members to a common opset: the same answers, and everything around the nodes kept."""

import re

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import ModelError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.merge import merge

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
    (9, "float", "ArgMax <axis = 1> (x)"),
    (9, "float", "DepthToSpace <blocksize = 2> (x)"),
    (9, "float", "TopK <axis = 1, k = 2> (x)"),
    (9, "float", 'Upsample <mode = "linear"> (x, twice)'),
    (10, "float", 'Resize <mode = "linear"> (x, twice)'),
    (10, "float", 'Resize <mode = "nearest"> (x, half)'),
    (10, "float", 'Resize <mode = "nearest"> (x, larger)'),
    (11, "float", "Split <axis = 1> (x)"),
    (12, "float", "LogSoftmax <axis = -1> (x)"),
    (12, "double", "Clip (x, low)"),
    (12, "float", "Unsqueeze <axes = [0, 2]> (x)"),
    (13, "float", "ReduceL2 <axes = [2, 3]> (x)"),
    (16, "float", 'GridSample <mode = "bilinear"> (x, grid)'),
]
WEIGHTS: dict[str, Array] = {
    "four": np.array([0.5, 1.5, 1.0, 2.0], np.float32),
    "grid": np.linspace(-1, 1, 18, dtype=np.float32).reshape(1, 3, 3, 2),
    "half": np.array([1, 1, 0.5, 0.4], np.float32),
    "larger": np.array([1, 1, 1.5, 2.7], np.float32),
    "low": np.array(-0.1, np.float64),
    "mixed": np.array([1, 1, 0.5, 2], np.float32),
    "twice": np.array([1, 1, 2, 2], np.float32),
}
NEWER = (
    '<ir_version: 10, opset_import: ["" : 22]> n (float[1,4,6,6] x) => (float[1,4,6,6] y) {{ {} }}'
)


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


def with_newer(model: ir.Model, kind: str = "float") -> ir.Model:
    """``model`` beside one of opset 22, as the member ``old``."""
    newer = ir.from_onnx_text(NEWER.replace("float", kind).format("y = Identity (x)"))
    return merge([newer, model], names=["new", "old"], combine="none").model


@pytest.mark.parametrize(("opset", "kind", "node"), OPERATORS)
def test_an_older_operator_gives_the_same_answers(opset: int, kind: str, node: str) -> None:
    outputs = ["o", "p"] if node.startswith(("TopK", "Split")) else ["o"]
    model = older(opset, kind, node, *outputs)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 6))
    feeds = {"x": x.astype({"float": np.float32, "double": np.float64}[kind])}
    before = answers(model, feeds)

    merged = with_newer(model, kind)

    assert merged.opset_imports == {"": 22}
    after = answers(merged, feeds)
    for name in outputs:
        np.testing.assert_allclose(after[f"old/{name}"], before[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_bounds_get_the_type_of_what_they_bound(kind: str) -> None:
    merged = with_newer(older(10, kind, "Clip <max = 0.25> (x)", "o"), kind)

    bounds = [node.attributes["value"].as_tensor() for node in merged.graph if not node.inputs]
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
def test_what_cannot_be_raised_is_refused_with_the_member_and_the_reason(
    opset: int, node: str, reason: str
) -> None:
    sizes = "sizes = Constant <value = float[4] {1, 1, 2, 2}> () z = Abs (sizes)"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    main (float[1,4,6,6] x) => (float[N] o) {{ {sizes} o = {node.replace("sizes", "z")} }}"""

    with pytest.raises(ModelError, match=f"member 'old' cannot be raised.*{reason}") as caught:
        with_newer(build(text))

    assert "leave it out" in caught.value.hint


def test_an_unknown_standard_operator_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12]>
    main (float[1,4,6,6] x) => (float[N] o) { o = ScaledTanh (x) }"""

    with pytest.raises(ModelError, match="ScaledTanh '': there is no such operator in opset 12"):
        with_newer(build(text))


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

    merged = with_newer(model)

    nodes = {node.op_type: node for node in merged.graph}
    assert nodes["Relu"].name == "old/keep"
    assert nodes["Relu"].metadata_props == {"origin": "layer 1"}
    clip = nodes["Clip"]
    assert (clip.name, clip.doc_string) == ("old/bound", "keeps it small")
    assert clip.metadata_props == {"origin": "layer 2"}
    names = [output.name for node in merged.graph for output in node.outputs]
    assert names == ["new/y", "old/a", "old/bound/Constant", "old/bound/Constant.2", "old/o"]


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

    merged = with_newer(model)

    (function,) = merged.functions.values()
    assert function.opset_imports == {"": 22}
    assert merged.opset_imports == {"": 22, "local": 1}
    for feed, wanted in zip(feeds, before, strict=True):
        np.testing.assert_allclose(answers(merged, feed)["old/o"], wanted, rtol=1e-6)


def test_a_parameter_of_a_function_on_a_changed_operator_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12, "local" : 1]>
    main (float[1,4,6,6] x) => (float[1,4,6,6] o) { o = local.Norm <axis = 1> (x) }
    <opset_import: ["" : 12], domain: "local">
    Norm <axis> (x) => (y) { y = Softmax <axis: int = @axis> (x) }"""

    with pytest.raises(ModelError, match="Softmax '': an attribute of it is a parameter"):
        with_newer(build(text))


@pytest.mark.parametrize(
    ("node", "version", "reason"),
    [
        ('ai.onnx.ml.Normalizer <norm = "L2"> (x)', 1, ""),
        ('ai.onnx.ml.LabelEncoder <classes_strings = ["a"]> (x)', 1, "LabelEncoder of ai.onnx.ml"),
        ("custom.Op (x)", 1, "Op of custom version 1.*version 3"),
    ],
)
def test_other_domains_are_raised_where_nothing_changed(
    node: str, version: int, reason: str
) -> None:
    domain = node.rpartition(".")[0] if node.startswith("custom") else "ai.onnx.ml"
    text = f"""<ir_version: 10, opset_import: ["" : 22, "{domain}" : {{}}]>
    main (float[4,6] x) => (float[4,6] o) {{{{ o = {node} }}}}"""
    old = ir.from_onnx_text(text.format(version))
    new = ir.from_onnx_text(text.format(3).replace(node, f"{domain}.Scaler (x)"))

    if reason:
        with pytest.raises(ModelError, match=f"member 'old' uses {reason}"):
            merge([new, old], names=["new", "old"], combine="none")
    else:
        merged = merge([new, old], names=["new", "old"], combine="none").model
        assert merged.opset_imports == {"": 22, domain: 3}


def test_unused_imports_do_not_conflict() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : {}]>
    main (float[2] x) => (float[2] y) {{ y = Relu (x) }}"""
    models = [ir.from_onnx_text(text.format(version)) for version in (2, 3)]

    assert merge(models, names=["a", "b"]).model.opset_imports == {"": 17}
