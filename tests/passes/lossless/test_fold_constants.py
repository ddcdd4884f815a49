"""FoldConstants: constants instead of nodes, bit for bit, and nothing that bloats the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from onnxpress.backends.base import Array, Session, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context, Result
from onnxpress.passes.errors import UsageError
from onnxpress.passes.lossless.fold_constants import FoldConstants
from tests.passes.random_graphs import HEAD, shape_graphs

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

TEXT = (
    HEAD
    + """main (float[N,2] x) => (float[N,2] y) {
  half = Constant <value_float = 0.5> ()
  scaled = Mul (w, half)
  moved = Add (scaled, b)
  p = Mul (x, moved)
  q = Add (p, moved)
  y = Add (q, scaled)
}
"""
)
W, B = np.array([1, 3], np.float32), np.array([0.1, 0.2], np.float32)
BIG = np.ones((128, 128), np.float32)


def fold(model: ir.Model, **options: Any) -> Result:
    return FoldConstants(**options).rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def stored(model: ir.Model) -> dict[str, Any]:
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {name: tensor.numpy().tolist() for name, tensor in tensors.items() if tensor}


def counted(sessions: list[ir.Model]) -> Context:
    def load(
        model: ir.Model,
        config: SessionConfig = SessionConfig(),  # noqa: B008
        outputs: Sequence[str] | None = None,
    ) -> Session:
        sessions.append(model)
        return session_of(model, config, outputs)

    return Context(sessions=load)


def test_the_graph_that_is_left(build: Build) -> None:
    model = build(TEXT, w=W, b=B)
    sessions: list[ir.Model] = []

    result = FoldConstants().rewrite(model, counted(sessions))

    assert len(sessions) == 1
    assert result.details == {"evaluated": 2}
    assert len(result.rewritten) == 2
    text = ir.to_onnx_text(model, exclude_initializers=True)
    assert text.splitlines()[4:] == [
        "main (float[N,2] x) => (float[N,2] y) ",
        "   <float[2] moved, float[2] scaled>",
        "{",
        "   p = Mul (x, moved)",
        "   q = Add (p, moved)",
        "   y = Add (q, scaled)",
        "}",
    ]
    assert stored(model) == {
        "moved": (W * np.float32(0.5) + B).tolist(),
        "scaled": (W * np.float32(0.5)).tolist(),
    }
    assert not fold(model).modified


SIZES = HEAD + "main (float[N,3,M,4] x, float[1,1,1,4] z) => (float y) {{\n{lines}\n}}"


def sizes(*lines: str) -> str:
    return SIZES.format(lines="\n".join(["s = Shape (x)", *lines]))


def test_a_fixed_size_is_constant_though_the_batch_is_not(build: Build) -> None:
    text = sizes(
        "one = Constant <value_int = 1> ()",
        "channels = Gather (s, one)",
        "real = Cast <to = 1> (channels)",
        "y = Mul (x, real)",
    )
    model = build(text)

    result = fold(model)

    assert kinds(model) == ["Mul"]
    assert stored(model) == {"real": 3.0}
    assert result.details == {"evaluated": 1}


def test_integers_alone_need_no_session(build: Build) -> None:
    model = build(sizes("i = Constant <value_ints = [3, 1]> ()", "y = Gather (s, i)"))
    sessions: list[ir.Model] = []

    result = FoldConstants().rewrite(model, counted(sessions))

    assert (kinds(model), sessions, result.details) == (["Constant"], [], {})


LARGE = "its value takes much more room than what it comes from"
MANY = "more than one size of its target is not known"


@pytest.mark.parametrize(
    ("target", "allow_zero", "found"),
    [
        ("n 12 m", 0, [0, 12, 0]),
        ("n m 12", 0, MANY),
        ("n 3 m 4", 0, [0, 3, 0, 4]),
        ("n -1 m", 0, [0, -1, 0]),
        ("n -1", 0, [0, -1]),
        ("n -1", 1, MANY),
        ("n 0 -1", 0, [0, 0, -1]),
        ("n 12 3", 0, [-1, 12, 3]),
        ("nm 12", 0, [-1, 12]),
        ("nm 12", 1, [-1, 12]),
        ("nm 0 4", 0, [-1, 0, 4]),
        ("nm 0", 1, MANY),
        ("12 nm 0", 0, MANY),
        ("n nm 12", 0, MANY),
        ("nm 4 3 1 0", 0, MANY),
    ],
)
def test_targets_of_reshape(target: str, allow_zero: int, found: Any, build: Build) -> None:
    parts = target.split()
    fixed = [(f"c{i}", part) for i, part in enumerate(parts) if part not in {"n", "m", "nm"}]
    names = [part if part in {"n", "m", "nm"} else f"c{i}" for i, part in enumerate(parts)]
    model = build(
        sizes(
            "n = Shape <start = 0, end = 1> (x)",
            "m = Shape <start = 2, end = 3> (x)",
            "nm = Mul (n, m)",
            *(f"{name} = Constant <value_ints = [{part}]> ()" for name, part in fixed),
            f"t = Concat <axis = 0> ({', '.join(names)})",
            f"y = Reshape <allowzero = {allow_zero}> (x, t)",
        )
    )

    result = fold(model)

    if found == MANY:
        assert not result.modified
        assert list(result.declined.values()) == [MANY]
    else:
        assert result.modified
        assert "Concat" not in kinds(model)
        assert stored(model) == {"y.target": found}
    assert not fold(model).modified


@pytest.mark.parametrize(
    ("target", "found"),
    [("s", [1, 3, 1, 4]), ("n", None), ("swapped", None), ("longer", [5, 1, 3, 1, 4])],
)
def test_targets_of_expand(target: str, found: list[int] | None, build: Build) -> None:
    text = sizes(
        "n = Shape <start = 0, end = 1> (x)",
        "order = Constant <value_ints = [2, 1, 0, 3]> ()",
        "swapped = Gather (s, order)",
        "five = Constant <value_ints = [5]> ()",
        "longer = Concat <axis = 0> (five, s)",
        f"y = Expand (x, {target})",
    )
    model = build(text)

    result = fold(model)

    if found is None:
        assert "a size of its target is not known" in " ".join(result.declined.values())
    else:
        assert [value.name for value in model.graph[-1].inputs if value] == ["x", "y.target"]
        assert stored(model) == {"y.target": found}


@pytest.mark.parametrize(
    "call",
    [
        "ConstantOfShape <value = float[1] {1}> (t)",
        "Expand (one, t)",
        "Tile (w, reps)",
        "Unsqueeze (range, zero)",
        "OneHot (places, depth, pair)",
        "Add (column, w)",
    ],
)
def test_what_is_much_larger_than_its_source_stays(
    call: str, build: Build, answers: Answers
) -> None:
    text = (
        HEAD
        + f"""main (float[N,128] x) => (float y) {{
      t = Constant <value_ints = [128, 128]> ()
      reps = Constant <value_ints = [16, 8]> ()
      one = Constant <value_floats = [1.0]> ()
      pair = Constant <value_floats = [0.0, 1.0]> ()
      start = Constant <value_float = 0.0> ()
      end = Constant <value_float = 8000.0> ()
      step = Constant <value_float = 1.0> ()
      range = Range (start, end, step)
      zero = Constant <value_ints = [0]> ()
      depth = Constant <value_int = 128> ()
      places = Cast <to = 7> (w)
      c = Constant <value_ints = [-1, 1]> ()
      column = Reshape (w, c)
      big = {call}
      sum = ReduceMean <keepdims = 0> (x)
      y = Add (big, sum)
    }}"""
    )
    model = build(text, w=np.ones((1, 2048), np.float32))
    size = len(ir.to_proto(model).SerializeToString())
    x = np.ones((1, 128), np.float32)
    before = answers(model, x=x)["y"]

    result = fold(model)

    assert set(result.declined.values()) == {LARGE}
    assert len(ir.to_proto(model).SerializeToString()) <= size + FoldConstants().max_growth + 100
    np.testing.assert_array_equal(answers(model, x=x)["y"], before)
    assert not fold(model).modified


def test_weights_in_half_precision_are_not_widened(build: Build) -> None:
    text = HEAD + "main (float[N,128] x) => (float y) { w = Cast <to = 1> (h)\n y = MatMul (x, w) }"
    model = build(text, h=BIG.astype(np.float16))

    result = fold(model)

    assert list(result.declined.values()) == [LARGE]


def test_growth_is_an_option(build: Build) -> None:
    text = (
        HEAD
        + """main (float[100] x) => (float[100] y) {
      t = Constant <value_ints = [100]> ()
      big = ConstantOfShape <value = float[1] {1}> (t)
      y = Add (x, big)
    }"""
    )
    assert kinds(build(text)) == ["Constant", "ConstantOfShape", "Add"]
    for growth, left in ((0, ["Constant", "ConstantOfShape", "Add"]), (400, ["Add"])):
        model = build(text)
        fold(model, max_growth=growth)
        assert kinds(model) == left
    assert str(FoldConstants(max_growth=0)) == "fold-constants{max_growth=0}"
    with pytest.raises(UsageError, match="cannot be negative"):
        FoldConstants(max_growth=-1)


@pytest.mark.parametrize(
    ("reader", "shape", "is_stored"),
    [
        ("y = MatMul (x, big)", "40, 40", True),
        ("y = Conv (x, w, big)", "400", True),
        ("y = Mul (x, big)", "400, 1, 1", True),
        ("y = Mul (x, big)", "40, 40", False),
        ("y = Conv (big, w)", "1, 3, 40, 40", False),
        ("y = Softmax (big)", "40, 40", False),
        ("z = MatMul (x, big) y = Add (z, big)", "40, 40", False),
        ("z = MatMul (x, big) y = com.microsoft.Gelu (big)", "40, 40", False),
    ],
)
def test_weights_may_grow_more(reader: str, shape: str, is_stored: bool, build: Build) -> None:
    text = (
        HEAD.replace("17]", '17, "com.microsoft" : 1]')
        + f"""main (float[] x, float[] w) => (float[] y) {{
      t = Constant <value_ints = [{shape}]> ()
      big = ConstantOfShape <value = float[1] {{1}}> (t)
      {reader}
    }}"""
    )
    model = build(text)
    assert not fold(model).modified
    assert fold(model, max_weight=10_000).modified == is_stored
    assert ("ConstantOfShape" in kinds(model)) != is_stored
    with pytest.raises(UsageError, match="cannot be negative"):
        FoldConstants(max_weight=-1)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["y = MatMul (x, t)"], ["MatMul"]),
        (["m = MatMul (x, w)", "y = MatMul (m, t)"], ["Transpose", "MatMul", "MatMul"]),
        (["u = Transpose <perm = [1, 0]> (w)", "m = MatMul (x, t)", "y = MatMul (m, u)"],
         ["Transpose", "Transpose", "MatMul", "MatMul"]),
        (["a, b = Split <num_outputs = 2> (t)", "m = MatMul (x, a)", "n = MatMul (x, b)",
          "y = Add (m, n)"],
         ["MatMul", "MatMul", "Add"]),
    ],
)  # fmt: skip
def test_a_weight_is_not_stored_twice(lines: list[str], left: list[str], build: Build) -> None:
    body = "\n".join(["t = Transpose <perm = [1, 0]> (w)", *lines])
    model = build(f"{HEAD}main (float[N,128] x) => (float y) {{\n{body}\n}}", w=BIG)

    fold(model)

    assert kinds(model) == left
    total = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    assert total <= BIG.nbytes
    assert not fold(model).modified


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("RandomNormal <shape = [2]> ()", "it is random"),
        ("RandomUniformLike (w)", "it is random"),
        ("Bernoulli (w)", "it is random"),
        ("DequantizeLinear (q, scale)", "it quantizes, and ONNX Runtime fuses that as it stands"),
        ("local.Op (w)", "operators of the domain local are not known to be deterministic"),
        ("Dropout (w, half, true)", "it runs in training mode"),
        ("Loop (i, , w) <body = g (int64 turn, bool on, float[2] a) => (bool go, float[2] b)"
         " { go = Identity (on) b = RandomUniformLike (a) }>", "it is random"),
        ("SequenceAt (seq, i)", "it handles sequences or optionals"),
        ("Loop (many, true, w) <body = g (int64 turn, bool on, float[2] a) => (bool go, float[2] b)"
         " { go = Identity (on) b = Neg (a) }>",
         "its loops are not known to end within 10,000 turns"),
        ("Loop (, true, w) <body = g (int64 turn, bool on, float[2] a) => (bool go, float[2] b)"
         " { go = Identity (on) b = Neg (a) }>",
         "its loops are not known to end within 10,000 turns"),
    ],
)  # fmt: skip
def test_what_must_not_be_evaluated(call: str, reason: str, build: Build) -> None:
    text = (
        HEAD.replace("18]", '18, "local" : 1]')
        + f"""main (float[2] x) => (float[2] y) {{
      half = Constant <value_float = 0.5> ()
      i = Constant <value_int = 0> ()
      many = Constant <value_int = 4000000000> ()
      seq = SequenceConstruct (w)
      odd = {call}
      next = Neg (odd)
      y = Add (x, next)
    }}"""
    )
    model = build(
        text, w=W, true=np.array(True), q=np.array([1, 2], np.int8), scale=np.float32(0.5)
    )

    result = fold(model)

    assert not result.modified
    assert reason in result.declined.values()


def test_a_training_normalization_is_not_evaluated(build: Build) -> None:
    text = (
        HEAD
        + """main (float[1,2] x) => (float[1,2] y) {
      n, m, v = BatchNormalization <training_mode = 1> (w, b, b, b, b)
      y = Add (x, n)
    }"""
    )
    result = fold(build(text, w=W.reshape(1, 2), b=B))

    assert list(result.declined.values()) == ["it runs in training mode"]


def test_dropout_at_inference_is_evaluated(build: Build) -> None:
    text = (
        HEAD
        + """main (float[2] x) => (float[2] y) {
      d = Dropout (w, half, false)
      e = Dropout (d)
      y = Add (x, e)
    }"""
    )
    model = build(text, w=W, half=np.float32(0.5), false=np.array(False))

    fold(model)

    assert stored(model) == {"e": W.tolist()}


def test_a_default_for_an_input_is_not_constant(build: Build) -> None:
    text = HEAD + "main (float[2] x, float[2] w) => (float[2] y) { n = Neg (w)\n y = Add (x, n) }"
    model = build(text, w=W)

    assert not fold(model).modified


def test_a_graph_output_stays_the_output_of_a_node(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[2] x) => (float[2] y, float[k] c) {
      c = Neg (w)
      y = Add (x, c)
    }"""
    )
    model = build(text, w=W)

    fold(model)

    assert kinds(model) == ["Constant", "Add"]
    assert [str(value.shape) for value in model.graph.outputs] == ["[2]", "[k]"]
    np.testing.assert_array_equal(answers(model, x=W)["c"], -W)
    assert not fold(model).modified


