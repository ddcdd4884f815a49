"""FuseAttention: same answers from one Attention operator, or a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fuse_attention import FuseAttention

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

LOWEST = np.finfo(np.float32).min
HEAD = '<ir_version: 10, opset_import: ["" : 18]>\n'
PLAIN = (
    HEAD
    + """main (float[B,S,8] x, bool[B,1,S,S] seen, bool[B,1,1,S] keys) => (float[B,S,8] y) {
  q3 = MatMul (x, wq)
  k3 = MatMul (x, wk)
  v3 = MatMul (x, wv)
  q4 = Reshape (q3, split)
  k4 = Reshape (k3, split)
  v4 = Reshape (v3, split)
  q = Transpose <perm = [0, 2, 1, 3]> (q4)
  k = Transpose <perm = [0, 2, 3, 1]> (k4)
  v = Transpose <perm = [0, 2, 1, 3]> (v4)
  qs = Mul (q, root)
  ks = Mul (k, root)
  s = MatMul (qs, ks)
  p = Softmax <axis = -1> (s)
  o = MatMul (p, v)
  t = Transpose <perm = [0, 2, 1, 3]> (o)
  y = Reshape (t, join)
}"""
)
MASKED = PLAIN.replace(
    "  p = Softmax <axis = -1> (s)",
    """  mask = Where (seen, zero, hidden)
  m = Add (s, mask)
  p = Softmax <axis = -1> (m)""",
)
GUARDED = MASKED.replace(
    "  o = MatMul (p, v)",
    """  nan = IsNaN (p)
  safe = Where (nan, zero, p)
  o = MatMul (safe, v)""",
)
SCALED = PLAIN.replace("  ks = Mul (k, root)\n", "").replace("(qs, ks)", "(qs, k)")
PACKED = (
    HEAD
    + """main (float[B,S,8] x) => (float[B,S,8] y) {
  all3 = MatMul (x, w)
  all5 = Reshape (all3, parts)
  turned = Transpose <perm = [2, 0, 3, 1, 4]> (all5)
  q = Gather <axis = 0> (turned, i0)
  one = Slice (turned, first, second, first0)
  k = Squeeze (one, first0)
  a, b, c = Split <axis = 0, num_outputs = 3> (turned)
  v = Squeeze (c, first0)
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  s = MatMul (q, kt)
  n = Div (s, divisor)
  p = Softmax <axis = 3> (n)
  o = MatMul (p, v)
  t = Transpose <perm = [0, 2, 1, 3]> (o)
  y = Reshape (t, join)
}"""
)


def arrays(text: str, **given: Any) -> dict[str, Array]:
    """What ``text`` reads and does not make."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {f"w{part}": rng.normal(size=(8, 8)) for part in "qkv"}
    made |= {"w": rng.normal(size=(8, 24)), "root": 0.7, "zero": 0.0, "hidden": LOWEST}
    made |= {"divisor": 2.0, "minus": -2.0} | given
    found = {name: np.asarray(array, np.float32) for name, array in made.items()}
    found |= {
        "split": np.array([0, 0, 2, 4]),
        "join": np.array([0, 0, 8]),
        "swapped": np.array([0, 2, 4, -1]),
        "parts": np.array([0, 0, 3, 2, 4]),
        "i0": np.array(0),
        "first": np.array([1]),
        "second": np.array([2]),
        "first0": np.array([0]),
    }
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: array for name, array in found.items() if name in words}


def feeds(text: str, batch: int, length: int) -> dict[str, Array]:
    rng = np.random.default_rng(batch + length)
    given: dict[str, Array] = {"x": rng.normal(size=(batch, length, 8)).astype(np.float32)}
    for sizes, name in re.findall(r"bool\[([^]]*)\] (\w+)", text):
        known = {"B": batch, "S": length}
        given[name] = rng.random([known.get(s) or int(s) for s in sizes.split(",")]) < 0.5
        given[name][..., 0, :] = False  # the first query sees nothing
    return given


