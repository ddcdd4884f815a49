"""Merged graphs: what they look like, and that nothing of the members is lost or mixed up."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import ModelError, UsageError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.merge import member_names, merge

LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
main (float[n,3] x) => (float[n,4] scores)
  <float[3,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
{
  z = MatMul (x, w)
  scores = Softmax <axis = 1> (z)
}
"""


def answers(model: ir.Model, **feeds: Array) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled", threads=1)).run(feeds)


def test_the_graph_that_is_left() -> None:
    second = LINEAR.replace("n,", "batch,").replace("12}", "13}").replace("scores", "result")
    models = [ir.from_onnx_text(text) for text in (LINEAR, second)]
    for model in models:
        for node, name in zip(model.graph, ("multiply", "normalise"), strict=True):
            node.name = name

    merged = merge(models, names=["a", "b"]).model

    assert ir.to_onnx_text(merged, exclude_initializers=True).splitlines() == [
        "<",
        "   ir_version: 8,",
        '   opset_import: ["" : 17],',
        '   producer_name: "onnxpress"',
        ">",
        "ensemble (float[n,3] x) => (float[n,4] scores) ",
        '   <float[3,4] "a/w", float[3,4] "b/w", float "ensemble/scores/share", '
        'float[n,4] "a/scores", float[n,4] "b/result">',
        "{",
        '   ["a/multiply"] "a/z" = MatMul (x, "a/w")',
        '   ["a/normalise"] "a/scores" = Softmax <axis: int = 1> ("a/z")',
        '   ["b/multiply"] "b/z" = MatMul (x, "b/w")',
        '   ["b/normalise"] "b/result" = Softmax <axis: int = 1> ("b/z")',
        '   ["ensemble/scores/Sum"] "ensemble/scores/Sum" = Sum ("a/scores", "b/result")',
        '   ["ensemble/scores/Mul"] scores = Mul ("ensemble/scores/Sum", "ensemble/scores/share")',
        "}",
    ]


def test_none_keeps_every_output_under_its_members_name() -> None:
    two = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "m (float[n,3] x) => (int64[n] label, float[n,3] p) { "
        "label = ArgMax <axis = 1, keepdims = 0> (x) p = Neg (x) }"
    )

    merged = merge([ir.from_onnx_text(LINEAR), two], names=["a", "b"], combine="none").model

    x = np.array([[1, -2, 0.5]], np.float32)
    after = answers(merged, x=x)
    assert list(after) == ["a/scores", "b/label", "b/p"]
    np.testing.assert_array_equal(after["b/label"], [0])
    np.testing.assert_array_equal(after["b/p"], -x)


def test_another_number_of_outputs_is_refused() -> None:
    text = LINEAR.replace("scores)", "scores, float[n,4] z)")

    with pytest.raises(UsageError, match="member 'b' has 2 outputs, 'a' has 1") as caught:
        merge([ir.from_onnx_text(LINEAR), ir.from_onnx_text(text)], names="ab")

    assert "'none'" in caught.value.hint


def test_names_come_from_files() -> None:
    paths: list[str | Path] = [
        "x/net.onnx",
        Path("y/net.onnx"),
        "my net (2).onnx",
        "net.2.onnx",
        "é.onnx",
    ]

    assert member_names(paths) == ("net", "net.2", "my_net_2_", "net.2.2", "é")


def test_equal_names_get_numbers() -> None:
    models = [ir.from_onnx_text(LINEAR)] * 4

    merged = merge(models, names=["a", "a", "b/c", ""], combine="none").model

    outputs = [value.name for value in merged.graph.outputs]
    assert outputs == ["a/scores", "a.2/scores", "b_c/scores", "model/scores"]


def test_equal_initializers_are_stored_once() -> None:
    text = LINEAR.replace("Softmax", "Abs").replace(" <axis = 1>", "")
    models = [ir.from_onnx_text(t) for t in (text, text, text.replace("12}", "13}"))]

    result = merge(models, names="abc", combine="none")

    assert list(result.model.graph.initializers) == ["a/w", "c/w"]
    assert json.loads(json.dumps(result.details)) == result.details
    assert result.details["shared_initializers"] == {"count": 1, "bytes": 48}
    x = np.array([[1, 0, 1]], np.float32)
    after = answers(result.model, x=x)
    np.testing.assert_array_equal(after["a/scores"], after["b/scores"])
    np.testing.assert_array_equal(after["c/scores"], after["a/scores"] + [[0, 0, 0, 1]])