BRANCHES = (
    HEAD
    + """main (float[2] x, bool flag) => (float[2] y) {
  y = If (flag) <
    then_branch = yes () => (float[2] a) { m = Neg (w)
      n = Exp (m)
      a = Add (x, n) },
    else_branch = no () => (float[2] a) { m = Abs (w)
      a = Exp (m) }
  >
}"""
)


def test_what_only_a_known_shape_needed_goes_first(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[2,3] x) => (float[2,3] y) {
          v = Identity (w)
          product = MatMul (x, v)
          sizes = Shape (product)
          y = Expand (b, sizes)
        }"""
    )
    model = build(text, w=np.ones((3, 3), np.float32), b=np.array([1, 2, 3], np.float32))
    x = np.ones((2, 3), np.float32)
    before = answers(model, x=x)["y"]

    fold(model)

    assert kinds(model) == ["Constant"]
    np.testing.assert_array_equal(answers(model, x=x)["y"], before)


def test_an_output_that_only_a_dead_node_reads(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[2] x) => (float[1] y) {
          first, second = Split <axis = 0> (w, sizes)
          y = Neg (second)
          dead = Neg (first)
        }"""
    )
    model = build(text, w=W, sizes=np.array([1, 1]))

    fold(model)

    assert kinds(model) == ["Constant"]
    assert answers(model, x=W)["y"].tolist() == [-3]


