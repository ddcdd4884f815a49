"""Facts: what is told of a tensor holds whatever the model is fed, and nothing else is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.analysis.values import Facts
from tests.passes.random_graphs import HEAD, shape_graphs


def facts_of(text: str) -> tuple[Facts, dict[str, ir.Value]]:
    model = ir.from_proto(onnx.parser.parse_model(text))
    facts = Facts(model)
    facts.follow_all()
    return facts, {
        value.name or "": value for node in model.graph.all_nodes() for value in node.outputs
    }


def told(call: str, setup: str = "") -> Any:
    """What is told of the value of ``call`` where ``s`` is the shape of ``x[N,3,M,4]``."""
    inputs = "float[N,3,M,4] x, int64[2] fed"
    body = f"s = Shape (x)\n{setup}\ny = {call}"
    facts, values = facts_of(f"{HEAD}main ({inputs}) => (int64 y) {{\n{body}\n}}")
    partial = facts.partial(values["y"])
    return None if partial is None else partial.items.tolist()


def ints(**vectors: list[int] | int) -> str:
    lines = [
        f"{name} = Constant <value_ints = {value}> ()"
        if isinstance(value, list)
        else f"{name} = Constant <value_int = {value}> ()"
        for name, value in vectors.items()
    ]
    return "\n".join(lines)


def floats(**vectors: list[float]) -> str:
    return ints(**vectors).replace("ints", "floats")  # type: ignore[arg-type]


BOTH = "\np = Equal (s, a)\nq = Less (a, s)"


@pytest.mark.parametrize(
    ("call", "setup", "items"),
    [
        ("Shape (x)", "", ["N", 3, "M", 4]),
        ("Shape <start = 1, end = -1> (x)", "", [3, "M"]),
        ("Shape <start = -9, end = 9> (x)", "", ["N", 3, "M", 4]),
        ("Size (x)", "", None),
        ("Size (s)", "", 4),
        ("Identity (s)", "", ["N", 3, "M", 4]),
        ("Gather (s, i)", ints(i=1), 3),
        ("Gather (s, i)", ints(i=[-1, 0]), [4, "N"]),
        ("Gather (s, i)", ints(i=[9]), None),
        ("Gather (s, fed)", "", None),
        ("Slice (s, a, b)", ints(a=[1], b=[9]), [3, "M", 4]),
        ("Slice (s, a, b, c, d)", ints(a=[-1], b=[-9], c=[0], d=[-2]), [4, 3]),
        ("Concat <axis = 0> (s, a)", ints(a=[7]), ["N", 3, "M", 4, 7]),
        ("Concat <axis = 0> (fed, a)", ints(a=[7]), [None, None, 7]),
        ("Concat <axis = 0> (fed, fed)", "", [None] * 4),
        ("Unsqueeze (i, a)", ints(i=5, a=[0]), [5]),
        ("Squeeze (a)", ints(a=[5]), 5),
        ("Squeeze (u, a)", ints(a=[0]) + "\nu = Unsqueeze (s, a)", ["N", 3, "M", 4]),
        ("Reshape (s, a)", ints(a=[2, -1]), [["N", 3], ["M", 4]]),
        ("Reshape (s, a)", ints(a=[0, 1]), [["N"], [3], ["M"], [4]]),
        ("Reshape <allowzero = 1> (e, a)", ints(a=[0, 1], z=[0]) + "\ne = Slice (s, z, z)", []),
        ("Cast <to = 6> (s)", "", ["N", 3, "M", 4]),
        ("Cast <to = 9> (a)", ints(a=[0, 5]), [0, 1]),
        ("Cast <to = 9> (s)", "", [None, 1, None, 1]),
        ("Cast <to = 1> (s)", "", None),
        ("Cast <to = 6> (a)", ints(a=[2**40, 1]), [None, 1]),
        ("Add (s, a)", ints(a=[0, 1, 0, 1]), ["N", 4, "M", 5]),
        ("Add (a, s)", ints(a=[0, 1, 2, 1]), ["N", 4, None, 5]),
        ("Sub (s, a)", ints(a=0), ["N", 3, "M", 4]),
        ("Sub (s, s)", "", [0, 0, 0, 0]),
        ("Sub (a, s)", ints(a=5), [None, 2, None, 1]),
        ("Mul (s, a)", ints(a=[1, 2, 0, 2]), ["N", 6, 0, 8]),
        ("Mul (fed, a)", ints(a=[0, 1]), [0, None]),
        ("Mul (a, s)", ints(a=1), ["N", 3, "M", 4]),
        ("Mul (a, b)", ints(a=[2**40], b=[2**40]), [None]),
        ("Div (a, b)", ints(a=[-7, 7, 8], b=[2, -2, 2]), [-3, -3, 4]),
        ("Div (s, a)", ints(a=1), ["N", 3, "M", 4]),
        ("Div (s, a)", ints(a=[2, 0, 1, 4]), [None, None, "M", 1]),
        ("Mod (a, b)", ints(a=[-7, 7], b=[3, -3]), [2, -2]),
        ("Mod <fmod = 1> (a, b)", ints(a=[-7, 7], b=[3, -3]), [-1, 1]),
        ("Mod (s, a)", ints(a=0), [None, None, None, None]),
        ("Min (s, a)", ints(a=0), [0, 0, 0, 0]),
        ("Max (s, a, b)", ints(a=0, b=-3), ["N", 3, "M", 4]),
        ("Max (s, a)", ints(a=1), [None, 3, None, 4]),
        ("Max (s, s)", "", ["N", 3, "M", 4]),
        ("Neg (s)", "", [None, -3, None, -4]),
        ("ReduceProd <keepdims = 0> (s)", "", None),
        ("ReduceProd <keepdims = 0> (a)", ints(a=[2, 3]), 6),
        ("ReduceProd (t, a)", ints(a=[-1], r=[2, 2]) + "\nt = Reshape (s, r)", [[None], [None]]),
        ("ReduceProd <noop_with_empty_axes = 1> (s)", "", ["N", 3, "M", 4]),
        ("Equal (s, a)", ints(a=[-1, 3, 2, 4]), [0, 1, None, 1]),
        ("Equal (s, s)", "", [1, 1, 1, 1]),
        ("Less (s, a)", ints(a=[0, 4, 1, 4]), [0, 1, None, 0]),
        ("Greater (s, a)", ints(a=[-1, 3, 0, 3]), [1, 0, None, 1]),
        ("LessOrEqual (a, s)", ints(a=[0, 4, 1, 4]), [1, 0, None, 1]),
        ("GreaterOrEqual (s, a)", ints(a=[0, 4, 1, 4]), [1, 0, None, 1]),
        ("And (p, q)", ints(a=[0, 3, 1, 3]) + BOTH, [None, 0, None, 0]),
        ("Or (p, q)", ints(a=[-1, 3, 1, 9]) + BOTH, [1, 1, None, 0]),
        ("Not (p)", ints(a=[-1, 3, 1, 9]) + "\np = Equal (s, a)", [1, 0, None, 1]),
        ("Where (p, b, s)", ints(a=[-1, 3, 1, 9], b=7) + "\np = Equal (s, a)", ["N", 7, None, 4]),
        ("Where (p, s, s)", ints(a=[1]) + "\np = Equal (s, a)", ["N", 3, "M", 4]),
        ("Expand (a, b)", ints(a=[7], b=[2, 2]), [[7, 7], [7, 7]]),
        ("Expand (a, b)", ints(a=[7], b=[64, 64]), None),
        ("ConstantOfShape <value = int64[1] {5}> (a)", ints(a=[2]), [5, 5]),
        ("ConstantOfShape (a)", ints(a=[2]), None),
        ("Range (a, b, c)", ints(a=5, b=0, c=-2), [5, 3, 1]),
        ("Range (a, b, c)", ints(a=0, b=5000, c=1), None),
        ("Range (a, b, c)", ints(a=0, b=5, c=0), None),
        ("SplitToSequence (s)", "", None),
    ],
)  # fmt: skip
def test_integers(call: str, setup: str, items: Any) -> None:
    assert told(call, setup) == items


def test_split() -> None:
    text = f"""{HEAD}main (float[N,3,M,4] x) => (int64 y) {{
      s = Shape (x)
      a, b, c = Split <num_outputs = 3> (s)
      cut = Constant <value_ints = [1, 3]> ()
      d, e = Split (s, cut)
      y = Identity (s)
    }}"""
    facts, values = facts_of(text)
    parts = [facts.partial(values[name]) for name in "abcde"]
    items = [part.items.tolist() for part in parts if part is not None]
    assert items == [["N", 3], ["M", 4], [], ["N"], [3, "M", 4]]


@pytest.mark.parametrize(
    ("call", "setup", "dims"),
    [
        ("Relu (x)", "", ("N", 3, "M", 4)),
        ("Add (x, w)", "w = Constant <value_floats = [1.0]> ()", ("N", 3, "M", 4)),
        ("Mul (x, z)", "", ("N", 3, "M", 4)),
        ("Equal (x, z)", "", ("N", 3, "M", 4)),
        ("Add (x, q)", "", ("y:0", 3, "M", 4)),
        ("Where (p, x, z)", "p = Equal (x, z)", ("N", 3, "M", 4)),
        ("Transpose <perm = [0, 2, 1, 3]> (x)", "", ("N", "M", 3, 4)),
        ("Flatten <axis = 2> (x)", "", ("y:0", "y:1")),
        ("Reshape (x, t)", ints(t=[0, -1, 12]), ("N", "M", 12)),
        ("Reshape (x, t)", ints(t=[-1, 12]), ("y:0", 12)),
        ("Reshape (x, t)", ints(t=[0, 3, 0, -1, 2]), ("N", 3, "M", 2, 2)),
        ("Reshape (x, t)", ints(t=[0, 5, -1]), ("N", 5, "y:2")),
        ("Reshape (u, t)", ints(t=[0, 5, -1]) + "\nu = local.Op (x)", ("y:0", 5, "y:2")),
        ("Reshape (x, fed)", "", ("y:0", "y:1")),
        ("Reshape (x, t)", "t = Cast <to = 7> (f)\nf = Cast <to = 1> (fed)", ("y:0", "y:1")),
        ("Expand (x, t)", ints(t=[2, 1, 1, 1, 1]), (2, "N", 3, "M", 4)),
        ("Expand (z, t)", "t = Shape (x)", ("N", 3, "M", 4)),
        ("Expand (x, fed)", "", ("N", 3, "y:2", 4)),
        ("Expand (z, fed)", "", (1, 1, "y:2", 4)),
        ("Add (z, z)", "", (1, 1, 1, 4)),
        ("ConstantOfShape (t)", "t = Shape (x)", ("N", 3, "M", 4)),
        ("Conv (x, k)", "k = ConstantOfShape (t)\n" + ints(t=[8, 3, 3, 3]), ("N", 8, "y:2", 2)),
        ("local.Op (x)", "", None),
        ("com.microsoft.Gelu (x)", "", ("N", 3, "M", 4)),
        ("Gemm (x, x)", "", None),
        ("Resize (x, r, s)", floats(r=[0.0], s=[1.0, 1.0, 2.0, 2.0]), ("y:0", 3, "y:2", 8)),
    ],
)  # fmt: skip
def test_sizes(call: str, setup: str, dims: Any) -> None:
    text = HEAD.replace("18]", '18, "local" : 1, "com.microsoft" : 1]')
    inputs = "float[N,3,M,4] x, float[1,1,1,4] z, float[K,3,M,4] q, int64[2] fed"
    lines = "\n".join(reversed(setup.splitlines()))
    facts, values = facts_of(f"{text}main ({inputs}) => (float y) {{\n{lines}\ny = {call}\n}}")
    assert facts.dims(values["y"]) == dims


@pytest.mark.parametrize(
    ("then", "other", "dims"),
    [
        ("Relu (x)", "Mul (x, z)", ("N", 3)),
        ("Relu (x)", "Relu (z)", ("y:0", 3)),
        ("Relu (x)", "Transpose (z)", ("y:0", "y:1")),
        ("Relu (x)", "ReduceMax <keepdims = 0> (z)", None),
        ("Relu (x)", "local.Op (z)", None),
    ],
)
def test_sizes_that_both_branches_have(then: str, other: str, dims: Any) -> None:
    text = HEAD.replace("18]", '18, "local" : 1, "com.microsoft" : 1]')
    text += f"""main (float[N,3] x, float[1,3] z, bool b) => (float y) {{
      y = If (b) <
        then_branch = yes () => (float[9] t) {{ t = {then} }},
        else_branch = no () => (float[9] e) {{ e = {other} }}
      >
    }}"""
    facts, values = facts_of(text)
    assert facts.dims(values["y"]) == dims


def test_types_and_bytes() -> None:
    text = f"""{HEAD}main (float16[2,3] x, float[N] free, string[2] words) => (float y) {{
      k = Constant <value_ints = [1]> ()
      half = Relu (x)
      double = Cast <to = 11> (x)
      flags = Greater (x, x)
      sizes = Shape (x)
      values, places = TopK <axis = 0> (x, k)
      same = Identity (free)
      text = Identity (words)
      y = Cast <to = 1> (x)
    }}"""
    facts, values = facts_of(text)
    found = {name: facts.nbytes(value) for name, value in values.items()}
    assert found == {"k": 8, "half": 12, "double": 48, "flags": 6, "sizes": 16, "values": 6,
                     "places": 24, "same": None, "text": None, "y": 24}  # fmt: skip


TYPES: list[tuple[str, str, ir.DataType | None]] = [
    ("Relu (x)", "", ir.DataType.FLOAT16),
    ("Transpose (c)", "c = Concat <axis = 0> (x, x)", ir.DataType.FLOAT16),
    ("Where (c, x, x)", "c = Greater (x, x)", ir.DataType.FLOAT16),
    ("Cast <to = 11> (x)", "", ir.DataType.DOUBLE),
    ("Shape (x)", "", ir.DataType.INT64),
    ("Neg (s)", "s = Size (x)", ir.DataType.INT64),
    ("IsNaN (x)", "", ir.DataType.BOOL),
    ("ConstantOfShape (s)", "s = Shape (x)", ir.DataType.FLOAT),
    ("ConstantOfShape <value = int8[1] {1}> (s)", "s = Shape (x)", ir.DataType.INT8),
    ("RandomUniformLike <dtype = 11> (x)", "", ir.DataType.DOUBLE),
    ("EyeLike (x)", "", None),
    ("Relu (o)", "o = local.Op (x)", None),
    ("Nothing (x)", "", None),
    ("SequenceConstruct (x)", "", None),
    ("If (b) <then_branch = g () => (float16 t) { t = Relu (x) },"
     " else_branch = h () => (float16 e) { e = Neg (x) }>", "", ir.DataType.FLOAT16),
]  # fmt: skip


@pytest.mark.parametrize(("call", "setup", "dtype"), TYPES)
def test_element_types(call: str, setup: str, dtype: ir.DataType | None) -> None:
    text = HEAD.replace("18]", '18, "local" : 1, "com.microsoft" : 1]')
    text += f"main (float16[2] x, bool b) => (float r) {{\n{setup}\ny = {call}\nr = Neg (y)\n}}"
    model = ir.from_proto(onnx.parser.parse_model(text))
    (value,) = model.graph[-2].outputs
    assert Facts(model).dtype(value) == dtype


def test_what_the_model_says_of_its_tensors_is_not_believed() -> None:
    text = f"""{HEAD}main (float[N,3] x) => (float[7,7] y) <float[9,9] r> {{
      r = Relu (x)
      y = Neg (r)
      s = Shape (y)
    }}"""
    facts, values = facts_of(text)
    assert facts.dims(values["y"]) == ("N", 3)
    sizes = facts.partial(values["s"])
    assert sizes is not None
    assert sizes.items.tolist() == ["N", 3]


def test_sizes_inside_a_loop_are_not_taken_from_its_declared_inputs() -> None:
    text = f"""{HEAD}main (float[1] x) => (float[k] y) {{
      n = Constant <value_int = 3> ()
      y = Loop (n, , x) <body = b (int64 i, bool c, float[1] a) => (bool d, float[2] e) {{
        d = Identity (c)
        s = Shape (a)
        e = Concat <axis = 0> (a, a)
      }}>
    }}"""
    facts, values = facts_of(text)
    assert facts.partial(values["s"]) is None
    assert facts.dims(values["y"]) is None


def test_inputs_without_names_have_sizes_of_their_own() -> None:
    text = f"""{HEAD}main (float[?,?] x, float[?,-1] z) => (float[k] y) {{
      a = Shape (x)
      b = Shape (z)
      e = Equal (a, b)
      f = Equal (a, a)
      y = Add (x, z)
    }}""".replace("-1]", "?]")
    model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph.inputs[1].shape = ir.Shape([None, -1])
    facts = Facts(model)
    facts.follow_all()
    found = [facts.partial(node.outputs[0]) for node in list(model.graph)[:4]]
    assert [part.items.tolist() for part in found if part] == [
        ["x:0", "x:1"], ["z:0", "z:1"], [None, None], [1, 1],
    ]  # fmt: skip


def holds(claim: int | str, actual: int, bound: dict[str, int]) -> bool:
    return actual == claim if isinstance(claim, int) else bound.setdefault(claim, actual) == actual


@settings(max_examples=80, deadline=None)
@given(shape_graphs())
def test_all_that_is_told_holds(model: ir.Model) -> None:
    facts = Facts(model)
    facts.follow_all()
    nodes = [node for node in model.graph if node.op_type != "Constant"]
    computed = [value for node in nodes for value in node.outputs]
    session = session_of(
        model, SessionConfig(level="disabled", threads=1), [v.name or "" for v in computed]
    )
    for n, m in ((1, 1), (2, 5)):
        x: Array = np.ones((n, 3, m), np.float32)
        bound = {"N": n, "M": m}
        answers = session.run({"x": x})
        for value in computed:
            actual = answers[value.name or ""]
            dims, partial = facts.dims(value), facts.partial(value)
            sizes = zip(dims or actual.shape, actual.shape, strict=True)
            assert all(holds(size, now, bound) for size, now in sizes)
            if partial is not None:
                assert partial.items.shape == actual.shape
                told_items = zip(partial.items.flat, actual.flat, strict=True)
                assert all(item is None or holds(item, int(now), bound) for item, now in told_items)