def test_initializers_of_equal_bytes_but_another_kind_stay_apart() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    m (float[2] x) => (string[2] s, float[2] y) {
      s = Identity (t)
      c = Cast <to = 1> (i)
      y = Add (x, c)
    }"""

    def model(strings: list[str], integers: Array) -> ir.Model:
        tensors = [ir.StringTensor(np.array([s.encode() for s in strings], object), name="t")]
        return ir.from_onnx_text(text, initializers=[*tensors, ir.tensor(integers, name="i")])

    models = [
        model(["a", "bc"], np.array([1, 2], np.int32)),
        model(["ab", "c"], np.array([1, 2], np.uint32)),
        model(["a", "bc"], np.array([1, 2], np.int32)),
    ]

    result = merge(models, names="abc", combine="none")

    assert list(result.model.graph.initializers) == ["a/t", "a/i", "b/t", "b/i"]
    after = answers(result.model, x=np.zeros(2, np.float32))
    assert [list(after[f"{m}/s"]) for m in "abc"] == [["a", "bc"], ["ab", "c"], ["a", "bc"]]


def test_packed_integers_stay_packed() -> None:
    def model(*values: int) -> ir.Model:
        nodes = [
            onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
            onnx.helper.make_node("Add", ["x", "d"], ["y"]),
        ]
        kind = onnx.TensorProto
        graph = onnx.helper.make_graph(
            nodes,
            "packed",
            [onnx.helper.make_tensor_value_info("x", kind.FLOAT, [3])],
            [onnx.helper.make_tensor_value_info("y", kind.FLOAT, [3])],
            [
                onnx.helper.make_tensor("w", kind.INT4, [3], values),
                onnx.helper.make_tensor("s", kind.FLOAT, [], [0.5]),
            ],
        )
        imports = [onnx.helper.make_opsetid("", 21)]
        return ir.from_proto(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10))

    merged = merge([model(1, -2, 3), model(1, -2, 4), model(1, -2, 3)], names="abc").model

    stored = {tensor.name: tensor for tensor in ir.to_proto(merged).graph.initializer}
    assert set(stored) == {"a/w", "a/s", "b/w", "ensemble/y/share"}
    assert len(stored["a/w"].raw_data) == 2
    after = answers(merged, x=np.zeros(3, np.float32))["y"]
    np.testing.assert_allclose(after, [0.5, -1, (1.5 + 2 + 1.5) / 3], rtol=1e-6)


def test_the_models_stay_as_they_are() -> None:
    proto = onnx.parser.parse_model(LINEAR)
    loaded, built = ir.from_proto(proto), ir.from_onnx_text(LINEAR)
    before = [ir.to_proto(model).SerializeToString() for model in (loaded, built)]

    folded = ir.tensor([1.0], name="z")
    built.graph[0].outputs[0].const_value = folded

    merge([loaded, built, loaded], names=["a", "b", "c"], combine="none")

    assert folded.name == "z"
    assert [ir.to_proto(model).SerializeToString() for model in (loaded, built)] == before


def test_texts_and_metadata_are_kept() -> None:
    models = [ir.from_onnx_text(LINEAR) for _ in range(3)]
    for model, labels in zip(models, ("cat,dog", "cat,dog", "dog,cat"), strict=True):
        model.metadata_props["labels"] = labels
        model.graph.metadata_props["stage"] = labels
    models[1].metadata_props["author"] = "me"
    models[0].doc_string, models[2].graph.doc_string = "one", "three"
    models[0].graph.inputs[0].doc_string = "pixels"

    merged = merge(models, names="abc").model

    assert merged.metadata_props == {"labels": "cat,dog", "c/labels": "dog,cat", "author": "me"}
    assert merged.graph.metadata_props == {"stage": "cat,dog", "c/stage": "dog,cat"}
    assert (merged.doc_string, merged.graph.doc_string) == ("a: one", "c: three")
    assert merged.graph.inputs[0].doc_string == "pixels"
    assert merged.producer_name == "onnxpress"


def test_the_highest_ir_version_holds_and_old_weights_become_initializers() -> None:
    old = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 8]> '
        "m (float[2] x, float[2] w = {1, 2}) => (float[2] y) { y = Add (x, w) }"
    )
    older_pair = merge([old, old], names="ab").model
    newer = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> m (float[2] x) => (float[2] y) { y = Abs (x) }'
    )

    assert older_pair.ir_version == 4
    assert merge([old, newer], names="ab").model.ir_version == 10
    np.testing.assert_array_equal(answers(older_pair, x=np.ones(2, np.float32))["y"], [2, 3])


def test_names_that_look_like_prefixes_do_not_clash() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float[2] "b/x") => (float[2] "ensemble/y") <float[2] "a/w" = {1, 2}, float[2] w = {3, 4}> {
      "x" = Add ("b/x", "a/w")
      "b/b/x" = Add (x, w)
      "ensemble/y" = Softmax ("b/b/x")
    }"""
    models = [ir.from_onnx_text(text.replace("3, 4", f"3, {k}")) for k in range(3)]
    x = np.array([0.5, -1], np.float32)
    alone = [answers(model, **{"b/x": x})["ensemble/y"] for model in models]

    merged = merge(models, names=["a", "b", "ensemble"]).model

    after = answers(merged, **{"b/x": x})
    assert list(after) == ["ensemble/y"]
    np.testing.assert_allclose(after["ensemble/y"], np.mean(alone, axis=0), rtol=1e-6)
    values = [v.name for node in merged.graph for v in node.outputs]
    values += [*(v.name for v in merged.graph.inputs), *merged.graph.initializers]
    assert len(set(values)) == len(values)


