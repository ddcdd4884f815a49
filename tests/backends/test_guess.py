"""Kinds guessed from a graph: what each operator asks of the input that reaches it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.guess import fed_inputs, guess_kinds


def model(body: str, inputs: str, constants: str = "", opset: int = 17) -> ir.Model:
    declared = f"<{constants}>" if constants else ""
    domains = f'["" : {opset}, "ai.onnx.ml" : 3, "com.microsoft" : 1, "local" : 1]'
    text = (
        f"<ir_version: 9, opset_import: {domains}>\nmain ({inputs}) => (y) {declared} {{ {body} }}"
    )
    return ir.from_onnx_text(text)


@pytest.mark.parametrize(
    ("body", "inputs", "constants", "kind"),
    [
        ("y = Gather(t, i)", "int64[n] i", "float[9,2] t", "integers(0,9)"),
        ("y = Gather <axis=-1> (t, i)", "int64[n] i", "float[9,2] t", "integers(0,2)"),
        ("y = GatherElements <axis=1> (t, i)", "int64[9,n] i", "float[9,2] t", "integers(0,2)"),
        ("y = GatherND(t, i)", "int64[n,2] i", "float[9,4,1] t", "integers(0,4)"),
        ("c = Cast <to=7> (i)\nu = Unsqueeze(c, a)\ny = Gather(t, u)", "float[n] i",
         "float[9,2] t, int64[1] a = {0}", "integers(0,9)"),
        # Negative indices made positive by a comparison, a product and a sum.
        ("l = Less(i, z)\nm = Where(l, s, z)\nj = Add(i, m)\ny = Gather(t, j)", "int64[n] i",
         "float[9,2] t, int64 z = {0}, int64 s = {9}", "integers(0,9)"),
        ("y = Gather(x, i)", "int64[n] i, float[time,2] x", "", "integers(0,time)"),
        ("r = Relu(x)\ny = Gather(r, i)", "int64[n] i, float[time,2] x", "", "zeros"),
        ("y = OneHot(i, d, v)", "int64[n] i", "int64 d = {7}, float[2] v = {0,1}", "integers(0,7)"),
        ("u = Unsqueeze(i, a)\ny = Equal(u, t)", "int32[n] i",
         "int64[1] a = {1}, int32[1,4] t = {0,1,2,3}", "integers(0,4)"),
        ("y = EmbedLayerNormalization(i, s, w, w, w, g, g)", "int32[n,m] i, int32[n,m] s",
         "float[11,4] w, float[4] g", "integers(0,11)"),
        ("s, h = LSTM <hidden_size=2> (x, w, r, b, i)\ny = Identity(h)",
         "int32[n] i, float[time,n,3] x", "float[1,8,3] w, float[1,8,2] r, float[1,16] b",
         "lengths(time)"),
        ("y = ReverseSequence(x, i)", "int64[n] i, float[time,n] x", "", "lengths(time)"),
        ("e = Equal(i, c)\ny = Cast <to=1> (e)", "int64 i", "int64 c = {16000}", "choice(16000,0)"),
        ("f = Sub(o, i)\ny = Mul(f, b)", "float[n,m] i", "float o = {1}, float b = {-1e4}", "mask"),
        ("f = Sub(o, i)\ny = Mul(f, b)", "float[n,m] i", "float o = {1}, float b = {2}", "floats"),
        ("y = Where(i, z, z)", "bool[n] i", "float z = {0}", "mask"),
        ("y = Expand(z, i)", "int64[2] i", "float z = {0}", "ones"),
        ("y = Div(z, i)", "float[n] i", "float z = {1}", "uniform(0.5,2)"),
        ("y = Pow(i, e)", "float[n] i", "float e = {0.5}", "uniform(0.5,2)"),
        ("y = Pow(i, e)", "float[n] i", "float e = {2}", "floats"),
        ("y = Neg(i)", "uint8[n] i", "", "integers(0,256)"),
        ("y = Neg(i)", "int64[n] i", "", "integers(0,10)"),
        ("y = Neg(input_mask)", "int64[n] input_mask", "", "mask"),
        ("y = Neg(position_ids)", "int64[n] position_ids", "", "positions"),
        ("y = Neg(x_lens)", "int64[n] x_lens", "", "ones"),
        ("y = Not(i)", "bool[n] i", "", "bools"),
        ("y = Identity(i)", "string[n] i", "", "words"),
        ("y = Relu(i)", "float16[n] i", "", "floats"),
        ('y = ai.onnx.ml.LabelEncoder <keys_strings=["a","b"], values_int64s=[1,2]> (i)',
         "string[n] i", "", 'choice("a","b")'),
        ("y = ai.onnx.ml.LabelEncoder <keys_int64s=[3,5], values_int64s=[1,2]> (i)",
         "int64[n] i", "", "integers(3,6)"),
        ("y = ai.onnx.ml.TreeEnsembleRegressor <nodes_values=[0.5, 40.0]> (i)",
         "float[n,2] i", "", "uniform(-0.5,41.0)"),
        ("y = ai.onnx.ml.Scaler <scale=[2.0]> (i)", "float[n,2] i", "", "floats"),
        ("y = Gather(i, z)", "float[n] i", "int64 z = {0}", "floats"),
        ("y = OneHot(i, d, v)", "int64[n] i", "int64 d = {0}, float[2] v = {0,1}", "integers(0,1)"),
        ("y = OneHot(z, i, v)", "int64 i", "int64[2] z = {0,1}, float[2] v = {0,1}",
         "integers(2,9)"),
        ("y = GatherND(i, z)", "float[n,2] i", "int64[1,1] z = {0}", "floats"),
        ("y = GatherND(t, i)", "int64[n,k] i", "float[9,4,6] t", "integers(0,4)"),
        ("r = Relu(x)\ny = GatherND(r, i)", "int64[n,1] i, float[a,b] x", "", "zeros"),
        ("s, h = GRU <hidden_size=2> (r, w, q, , i)\ny = Identity(h)\nr = Relu(x)",
         "int32[n] i, float[time,n,3] x", "float[1,6,3] w, float[1,6,2] q", "ones"),
        ("y = Equal(i, t)", "string i", 'string t = {"a"}', 'choice("a")'),
        ("f = Sub(i, o)\ny = Mul(f, b)", "float[n] i", "float o = {1}, float b = {-1e4}", "floats"),
        ("y = com.microsoft.QuickGelu (i)", "float[n] i", "", "floats"),
        ("e = Equal(i, t)\ny = Cast <to=1> (e)", "float i, float t", "", "floats"),
    ],
)  # fmt: skip
def test_the_first_input_gets_what_the_graph_asks_for(
    body: str, inputs: str, constants: str, kind: str
) -> None:
    built = model(body, inputs, constants)
    for value in built.graph.initializers.values():
        if value.const_value is None:
            shape = [dim for dim in value.shape or () if isinstance(dim, int)]
            value.const_value = ir.tensor(np.zeros(shape, np.float32), name=value.name)
    guessed = guess_kinds(built)
    assert str(next(iter(guessed.values()))) == kind


def test_inputs_are_followed_into_subgraphs_and_functions() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
    main (int64[n] i, bool c) => (y) <float[9,2] t, float[5,2] s> {
      y = If (c) <then_branch = a () => (p) { p = local.pick (t, i) },
                  else_branch = b () => (q) { q = Gather (s, i) }>
    }
    <domain: "local", opset_import: ["" : 17]>
    pick (t, i) => (o) { j = Identity (i)  o = Gather (t, j) }
    """
    built = ir.from_onnx_text(
        text,
        initializers=[
            ir.tensor(np.zeros((r, 2), np.float32), name=n) for n, r in (("t", 9), ("s", 5))
        ],
    )
    assert {name: str(kind) for name, kind in guess_kinds(built).items()} == {
        "i": "integers(0,5)",
        "c": "choice(1,0)",
    }


def test_inputs_are_followed_into_loop_bodies() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]>
    main (int64 m, int64[n] i) => (y) <bool go = {1}, float[6,2] t> {
      y, ys = Loop (m, go, i) <body = step (int64 k, bool c, int64[n] j) => (c2, j2, e) {
        c2 = Identity (c)  j2 = Identity (j)  e = Gather (t, j)
      }>
    }"""
    built = ir.from_onnx_text(
        text, initializers=[ir.tensor(np.zeros((6, 2), np.float32), name="t")]
    )
    assert {name: str(kind) for name, kind in guess_kinds(built).items()} == {
        "m": "integers(1,4)",
        "i": "integers(0,6)",
    }


def test_inputs_with_a_default_need_not_be_fed() -> None:
    built = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 8]> main (float[2] x, float[2] w) => (y) '
        "{ y = Add (x, w) }",
        initializers=[ir.tensor(np.zeros(2, np.float32), name="w")],
    )
    assert [value.name for value in fed_inputs(built)] == ["x"]
