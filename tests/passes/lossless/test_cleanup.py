"""Cleanup: a smaller graph that answers the same, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context, Result
from onnxpress.passes.errors import PassError
from onnxpress.passes.lossless.cleanup import Cleanup
from tests.passes.random_graphs import HEAD, shape_graphs

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)


def clean(model: ir.Model) -> Result:
    return Cleanup().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def body(*lines: str, inputs: str = "float[N,3] x", outputs: str = "float y") -> str:
    return f"{HEAD}main ({inputs}) => ({outputs}) {{\n" + "\n".join(lines) + "\n}"


def test_the_graph_that_is_left(build: Build) -> None:
    text = body(
        "k = Constant <value_floats = [1.0, 2.0, 3.0]> ()",
        "i = Identity (x)",
        "dead = Exp (i)",
        "deader = Neg (dead)",
        "a = Add (i, k)",
        "b = Add (i, k)",
        "m = Mul (a, b)",
        "y = Identity (m)",
    )
    model = build(text, unused=np.ones(3, np.float32))

    result = clean(model)

    assert ir.to_onnx_text(model, exclude_initializers=True).splitlines()[4:] == [
        "main (float[N,3] x) => (float y) ",
        "   <float[3] k>",
        "{",
        "   a = Add (x, k)",
        "   y = Mul (a, a)",
        "}",
    ]
    assert result.details == {
        "unused_nodes": 2,
        "unused_initializers": 1,
        "lifted_constants": 1,
        "no_ops": 2,
        "merged_nodes": 1,
    }
    assert not clean(model).modified


@pytest.mark.parametrize(
    ("call", "setup"),
    [
        ("Identity (x)", ""),
        ("Dropout (x)", ""),
        ("Dropout (x, half, no)", ""),
        ("Cast <to = 1> (x)", ""),
        ("Cast <to = 1> (r)", "r = Relu (x)"),
        ("CastLike (x, half)", ""),
        ("Concat <axis = 1> (x)", ""),
        ("Sum (x)", ""),
        ("Max (x)", ""),
        ("Split <num_outputs = 1> (x)", ""),
        ("Transpose <perm = [0, 1]> (x)", ""),
        ("Transpose <perm = [1, 0]> (t)", "t = Transpose <perm = [1, 0]> (x)"),
        ("Pad (x, zeros)", ""),
        ("Tile (x, ones)", ""),
        ("Expand (x, ones)", ""),
        ("Expand (x, three)", ""),
        ("Flatten (x)", ""),
        ("Flatten <axis = -1> (x)", ""),
        ("Reshape (x, copies)", ""),
        ("Reshape (x, rest)", ""),
        ("Reshape (x, batch)", ""),
        ("Slice (x, from, to_end, axes)", ""),
        ("Slice (x, from, three, axes, one)", ""),
        ("Mul (x, unit)", ""),
        ("Mul (unit, x)", ""),
        ("Div (x, unit1)", ""),
        ("Add (nothing, x)", ""),
        ("Sub (x, nothing)", ""),
        ("Sub (x, nothing3)", ""),
    ],
)
def test_what_repeats_its_input_goes(call: str, setup: str, build: Build, answers: Answers) -> None:
    model = build(body(setup, f"same = {call}", "y = Exp (same)"), **CONSTANTS)
    before = answers(model, x=X)["y"]

    result = clean(model)

    assert kinds(model)[-1] == "Exp"
    assert len(model.graph) <= 1 + bool(setup)
    assert result.details["no_ops"] == 1
    np.testing.assert_array_equal(answers(model, x=X)["y"], before)
    assert not clean(model).modified


CONSTANTS = {
    "half": np.float32(0.5),
    "no": np.array(False),
    "zeros": np.zeros(4, np.int64),
    "ones": np.ones(2, np.int64),
    "three": np.array([3]),
    "copies": np.array([0, 3]),
    "rest": np.array([0, -1]),
    "batch": np.array([-1, 3]),
    "from": np.array([0]),
    "to_end": np.array([2**63 - 1]),
    "axes": np.array([1]),
    "one": np.array([1]),
    "two": np.array([2]),
    "unit": np.float32(1),
    "unit1": np.ones((1, 1), np.float32),
    "unit3": np.ones((1, 1, 1), np.float32),
    "nothing": np.float32(0),
    "nothing3": np.zeros((1, 3), np.float32),
    "nothing2": np.zeros((2, 1), np.float32),
    "nearly": np.array([0, 0, 1], np.float32),
    "yes": np.array(True),
}


@pytest.mark.parametrize(
    "call",
    [
        "Dropout (x, half, yes)",
        "Cast <to = 11> (x)",
        "Concat <axis = 1> (x, x)",
        "Transpose <perm = [1, 0]> (x)",
        "Transpose (x)",
        "Pad (x, fed4)",
        "Tile (x, two2)",
        "Expand (x, fed2)",
        "Expand (x, longer)",
        "Flatten <axis = 0> (x)",
        "Reshape (x, fed2)",
        "Reshape (x, flat)",
        "Reshape (x, batch3)",
        "Reshape (x, swapped)",
        "Slice (x, one, to_end, axes)",
        "Slice (x, from, two, axes)",
        "Slice (x, from, fed1, axes)",
        "Slice (x, from, two, from)",
        "Slice (x, from, to_end, axes, two)",
        "Slice (x, from, to_end, axes, fed1)",
        "Slice (x, from, three, fed1)",
        "Mul (x, nothing)",
        "Mul (x, unit3)",
        "Add (x, nothing2)",
        "Add (x, nearly)",
        "Mul (x, x)",
        "Div (unit, x)",
        "Sub (nothing, x)",
        "Add (x, unit)",
        "local.Identity (x)",
    ],
)
def test_what_changes_its_input_stays(call: str, build: Build) -> None:
    text = body(
        f"same = {call}",
        "y = Exp (same)",
        inputs="float[N,3] x, int64[1] fed1, int64[2] fed2, int64[4] fed4",
    ).replace("18]", '18, "local" : 1]')
    extra = {
        "two2": np.array([2, 1]),
        "longer": np.array([1, 1, 1]),
        "flat": np.array([-1]),
        "batch3": np.array([-1, 3, 1]),
        "swapped": np.array([3, -1]),
    }
    model = build(text, **CONSTANTS, **extra)

    result = clean(model)

    assert "no_ops" not in result.details
    assert len(model.graph) == 2


def test_a_mask_that_is_read_keeps_its_dropout(build: Build) -> None:
    model = build(body("d, mask = Dropout (x)", "m = Cast <to = 1> (mask)", "y = Add (d, m)"))

    assert not clean(model).modified


OUTPUTS = "float[N,3] y, float[a,b] z"


@pytest.mark.parametrize(
    ("lines", "outputs", "left"),
    [
        (["r = Relu (x)", "y = Identity (r)"], "float[N,3] y", ["y = Relu (x)"]),
        (["y = Identity (x)"], "float[N,3] y", ["y = Identity (x)"]),
        (["y = Identity (w)"], "float[1,3] y", ["y = Identity (w)"]),
        (["y = Relu (x)", "z = Identity (y)"], OUTPUTS, ["y = Relu (x)", "z = Identity (y)"]),
        (["r = Relu (x)", "y = Identity (r)", "z = Identity (r)"], OUTPUTS,
         ["y = Relu (x)", "z = Identity (y)"]),
        (["y = Exp (x)", "z = Exp (x)"], OUTPUTS, ["y = Exp (x)", "z = Exp (x)"]),
        (["r = Exp (x)", "y = Exp (x)", "z = Neg (r)"], OUTPUTS, ["y = Exp (x)", "z = Neg (y)"]),
        (["y = Constant <value = float[1] {1}> ()"], "float[1] y",
         ["y = Constant <value: tensor = float[1] {1}> ()"]),
    ],
)  # fmt: skip
def test_outputs_keep_their_names(
    lines: list[str], outputs: str, left: list[str], build: Build, answers: Answers
) -> None:
    model = build(body(*lines, outputs=outputs), w=np.ones((1, 3), np.float32))
    declared = [(value.name, str(value.shape)) for value in model.graph.outputs]
    before = answers(model, x=X)

    clean(model)

    text = ir.to_onnx_text(model)
    assert [line.strip() for line in text.splitlines() if " = " in line and "<float" not in line][
        -len(left) :
    ] == left
    assert [(value.name, str(value.shape)) for value in model.graph.outputs] == declared
    after = answers(model, x=X)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert not clean(model).modified


def test_notes_on_an_output_are_kept(build: Build) -> None:
    model = build(body("r = Relu (x)", "y = Identity (r)"))
    output = model.graph.outputs[0]
    output.doc_string = "what it is"
    output.metadata_props["unit"] = "m"
    output.meta["mark"] = 1

    clean(model)

    output = model.graph.outputs[0]
    assert output.producer() is model.graph[0]
    assert (output.doc_string, output.metadata_props["unit"], output.meta["mark"]) == (
        "what it is", "m", 1,
    )  # fmt: skip


def test_an_output_without_effect_needs_a_node(build: Build) -> None:
    result = clean(build(body("y = Cast <to = 1> (x)")))

    assert list(result.declined.values()) == ["an output of the graph needs a node of its own"]


FILLED = "ConstantOfShape <value = float[1] {1}> (i)"


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        ("Exp (x)", "Exp (x)", True),
        ("Gather <axis = 1> (x, i)", "Gather <axis = 1> (x, j)", True),
        ("Gather <axis = 1> (x, i)", "Gather <axis = 0> (x, j)", False),
        ("Gather <axis = 1> (x, i)", "Gather <axis = 1> (x, k)", False),
        (FILLED, FILLED.replace("(i)", "(j)"), True),
        (FILLED, FILLED.replace("{1}", "{2}"), False),
        ("Add (x, big1)", "Add (x, big2)", True),
        ("Add (x, small1)", "Add (x, small2)", True),
        ("Elu <alpha = 1.0> (x)", "Elu <alpha = 2.0> (x)", False),
        ("RandomUniformLike (x)", "RandomUniformLike (x)", False),
        ("Bernoulli (x)", "Bernoulli (x)", False),
        ("Dropout (x, half, yes)", "Dropout (x, half, yes)", False),
        ("DequantizeLinear (q, half)", "DequantizeLinear (q, half)", False),
        ("QuantizeLinear (x, half)", "QuantizeLinear (x, half)", False),
        ("local.Op (x)", "local.Op (x)", False),
    ],
)  # fmt: skip
def test_nodes_that_compute_the_same(first: str, second: str, merged: bool, build: Build) -> None:
    text = body(f"a = {first}", f"b = {second}", "p = Cast <to = 1> (a)", "n = Cast <to = 11> (b)",
                "y = local.Pair (p, n)").replace("18]", '18, "local" : 1]')  # fmt: skip
    big = np.ones((3000, 3), np.float32)
    arrays = {"i": [1, 2], "j": [1, 2], "k": [1, 0]}
    model = build(
        text, **CONSTANTS, **arrays, q=np.ones(3, np.int8), big1=big, big2=big,
        small1=np.ones(3, np.float32), small2=np.ones(3, np.float32),
    )  # fmt: skip

    result = clean(model)

    assert (result.details.get("merged_nodes", 0) == 1) is merged
    assert not clean(model).modified


def test_what_is_merged_makes_more_the_same(build: Build) -> None:
    model = build(
        body("a = Exp (x)", "b = Exp (x)", "c = Neg (a)", "d = Neg (b)", "y = Add (c, d)")
    )

    clean(model)

    assert kinds(model) == ["Exp", "Neg", "Add"]


def test_nodes_in_branches(build: Build, answers: Answers) -> None:
    text = body(
        "e = Exp (x)",
        "y = If (flag) <",
        "  then_branch = yes () => (float[N,3] p) { a = Exp (x)",
        "    b = Identity (a)",
        "    k = Constant <value_floats = [1.0, 2.0, 3.0]> ()",
        "    p = Add (b, k) },",
        "  else_branch = no () => (float[N,3] q) { a = Neg (x)",
        "    q = Identity (e) }",
        ">",
        inputs="float[N,3] x, bool flag",
    )
    model = build(text)
    before = [answers(model, x=X, flag=np.array(flag))["y"] for flag in (True, False)]

    result = clean(model)

    (control,) = (node for node in model.graph if node.op_type == "If")
    yes, no = (control.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
    assert ([n.op_type for n in yes], list(yes.initializers)) == (["Add"], ["k"])
    assert [n.op_type for n in no] == ["Identity"]
    assert [value.name for value in yes[0].inputs if value] == ["e", "k"]
    assert result.details == {
        "unused_nodes": 1, "lifted_constants": 1, "no_ops": 1, "merged_nodes": 1,
    }  # fmt: skip
    for flag, old in zip((True, False), before, strict=True):
        np.testing.assert_array_equal(answers(model, x=X, flag=np.array(flag))["y"], old)
    assert not clean(model).modified


def test_a_branch_output_is_not_merged_with_an_outer_node(build: Build) -> None:
    text = body(
        "e = Exp (x)",
        "o = If (flag) <",
        "  then_branch = yes () => (float[N,3] p) { p = Exp (x) },",
        "  else_branch = no () => (float[N,3] q) { q = Neg (x) }",
        ">",
        "y = Add (e, o)",
        inputs="float[N,3] x, bool flag",
    )
    assert not clean(build(text)).modified


def test_a_dead_control_flow_node_frees_what_it_read(build: Build) -> None:
    text = body(
        "e = Exp (x)",
        "o = If (flag) <",
        "  then_branch = yes () => (float[N,3] p) { p = Neg (e) },",
        "  else_branch = no () => (float[N,3] q) { q = Identity (e) }",
        ">",
        "y = Neg (x)",
        inputs="float[N,3] x, bool flag",
    )
    model = build(text)

    clean(model)

    assert kinds(model) == ["Neg"]


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (np.ones((80, 80), np.float32), np.ones((80, 80), np.float32), True),
        (np.ones((80, 80), np.float32), np.ones((80, 80), np.float64), False),
        (np.ones((80, 80), np.float32), np.ones((80, 80, 1), np.float32), False),
        (np.ones((80, 80), np.float32), np.arange(6400, dtype=np.float32).reshape(80, 80), False),
        (np.ones(6400, np.float32), np.r_[np.ones(6399), 2].astype(np.float32), False),
        (np.full(6400, np.nan, np.float32), np.full(6400, np.nan, np.float32), True),
        (np.ones(8, np.float32), np.ones(8, np.float32), False),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 2], np.int32), False),
        (np.array(True), np.array(True), True),
        (np.ones(9, ml_dtypes.int4), np.ones(9, ml_dtypes.int4), False),
    ],
)
def test_initializers_that_hold_the_same(
    one: Array, other: Array, merged: bool, build: Build
) -> None:
    text = body("y = local.Pair (x, a, b)").replace("18]", '18, "local" : 1]')
    model = build(text, a=one, b=other)

    result = clean(model)

    assert result.modified is merged
    assert list(model.graph.initializers) == (["a"] if merged else ["a", "b"])


def test_one_of_many_that_hold_the_same(build: Build) -> None:
    arrays = {f"k{i}": np.array([i % 3, 7]) for i in range(6)}
    text = body(f"y = local.Many (x, {', '.join(arrays)})").replace("18]", '18, "local" : 1]')
    model = build(text, **arrays)

    clean(model)

    assert list(model.graph.initializers) == ["k0", "k1", "k2"]
    read = [value.name for value in model.graph[0].inputs[1:] if value]
    assert read == ["k0", "k1", "k2", "k0", "k1", "k2"]


def test_strings_are_merged(build: Build) -> None:
    text = body("y = local.Pair (x, a, b, c)").replace("18]", '18, "local" : 1]')
    model = build(text)
    for name, word in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        tensor = ir.StringTensor([word], shape=ir.Shape([1]), name=name)
        value = ir.Value(name=name, const_value=tensor)
        model.graph.initializers.add(value)
        model.graph[0].replace_input_with("abc".index(name) + 1, value)

    clean(model)

    assert list(model.graph.initializers) == ["a", "c"]


def test_what_quantizes_keeps_its_own_constants(build: Build) -> None:
    text = body("a = DequantizeLinear (q, s)", "b = DequantizeLinear (p, t)", "y = Add (a, b)")
    q = np.ones((80, 80), np.int8)
    model = build(text, q=q, p=q, s=np.float32(0.5), t=np.float32(0.5))

    assert not clean(model).modified


def test_a_branch_shares_the_initializer_of_the_outer_graph(build: Build) -> None:
    text = body(
        "o = If (flag) <",
        "  then_branch = yes () => (float p) <int64[2] j = {1, 2}> {",
        "    p = Gather <axis = 1> (x, j) },",
        "  else_branch = no () => (float q) <int64[2] k = {2, 1}> {",
        "    q = Gather <axis = 1> (x, k) }",
        ">",
        "g = Gather <axis = 1> (x, i)",
        "y = Add (g, o)",
        inputs="float[N,3] x, bool flag",
    )
    model = build(text, i=np.array([1, 2]))

    result = clean(model)

    graphs = [attribute.as_graph() for attribute in model.graph[0].attributes.values()]
    assert [list(graph.initializers) for graph in graphs] == [[], ["k"]]
    assert result.details == {"merged_initializers": 1}


def test_inputs_with_defaults_stay(build: Build) -> None:
    text = body("y = Add (x, w)", inputs="float[N,3] x, float[3] w, float[3] unused")
    model = build(text, w=np.ones(3, np.float32), unused=np.ones(3, np.float32))

    assert not clean(model).modified


@pytest.mark.parametrize(
    ("call", "outputs", "left"),
    [
        ("d, mask = Dropout (x)", "d", 1),
        ("d, mask = MaxPool <kernel_shape = [1]> (x3)", "d", 1),
        ("d, i = TopK (x, one)", "d", 2),
        ("s, d = RNN <hidden_size = 1> (x3, rw, rr)", "d", 2),
        ("d, m, v = BatchNormalization <training_mode = 1> (x, b, b, b, b)", "d", 3),
        ("d, e = local.Op (x)", "d", 2),
    ],
)
def test_outputs_that_may_be_left_out(call: str, outputs: str, left: int, build: Build) -> None:
    text = body(call, f"y = local.Any ({outputs})", inputs="float[N,3] x, float[3,1,3] x3")
    b, r = np.ones(3, np.float32), np.ones((1, 1, 3), np.float32)
    model = build(text.replace("18]", '18, "local" : 1]'), **CONSTANTS, b=b, rw=r, rr=r[..., :1])

    result = clean(model)

    node = model.graph[0]
    assert len(node.outputs) == left if node.op_type != "Any" else result.details["no_ops"] == 1
    if node.op_type == "RNN":
        assert [output.name for output in node.outputs] == ["", "d"]
    assert not clean(model).modified


def test_constants_of_every_kind_become_initializers(build: Build) -> None:
    text = body(
        "a = Constant <value_int = 3> ()",
        "b = Constant <value_ints = [3]> ()",
        "c = Constant <value_float = 0.5> ()",
        'd = Constant <value_string = "word"> ()',
        'e = Constant <value_strings = ["ab", "c"]> ()',
        "f = Constant <value = int8[1] {3}> ()",
        "y = local.Op (x, a, b, c, d, e, f)",
    ).replace("18]", '18, "local" : 1]')
    model = build(text)

    result = clean(model)

    assert result.details == {"lifted_constants": 6}
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert {name: tensor.numpy().tolist() for name, tensor in tensors.items() if tensor} == {
        "a": 3, "b": [3], "c": 0.5, "d": b"word", "e": [b"ab", b"c"], "f": [3],
    }  # fmt: skip
    assert kinds(model) == ["Op"]


def test_functions(build: Build) -> None:
    text = f"""{HEAD.replace("18]", '18, "local" : 1, "other" : 1]')}
    main (float[2] x) => (float[2] y) {{ y = local.used (x)  dead = other.unused (x) }}
    <domain: "local", opset_import: ["" : 18]>
    used (a) => (b) {{
      k = Constant <value_float = 2.0> ()
      i = Identity (a)
      dead = Exp (i)
      m = Mul (i, k)
      b = Identity (m)
    }}
    <domain: "other", opset_import: ["" : 18]>
    unused (a) => (b) {{ b = Neg (a) }}"""
    model = build(text)

    result = clean(model)

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Mul"]
    assert result.details == {
        "unused_nodes": 2, "unused_functions": 1, "unused_opsets": 1, "no_ops": 2,
    }  # fmt: skip
    assert dict(model.opset_imports) == {"": 18, "local": 1}


def test_unsorted_nodes_are_sorted(build: Build) -> None:
    model = build(body("a = Exp (x)", "y = Neg (a)"))
    exp, neg = list(model.graph)
    model.graph.remove(exp)
    model.graph.insert_after(neg, exp)

    result = clean(model)

    assert kinds(model) == ["Exp", "Neg"]
    assert result.details == {"sorted": 1}


def test_a_cycle_cannot_be_sorted(build: Build) -> None:
    model = build(body("a = Exp (x)", "y = Neg (a)"))
    exp, neg = list(model.graph)
    exp.replace_input_with(0, neg.outputs[0])

    with pytest.raises(PassError, match="cannot be sorted"):
        clean(model)


@pytest.mark.parametrize("what", ["value", "node", "inner"])
def test_names_that_are_used_twice(what: str, build: Build) -> None:
    text = body(
        "a = Exp (x)",
        "b = Neg (a)",
        "o = If (flag) <",
        "  then_branch = yes () => (float[N,3] p) { m = Exp (b)",
        "    p = Neg (m) },",
        "  else_branch = no () => (float[N,3] q) { m = Neg (b)",
        "    q = Exp (m) }",
        ">",
        "y = Add (b, o)",
        inputs="float[N,3] x, bool flag",
    )
    model = build(text)
    assert not clean(model).modified
    inner = model.graph[2].attributes["then_branch"].as_graph()
    if what == "value":
        model.graph[1].outputs[0].name = "a"
    elif what == "inner":
        inner[0].outputs[0].name = "a"
    else:
        model.graph[0].name = model.graph[1].name = "twice"

    result = clean(model)

    assert result.details == {"renamed": 1}
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert not clean(model).modified


def test_a_shape_that_is_said_of_a_tensor_is_not_believed(build: Build) -> None:
    text = f"""{HEAD}main (float[N,4] x) => (float y) <float[2,3] r> {{
      r = Relu (x)
      target = Constant <value_ints = [2, 3]> ()
      s = Reshape (r, target)
      y = Exp (s)
    }}"""
    model = build(text)

    assert "no_ops" not in clean(model).details


@settings(max_examples=60, deadline=None)
@given(shape_graphs())
def test_any_graph_keeps_its_answers_bit_for_bit(model: ir.Model) -> None:
    shapes = [(1, 3, 2), (4, 3, 5)]
    feeds = [{"x": np.random.default_rng(0).normal(size=s).astype(np.float32)} for s in shapes]

    def run() -> list[dict[str, Array]]:
        session = session_of(model, SessionConfig(level="disabled", threads=1))
        return [session.run(feed) for feed in feeds]

    before = run()

    clean(model)

    for old, new in zip(before, run(), strict=True):
        for name, array in old.items():
            np.testing.assert_array_equal(new[name], array)
    assert not clean(model).modified