def test_functions_of_one_name_stay_apart() -> None:
    text = """<ir_version: 10, opset_import: ["" : 17, "local" : {version}]>
    m (float[2] x) => (float[2] y) {{ y = local.Twist <by = {by}> (x) }}
    <opset_import: ["" : 17, "local" : {version}], domain: "local">
    Twist <by> (x) => (y) {{
      k = Constant <value_float: float = @by> () h = local.Half (x) y = Mul (h, k)
    }}
    <opset_import: ["" : 17], domain: "local">
    Half (x) => (y) {{ k = Constant <value = float {{{half}}}> () y = Mul (x, k) }}"""
    models = [
        ir.from_onnx_text(text.format(version=v, by=by, half=half))
        for v, by, half in ((1, "3.0", "0.5"), (2, "5.0", "0.25"))
    ]
    calls_none = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Neg (x) }'
    )

    merged = merge([*models, calls_none], names=["a-1", "a.1", "c"], combine="none").model

    assert sorted(name for _, name, _ in merged.functions) == [
        "a_1_2_Half", "a_1_2_Twist", "a_1_Half", "a_1_Twist",
    ]  # fmt: skip
    after = answers(merged, x=np.ones(2, np.float32))
    assert [after[f"{m}/y"][0] for m in ("a-1", "a.1", "c")] == [1.5, 1.25, -1]
    assert onnx.parser.parse_model(onnx.printer.to_text(ir.to_proto(merged)))


def test_a_renamed_function_does_not_take_the_name_of_another() -> None:
    text = """<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
    m (float[2] x) => (float[2] y) {{ {body} }}
    <opset_import: ["" : 17], domain: "local"> F (x) => (y) {{ y = Neg (x) }}
    <opset_import: ["" : 17], domain: "local"> a_F (x) => (y) {{ y = Exp (x) }}"""
    first = ir.from_onnx_text(text.format(body="z = local.F (x) y = local.a_F (z)"))
    second = ir.from_onnx_text(text.replace("a_F", "G").format(body="y = local.F (x)"))

    merged = merge([first, second], names="ab", combine="none").model

    assert {name for _, name, _ in merged.functions} == {"a_F", "a_F_", "b_F", "G"}
    after = answers(merged, x=np.ones(2, np.float32))
    np.testing.assert_allclose([after["a/y"][0], after["b/y"][0]], [np.exp(-1), -1], rtol=1e-6)