def test_inside_branches(build: Build, answers: Answers) -> None:
    model = build(BRANCHES, w=W)
    before = [answers(model, x=W, flag=np.array(flag))["y"] for flag in (True, False)]
    sessions: list[ir.Model] = []

    FoldConstants().rewrite(model, counted(sessions))

    assert len(sessions) == 1
    yes, no = (
        model.graph[0].attributes[name].as_graph() for name in ("then_branch", "else_branch")
    )
    assert ([n.op_type for n in yes], list(yes.initializers)) == (["Add"], ["n"])
    assert ([n.op_type for n in no], list(no.initializers)) == (["Constant"], [])
    for flag, old in zip((True, False), before, strict=True):
        np.testing.assert_array_equal(answers(model, x=W, flag=np.array(flag))["y"], old)
    assert not fold(model).modified


CONTROL = {
    "If": """c = If (true) <
        then_branch = yes () => (float[2] a) { m = Neg (w)
          a = Add (m, v) },
        else_branch = no () => (float[2] a) { a = Identity (w) }
      >""",
    "Loop": """c = Loop (three, , w) <
        body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t) {
          on = Identity (go)
          t = Add (s, v) }
      >""",
}


@pytest.mark.parametrize("kind", CONTROL)
def test_control_flow_over_constants(kind: str, build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + f"""main (float[2] x) => (float[2] y) {{
      three = Constant <value_int = 3> ()
      v = Exp (w)
      {CONTROL[kind]}
      y = Add (x, c)
    }}"""
    )
    model = build(text, w=W, true=np.array(True))
    before = answers(model, x=W)["y"]

    fold(model)

    assert set(kinds(model)) <= {"Add", "Constant"}
    assert set(model.graph.initializers) - {"true"} == {"c"}
    np.testing.assert_array_equal(answers(model, x=W)["y"], before)