def fuse(model: ir.Model, target: Target | None = None) -> Result:
    return FuseAttention().rewrite(model, Context(target=target or Target()))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_same(build: Build, answers: Answers, text: str, **given: Any) -> ir.Model:
    """Fuse ``text`` and compare the answers for three sizes; the model that is left."""
    model, original = build(text, **arrays(text, **given)), build(text, **arrays(text, **given))
    result = fuse(model)
    assert result.modified, result.declined
    assert not result.declined
    for batch, length in ((1, 1), (2, 5), (3, 2)):
        fed = feeds(text, batch, length)
        for name, expected in answers(original, **fed).items():
            np.testing.assert_allclose(answers(model, **fed)[name], expected, rtol=2e-5, atol=2e-6)
    return model


def test_the_graph_that_is_left(build: Build) -> None:
    model = build(PLAIN, **arrays(PLAIN))

    result = fuse(model)

    assert result.rewritten == ["Softmax -> p"]
    assert kinds(model) == ["MatMul", "MatMul", "MatMul", "Attention"]
    attention = model.graph[-1]
    assert [value.name for value in attention.inputs if value] == ["q3", "k3", "v3"]
    assert attention.attributes["q_num_heads"].as_int() == 2
    assert attention.attributes["kv_num_heads"].as_int() == 2
    assert attention.attributes["scale"].as_float() == pytest.approx(0.49)
    assert attention.outputs[0] is model.graph.outputs[0]
    assert attention.outputs[0].name == "y"
    assert model.graph.opset_imports[""] == 23
    assert not fuse(model).modified


SWAPPED = SCALED.replace("k4 = Reshape (k3, split)", "k4 = Transpose <perm = [0, 2, 1]> (k3)")
SWAPPED = SWAPPED.replace("Transpose <perm = [0, 2, 3, 1]> (k4)", "Reshape (k4, swapped)")
PADDED = MASKED.replace("Where (seen", "Where (keys")
KEYWISE = (
    "  ki = Cast <to = 7> (keys)\n  kf = Cast <to = 1> (ki)\n"
    "  gone = Sub (one, kf)\n  mask = Mul (gone, low)"
)
RETURNED = "=> (float[B,S,8] y) {", "=> (float[B,S,8] y, float[B,S,2,4] t) {"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        SCALED,
        SCALED.replace("s = MatMul (qs, k)", "r = MatMul (qs, k)\n  s = Div (r, root)"),
        PLAIN.replace("q3 = MatMul (x, wq)", "q3 = MatMul (x, wq)\n  qq = Relu (q3)").replace(
            "Reshape (q3", "Reshape (qq"
        ),
        PLAIN.replace("18]", "13]"),
        PLAIN.replace("18]", "11]").replace("axis = -1", "axis = 3"),
        PLAIN.replace(*RETURNED),
        PLAIN.replace("y = Reshape (t, join)", "z = Neg (t)\n  y = Reshape (z, join)"),
        PLAIN.replace("y = Reshape", "size = Shape (o)\n  y = Reshape").replace(
            "(float[B,S,8] y)", "(float[B,S,8] y, int64[4] size)"
        ),
        PACKED,
        SWAPPED,
    ],
)
def test_attention_without_a_mask(build: Build, answers: Answers, text: str) -> None:
    model = assert_same(build, answers, text)

    assert kinds(model).count("Attention") == 1
    assert not {"Softmax", "Add", "IsNaN"} & set(kinds(model))


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (MASKED, {}),
        (MASKED, {"hidden": -1e9}),
        (MASKED.replace("Add (s, mask)", "Add (mask, s)"), {}),
        (PADDED, {}),
        (PADDED, {"hidden": -10000}),
        (MASKED.replace("B,1,S,S", "S,S"), {}),
        (MASKED.replace("B,1,S,S", "1,S,S"), {}),
        (MASKED.replace("B,1,S,S", "2,S,S"), {}),
        (MASKED.replace("B,1,S,S", "B,2,S,S"), {}),
        (PADDED.replace("B,1,1,S", "1,2,1,S"), {}),
        (MASKED.replace("18]", "24]"), {}),
        (MASKED.replace("18]", "25]"), {}),
        (GUARDED, {}),
        (GUARDED, {"hidden": -np.inf}),
        (GUARDED.replace("Where (seen", "Where (keys"), {"hidden": -np.inf}),
    ],
)  # fmt: skip
def test_attention_with_a_mask(build: Build, answers: Answers, text: str, given: Any) -> None:
    """Rows that hide everything included: equal weights, or zeros where the model says so."""
    assert_same(build, answers, text, **given)