def test_a_custom_operator_is_not_taken_for_another_members_function() -> None:
    function = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 17, "vendor" : 1]>
    m (float[2] x) => (float[2] y) { y = vendor.Op (x) }
    <opset_import: ["" : 17], domain: "vendor"> Op (x) => (y) { y = Neg (x) }""")
    custom = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 17, "vendor" : 1]>
    m (float[2] x) => (float[2] y) { y = vendor.Op (x) }""")

    merged = merge([function, custom], names="ab").model

    assert list(merged.functions) == [("vendor", "a_Op", "")]
    calls = [node.op_type for node in merged.graph if node.domain == "vendor"]
    assert calls == ["a_Op", "Op"]
    assert merged.opset_imports == {"": 17, "vendor": 1}


def test_subgraphs_and_what_they_capture_stay_together() -> None:
    text = """<ir_version: 8, opset_import: ["" : {opset}]>
    m (float[2] x, bool flag) => (float[2] y) <float[2] w = {{1, {w}}}> {{
      h = Mul (x, w)
      y = If (flag) <
        then_branch = t () => (float[2] a) {{ i = Add (h, w) a = Add (i, x) }},
        else_branch = e () => (float[2] b) {{ i = If (flag) <
          then_branch = tt () => (float[2] c) {{ c = Neg (x) }},
          else_branch = ee () => (float[2] c) {{ c = Sub (h, x) }}
        > b = Identity (i) }}
      >
    }}"""
    models = [ir.from_onnx_text(text.format(opset=o, w=w)) for o, w in ((17, 2), (13, 3), (11, 2))]
    x = np.array([3, 5], np.float32)

    merged = merge(models, names="abc", combine="none").model

    for flag in (np.array(True), np.array(False)):
        after = answers(merged, x=x, flag=flag)
        for name, model in zip("abc", models, strict=True):
            np.testing.assert_array_equal(after[f"{name}/y"], answers(model, x=x, flag=flag)["y"])


def test_an_output_that_nothing_computes_anew() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float[2] x) => (float[2] x, float[2] w, float[2] y) <float[2] w = {{1, {}}}> {{
      y = Add (x, w)
    }}"""
    models = [ir.from_onnx_text(text.format(k)) for k in (2, 4)]
    for model in models:
        model.graph.outputs.append(model.graph.outputs[2])
    x = np.array([7, 8], np.float32)

    apart = merge(models, names="ab", combine="none").model
    mean = merge(models, names="ab").model

    after = list(answers(apart, x=x).values())
    np.testing.assert_array_equal(after[:4], [x, [1, 2], [8, 10], [8, 10]])
    np.testing.assert_array_equal(after[4:], [x, [1, 4], [8, 12], [8, 12]])
    np.testing.assert_array_equal(list(answers(mean, x=x).values()), [x, [1, 3], [8, 11], [8, 11]])


def test_a_quantization_annotation_follows_its_tensor() -> None:
    proto = onnx.parser.parse_model(LINEAR)
    annotation = proto.graph.quantization_annotation.add(tensor_name="z")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")

    models = [ir.from_proto(proto) for _ in range(2)]
    other = np.ones((3, 4), np.float32)
    models[1].graph.initializers["w"].const_value = ir.tensor(other, name="w")

    merged = merge(models, names="ab").model

    written = ir.to_proto(merged).graph.quantization_annotation
    pairs = [(a.tensor_name, a.quant_parameter_tensor_names[0].value) for a in written]
    assert pairs == [("a/z", "a/w"), ("b/z", "b/w")]


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        ("input", "its node 'MatMul' reads 'ghost', which nothing before it computes"),
        ("order", "its node 'Softmax' reads 'z', which nothing before it computes"),
        ("output", "nothing computes its output 'ghost'"),
    ],
)
def test_a_broken_member_is_named(break_it: str, reason: str) -> None:
    good, bad = ir.from_onnx_text(LINEAR), ir.from_onnx_text(LINEAR)
    ghost = ir.Value(name="ghost")
    if break_it == "input":
        bad.graph[0].replace_input_with(0, ghost)
    elif break_it == "order":
        first = bad.graph[0]
        bad.graph.remove(first)
        bad.graph.append(first)
    else:
        bad.graph.outputs[0] = ghost

    with pytest.raises(ModelError, match=f"member 'bad' is not valid: {reason}"):
        merge([good, bad], names=["good", "bad"])