def test_in_functions_constants_are_nodes(build: Build, answers: Answers) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
    main (float[2] x) => (float[2] y) { y = local.block <alpha = 0.5> (x) }
    <domain: "local", opset_import: ["" : 18]>
    block <alpha> (x) => (y) {
      w = Constant <value_floats = [1.0, 3.0]> ()
      n = Neg (w)
      e = Elu <alpha: float = @alpha> (n)
      a = Add (x, n)
      y = Mul (a, e)
    }"""
    model = build(text)
    before = answers(model, x=W)["y"]

    result = fold(model)

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Elu", "Add", "Mul"]
    assert list(result.declined.values()) == [
        "an attribute of it is set by the caller of the function"
    ]
    np.testing.assert_array_equal(answers(model, x=W)["y"], before)


def test_what_onnx_runtime_cannot_evaluate_stays_alone(build: Build) -> None:
    text = (
        HEAD
        + """main (float[2] x) => (float[2] y) {
      a = Neg (w)
      b = Cast <to = 16> (a)
      bad = Acosh (b)
      c = Cast <to = 1> (bad)
      d = Exp (a)
      e = Add (x, c)
      y = Mul (e, d)
    }"""
    )
    model = build(text, w=W)

    result = fold(model)

    assert kinds(model) == ["Acosh", "Cast", "Add", "Mul"]
    assert set(model.graph.initializers) == {"b", "d"}
    (reason,) = result.declined.values()
    assert reason.startswith("ONNX Runtime cannot evaluate it: ")
    assert not fold(model).modified


def test_a_branch_that_answers_a_sequence_is_not_evaluated(build: Build) -> None:
    text = (
        HEAD
        + """main (float[2] x) => (float[2] y, seq(float[2]) s) {
      s = If (true) <
        then_branch = yes () => (seq(float[2]) a) { a = SequenceConstruct (w) },
        else_branch = no () => (seq(float[2]) b) { b = SequenceConstruct (w, w) }
      >
      y = Neg (x)
    }"""
    )
    model = build(text, w=W, true=np.array(True))

    result = fold(model)

    assert kinds(model) == ["SequenceConstruct", "Neg"]
    assert "it handles sequences or optionals" in result.declined.values()


@pytest.mark.parametrize(
    ("call", "array", "expected"),
    [
        ("Neg (w)", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)),
        ("Neg (w)", np.array(2.5), np.array(-2.5)),
        ("Not (w)", np.array([True, False]), np.array([False, True])),
        ("Neg (w)", np.array([1, -2], np.int8), np.array([-1, 2], np.int8)),
        ("Neg (w)", np.array([1, -2], np.float16), np.array([-1, 2], np.float16)),
        ("Cast <to = 16> (w)", W, W.astype(ml_dtypes.bfloat16)),
    ],
)
def test_every_type(call: str, array: Array, expected: Any, build: Build) -> None:
    text = HEAD.replace("18]", '18, "local" : 1]')
    text += f"main (float[2] x) => (float[2] y) {{ c = {call}\n y = local.Op (x, c) }}"

    model = build(text, w=array)
    fold(model)

    found = model.graph.initializers["c"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.numpy().dtype == expected.dtype


def test_strings(build: Build) -> None:
    text = (
        HEAD
        + """main (int64 i) => (string y) {
      words = Constant <value_strings = ["ab", "c"]> ()
      twice = Concat <axis = 0> (words, words)
      y = Gather (twice, i)
    }"""
    )
    model = build(text)

    fold(model)

    found = model.graph.initializers["twice"].const_value
    assert found is not None
    assert found.numpy().tolist() == [b"ab", b"c", b"ab", b"c"]


def test_an_output_that_is_left_out(build: Build, answers: Answers) -> None:
    text = (
        HEAD
        + """main (float[1,1] x) => (float y) {
      unused, last = RNN <hidden_size = 1> (w, k, k)
      y = Add (x, last)
    }"""
    )
    model = build(text, w=W.reshape(2, 1, 1), k=np.ones((1, 1, 1), np.float32))
    model.graph[0].outputs[0].name = ""
    x = np.ones((1, 1), np.float32)
    before = answers(model, x=x)["y"]

    fold(model)

    assert list(model.graph.initializers) == ["last"]
    np.testing.assert_array_equal(answers(model, x=x)["y"], before)


def test_sizes_learnt_from_what_was_evaluated(build: Build) -> None:
    text = sizes(
        "i = Constant <value_ints = [3]> ()",
        "width = Gather (s, i)",
        "real = Cast <to = 1> (width)",
        "double = Add (real, real)",
        "back = Cast <to = 7> (double)",
        "three = Constant <value_ints = [0, 3, -1]> ()",
        "target = Concat <axis = 0> (three, back)",
        "r = Reshape (x, target)",
        "t = Shape <start = 3> (r)",
        "f = Cast <to = 1> (t)",
        "y = Mul (r, f)",
    )
    model = build(text)

    fold(model)

    assert kinds(model) == ["Reshape", "Mul"]
    assert stored(model) == {"target": [0, 3, -1, 8], "f": [8.0]}


@settings(max_examples=60, deadline=None)
@given(shape_graphs())
def test_any_graph_keeps_its_answers_bit_for_bit(model: ir.Model) -> None:
    feeds = [
        {"x": np.random.default_rng(n).normal(size=(n, 3, m)).astype(np.float32)}
        for n, m in ((1, 2), (4, 5))
    ]

    def run() -> list[dict[str, Array]]:
        session = session_of(model, SessionConfig(level="disabled", threads=1))
        return [session.run(feed) for feed in feeds]

    before = run()
    nodes = len(model.graph)

    fold(model)

    assert len(model.graph) <= nodes
    for old, new in zip(before, run(), strict=True):
        for name, array in old.items():
            np.testing.assert_array_equal(new[name], array)
    assert not fold(model).modified


def test_a_dead_end_may_take_what_was_to_be_folded_with_it(build: Build) -> None:
    model = build(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[2,4] x) => (float[2,4] y) {
          same = Identity (w)
          sum = Add (x, same)
          sizes = Shape (sum)
          dead = Expand (one, sizes)
          y = Relu (x)
        }
        """,
        w=np.ones(4, np.float32),
        one=np.ones(1, np.float32),
    )

    FoldConstants()(model)

    assert [node.op_type for node in model.graph] == ["Relu"]