def test_a_mask_made_of_integers(build: Build, answers: Answers) -> None:
    text = MASKED.replace("  mask = Where (seen, zero, hidden)", KEYWISE)
    text = text.replace("one", "root").replace("low", "minus")
    model = assert_same(build, answers, text, root=1.0, minus=LOWEST)
    assert "Max" in kinds(model)


def test_a_causal_mask_never_hides_everything(build: Build, answers: Answers) -> None:
    lines = """  ones = Expand (low, sizes)
  lower = Trilu <upper = 0> (ones)
  above = Equal (lower, zero)
  mask = Where (above, hidden, zero)"""
    text = MASKED.replace("  mask = Where (seen, zero, hidden)", lines)
    text = text.replace("B,S,8", "B,4,8").replace("S,S", "4,4").replace("1,S", "1,4")
    given = arrays(text, hidden=-np.inf) | {
        "low": np.ones(1, np.float32),
        "sizes": np.array([4, 4]),
    }
    model, original = build(text, **given), build(text, **given)
    assert fuse(model).modified
    fed = feeds(text, 2, 4)
    np.testing.assert_allclose(
        answers(model, **fed)["y"], answers(original, **fed)["y"], rtol=2e-5, atol=2e-6
    )


def test_masks_are_made_once_for_all_layers(build: Build, answers: Answers) -> None:
    body = PADDED.split("{\n")[1].rsplit("}", 1)[0]
    mask = "  mask = Where (keys, zero, hidden)\n"
    first = body.replace("y = Reshape", "x1 = Reshape")
    again = body.replace(mask, "")
    made = "q3|k3|v3|q4|k4|v4|q|k|v|qs|ks|s|p|o|t|m"
    again = re.sub(rf"\b({made})\b", r"\1b", again).replace("(x, ", "(x1, ")
    text = PADDED.split("{\n")[0] + "{\n" + first + again + "}"

    model = assert_same(build, answers, text)

    assert kinds(model).count("Attention") == 2
    assert kinds(model).count("Where") == kinds(model).count("Expand") == 1


def test_values_are_made_before_the_first_that_reads_them(build: Build, answers: Answers) -> None:
    """Two attentions with one mask, of which the one that begins first ends last."""
    lines = PADDED.split("{\n")[1].rsplit("}", 1)[0].strip().split("\n")
    mask = next(line for line in lines if "Where" in line)
    names = r"\b(q3|k3|v3|q4|k4|v4|q|k|v|qs|ks|s|p|o|t|m|y)\b"
    again = [re.sub(names, r"\1b", line) for line in lines if line is not mask]
    begin, end = lines[:-3], lines[-3:]
    body = "\n".join([*begin, *again, *end])
    text = PADDED.split("{\n")[0].replace("y)", "y, float[B,S,8] yb)") + "{\n" + body + "}"

    model = assert_same(build, answers, text)

    assert kinds(model).count("Attention") == 2


def test_inside_a_function_of_an_older_version(build: Build, answers: Answers) -> None:
    body = PLAIN.split("{\n")[1].rsplit("}", 1)[0].replace("axis = -1", "axis = 3")
    wanted = arrays(PLAIN)
    text = f"""<ir_version: 10, opset_import: ["" : 23, "local" : 1]>
      main (float[2,3,8] x) => (float[2,3,8] y) {{ y = local.attend (x, {", ".join(wanted)}) }}
      <domain: "local", opset_import: ["" : 18]>
      attend (x, {", ".join(wanted)}) => (y) {{ {body} }}"""
    model, original = build(text, **wanted), build(text, **wanted)
    fuse(model)
    fed = feeds("", 2, 3)
    np.testing.assert_allclose(answers(model, **fed)["y"], answers(original, **fed)["y"], rtol=2e-5)


