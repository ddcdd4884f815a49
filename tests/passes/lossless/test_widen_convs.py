"""1-D convolutions get a second axis, and what stands between them goes along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.widen_convs import WidenConvs

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

RNG = np.random.default_rng(0)
W, V = (RNG.normal(size=(16, 16, 3)).astype(np.float32) for _ in range(2))
B = RNG.normal(size=16).astype(np.float32)
X = RNG.normal(size=(2, 16, 9)).astype(np.float32)


def main(body: str, y: str = "float[N,C,M] y", opset: int = 17, held: str = "") -> str:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    return f"{head}main (float[N,16,L] x) => ({y}) {held} {{\n{body}\n}}"


def widen(model: ir.Model, target: str = "cpu") -> Result:
    return WidenConvs().rewrite(model, Context(target=Target(target)))  # type: ignore[arg-type]


def kinds(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph if node.op_type != "Constant"]


def check(model: ir.Model, answers: Answers, **more: Array) -> None:
    before = answers(model, x=X, **more)
    assert widen(model).modified
    after = answers(model, x=X, **more)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-4)
    assert not widen(model).modified


CHAIN = """
  a = Conv <kernel_shape = [3], pads = [1, 0], strides = [2], dilations = [1]> (x, w, b)
  c = Relu (a)
  y = Conv <pads = [1, 1]> (c, v)"""


def test_the_graph_that_is_left(build: Build, answers: Answers) -> None:
    model = build(main(CHAIN), w=W, v=V, b=B)
    check(model, answers)

    lines = ir.to_onnx_text(model).splitlines()
    body = [line.split("] ")[-1].strip().replace('"', "") for line in lines[-6:-1]]
    assert body == [
        "x.wide = Unsqueeze (x, wide.axes)",
        "a.wide = Conv <kernel_shape: ints = [1, 3], pads: ints = [0, 1, 0, 0], "
        "strides: ints = [1, 2], dilations: ints = [1, 1]> (x.wide, w.wide, b)",
        "c.wide = Relu (a.wide)",
        "y.wide = Conv <pads: ints = [0, 1, 0, 1]> (c.wide, v.wide)",
        "y = Squeeze (y.wide, wide.axes)",
    ]
    weights = {name: list(value.shape or ()) for name, value in model.graph.initializers.items()}
    wide = [16, 16, 1, 3]
    assert weights == {"b": [16], "w.wide": wide, "v.wide": wide, "wide.axes": [1]}


@pytest.mark.parametrize("opset", [9, 12, 13, 21])
def test_every_version(opset: int, build: Build, answers: Answers) -> None:
    model = build(main(CHAIN, opset=opset), w=W, v=V, b=B)
    check(model, answers)
    assert kinds(model.graph) == ["Unsqueeze", "Conv", "Relu", "Conv", "Squeeze"]


SCALE = RNG.normal(size=(16, 1)).astype(np.float32)
GOES_ALONG = [
    "d = Add (a, x)",
    "d = Mul (s, a)",
    "p = Constant <value = float {2.0}> () d = Div (a, p)",
    "d = Clip (a)",
    "d = HardSigmoid <alpha = 0.3> (a)",
    "d = BatchNormalization (a, b, b, b, q)",
    "d = MaxPool <kernel_shape = [2], strides = [2], pads = [1, 0], ceil_mode = 1> (a)",
    "d = AveragePool <kernel_shape = [3], pads = [1, 1], count_include_pad = 1> (a)",
    "d = GlobalAveragePool (a)",
    "e = Tanh (a) d = Concat <axis = -2> (a, e)",
    "e = Tanh (a) d = Concat <axis = 2> (a, e)",
]


@pytest.mark.parametrize("between", GOES_ALONG)
def test_what_goes_along(between: str, build: Build, answers: Answers) -> None:
    channels = 32 if "axis = -2" in between else 16
    taps = 16 if "Global" in between else 3
    d = "d"
    if taps == 16:
        d, between = "e", between + " e = Concat <axis = 2> (" + ", ".join(["d"] * taps) + ")"
    wide = RNG.normal(size=(16, channels, taps)).astype(np.float32)
    last = f"y = Conv ({d}, v)"
    model = build(
        main(f"a = Conv <pads = [1, 1]> (x, w, b)\n{between}\n{last}"),
        w=W, v=wide, b=B, s=SCALE, q=np.abs(B) + 1,
    )  # fmt: skip
    check(model, answers)
    found = kinds(model.graph)
    assert (found[:2], found.count("Unsqueeze"), found.count("Squeeze")) == (
        ["Unsqueeze", "Conv"],
        1,
        1,
    )


@pytest.mark.parametrize(
    "after",
    [
        "y = Transpose <perm = [0, 2, 1]> (a)",
        "y = Add (a, n)",
        "y = Softmax <axis = 1> (a)",
        "y, i = MaxPool <kernel_shape = [2]> (a)",
    ],
)
def test_what_does_not(after: str, build: Build, answers: Answers) -> None:
    held = "<float[16,1] m = {" + ", ".join(["1"] * 16) + "}>"
    body = f"""
      n = Cos (x)
      a = Conv <pads = [1, 1]> (x, w)\n{after}"""
    outputs = "float[N,C,M] y, float[N,C,L] a" + (", int64[N,C,M] i" if "i =" in after else "")
    model = build(main(body, y=outputs, held=held), w=W)
    check(model, answers)
    assert kinds(model.graph).count("Squeeze") == 1


def test_inside_branches_with_parameters_around_them(build: Build, answers: Answers) -> None:
    text = main(
        """y = If (go) <
          then_branch = t () => (float[N,C,M] p) { p = Conv (x, w, b) },
          else_branch = e () => (float[N,C,M] p) { q = Conv (x, v, b) p = Relu (q) }
        >"""
    ).replace("(float[N,16,L] x)", "(float[N,16,L] x, bool go)")
    model = build(text, w=W, v=V, b=B)
    for flag in (True, False):
        check(build(text, w=W, v=V, b=B), answers, go=np.array(flag))
    widen(model)
    [node] = model.graph
    for branch in node.attributes.values():
        graph = branch.as_graph()
        [conv] = [node for node in graph if node.op_type == "Conv"]
        assert all(value is not None and value.graph is graph for value in conv.inputs[1:])


def test_inside_a_function(build: Build, answers: Answers) -> None:
    values = ", ".join(["0.5"] * 16 * 16 * 3)
    text = (
        main("y = local.f (x)").replace("17]", '17, "local" : 1]')
        + f"""<domain: "local", opset_import: ["" : 17]>
    f (a) => (b) {{ w = Constant <value = float[16,16,3] {{{values}}}> () b = Conv (a, w) }}"""
    )
    model = build(text)
    check(model, answers)
    (function,) = model.functions.values()
    assert kinds(function.graph) == ["Unsqueeze", "Conv", "Squeeze"]


def shaped(*shape: int, dtype: type = np.float32) -> Array:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("weight", "group", "reason"),
    [
        (shaped(16, 16, 3, dtype=np.float64), 1, "for float32"),
        (shaped(16, 24, 3), 1, "do not fill blocks"),
        (shaped(24, 16, 3), 1, "do not fill blocks"),
        (shaped(20, 1, 3), 20, "do not fill blocks"),
        (shaped(16, 8, 3), 2, "do not fill blocks"),
        (shaped(48, 16, 3), 6, "do not fill blocks"),
        (shaped(8, 4, 32), 1, "no faster"),
        (shaped(64, 128, 1), 1, "no faster"),
        (shaped(16, 4, 7), 1, "no faster"),
        (shaped(512, 512, 3), 1, "no faster"),
    ],
)
def test_what_is_declined(weight: Array, group: int, reason: str, build: Build) -> None:
    body = f"y = Conv <group = {group}> (x, w)"
    model = build(main(body).replace("16,L", f"{weight.shape[1] * group},L"), w=weight)
    before = ir.to_onnx_text(model)

    result = widen(model)

    assert ir.to_onnx_text(model) == before
    [declined] = result.declined.values()
    assert reason in declined


@pytest.mark.parametrize(
    ("weight", "group"), [(shaped(32, 1, 3), 32), (shaped(32, 16, 1), 2), (shaped(18, 1, 64), 1)]
)
def test_other_channels_that_gain(weight: Array, group: int, build: Build) -> None:
    body = f"y = Conv <group = {group}> (x, w)"
    assert widen(
        build(main(body).replace("16,L", f"{weight.shape[1] * group},L"), w=weight)
    ).modified


def test_dequantized_inputs_stay(build: Build) -> None:
    text = main("d = DequantizeLinear (x, s) y = Conv (d, w)", held="<float s = {0.5}>")
    result = widen(build(text.replace("float[N,16,L]", "int8[N,16,L]"), w=W))
    assert list(result.declined.values()) == ["its input is dequantized"]


@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_other_targets_keep_their_axes(target: str, build: Build) -> None:
    assert not widen(build(main(CHAIN), w=W, v=V, b=B), target).modified


def test_weights_that_may_be_fed_and_images_are_no_match(build: Build) -> None:
    fed = main("y = Conv (x, w)").replace("x)", "x, float[16,16,3] w)", 1)
    flat = main("y = Conv (x, w)").replace("16,L", "16,L,L")
    for model in (build(fed), build(flat, w=W[..., None])):
        result = widen(model)
        assert (result.modified, result.declined) == (False, {})