def test_inside_a_branch(build: Build, answers: Answers) -> None:
    body = PLAIN.split("{\n")[1].rsplit("}", 1)[0]
    text = f"""{HEAD}main (float[B,S,8] x, bool c) => (float[B,S,8] y) {{
      y = If (c) <then_branch = yes () => (float[B,S,8] y) {{ {body} }},
                  else_branch = no () => (float[B,S,8] z) {{ z = Identity (x) }}>
    }}"""
    model, original = build(text, **arrays(PLAIN)), build(text, **arrays(PLAIN))
    assert fuse(model).modified
    fed = feeds("", 2, 3) | {"c": np.array(True)}
    np.testing.assert_allclose(answers(model, **fed)["y"], answers(original, **fed)["y"], rtol=2e-5)


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        (MASKED, {"hidden": -np.inf}, "not a number"),
        (GUARDED.replace("zero, hidden)", "low, hidden)"), {"hidden": -np.inf}, "both"),
        (MASKED.replace("bool[B,1,S,S] seen", "float[B,1,S,S] mask").replace(
            "  mask = Where (seen, zero, hidden)\n", ""), {}, "how low"),
        (MASKED.replace("B,1,S,S", "B,1,S,T"), {}, "one column"),
        (MASKED.replace("B,1,S,S", "N,1,S,S"), {}, "batch and heads"),
        (MASKED.replace("B,1,S,S", "B,1,T,S"), {}, "one row"),
        (PLAIN.replace("q4 = Reshape (q3", "qn = Neg (q3)\n  q4 = Reshape (x2").replace(
            "float[B,S,8] x,", "float[B,S,8] x, float[C,S,8] x2,"), {}, "batch size"),
        (PLAIN.replace("o = MatMul (p, v)", "vs = Mul (v, root)\n  o = MatMul (p, vs)"), {},
         "values are scaled"),
        (PLAIN.replace("ks = Mul (k, root)", "ks = Mul (k, minus)"), {}, "not positive"),
        (PLAIN.replace("qs = Mul (q, root)", "qs = Neg (q)"), {}, "come from Neg (queries)"),
        (PLAIN.replace("t = Transpose <perm = [0, 2, 1, 3]> (o)", "t = Neg (o)"), {},
         "not put side by side"),
        (PLAIN.replace(*RETURNED).replace("float[B,S,2,4] t", "float o"), {},
         "not put side by side"),
        (PLAIN.replace("split)\n  k4", "other)\n  k4").replace("float[B,S,8] x,",
         "float[B,S,8] x, int64[4] other,"), {}, "of its heads is not known"),
    ],
)  # fmt: skip
def test_it_declines_and_says_why(build: Build, text: str, given: Any, reason: str) -> None:
    model = build(text, **arrays(text, **given), **({"low": LOWEST} if "low," in text else {}))
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("axis = -1", "axis = 1"),
        PLAIN.replace("(float[B,S,8] y)", "(float[B,S,8] y, float p)"),
        PLAIN.replace("(float[B,S,8] y)", "(float[B,S,8] y, float s)"),
        PLAIN.replace("o = MatMul (p, v)", "pp = Transpose (p)\n  o = MatMul (pp, v)"),
        PLAIN.replace("s = MatMul (qs, ks)", "s = Mul (qs, qs)"),
        PLAIN.replace("o = MatMul (p, v)", "o = MatMul (v, p)"),
    ],
)
def test_what_is_no_attention_is_left_alone(build: Build, text: str) -> None:
    model = build(text, **arrays(text))
    before = ir.to_onnx_text(model)

    assert not fuse(model).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("name", ["portable", "cuda"])
def test_other_targets_are_left_alone(build: Build, name: Any) -> None:
    assert not fuse(build(PLAIN, **arrays(PLAIN)), Target(name=name)).modified


def test_half_precision_is_left_alone(build: Build) -> None:
    text = PLAIN.replace("float[", "float16[")
    made = {
        n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in arrays(text).items()
    }
    assert "float32" in " ".join(fuse(build(text, **made)).declined.values())


def test_a_model_that_cannot_be_raised_is_left_alone(build: Build) -> None:
    text = PLAIN.replace("18]", "11]").replace("axis = -1", "axis = 3")
    text = text.replace("y = Reshape (t, join)", "r = Hardmax (t)\n  y = Reshape (r, join)")
    model = build(text, **arrays(text))
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert "cannot be raised" in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before
