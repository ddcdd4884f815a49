"""RecognizeActivations: the operator that a spelling means, the same answers, or a reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.recognize_activations import RecognizeActivations

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

NUMBERS = {
    "n0": 0.0,
    "n1": 1.0,
    "n2": 2.0,
    "n3": 3.0,
    "n6": 6.0,
    "half": 0.5,
    "sixth": 1 / 6,
    "fifth": 0.2,
    "minus1": -1.0,
    "quarter": 0.25,
    "minus_quarter": -0.25,
    "root2": math.sqrt(2),
    "inverse2": math.sqrt(0.5),
    "minus_inverse2": -math.sqrt(0.5),
    "cubic": 0.044715,
    "slope": math.sqrt(2 / math.pi),
    "mean": 0.625,
    "rest": 0.375,
    "endless": math.inf,
    "huge": float(np.finfo(np.float32).max),
}


ARRAYS: dict[str, Array] = {
    "last": np.array([-1]),
    "second": np.array([1]),
    "gain": np.array([0.5, 1.5, 2.0], np.float32),
    "bias": np.array([0.1, -0.2, 0.3], np.float32),
    "gain3": np.array([[[0.5, 1.5, 2.0]]], np.float32),
    "gain4": np.array([[[[0.5, 1.5, 2.0]]]], np.float32),
    "gain2": np.array([0.5, 1.5], np.float32),
}


def model_of(
    build: Build,
    body: str,
    *,
    opset: int = 17,
    dtype: str = "float",
    outputs: str = "y",
    **more: Any,
) -> ir.Model:
    """The model that computes ``body`` of ``x``; names of :data:`NUMBERS` are constants."""
    made = ", ".join(f"{dtype}[N,2,3] {name}" for name in outputs.split())
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    text = f"{head}main ({dtype}[N,2,3] x) => ({made}) {{ {body} }}"
    kind = helper_type(dtype)
    used = {name: np.asarray(value, kind) for name, value in NUMBERS.items() if reads(body, name)}
    used |= {name: array for name, array in ARRAYS.items() if reads(body, name)}
    return build(text, **(used | more))


def helper_type(dtype: str) -> Any:
    return {"float": np.float32, "float16": np.float16, "double": np.float64}[dtype]


def reads(body: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", body) is not None


def recognize(model: ir.Model, *, for_target: bool = False, target: str = "cpu") -> Result:
    context = Context(target=Target(target))  # type: ignore[arg-type]
    return RecognizeActivations(for_target=for_target).rewrite(model, context)


def body_of(model: ir.Model) -> str:
    """The nodes of ``model`` as text, one a line."""
    text = ir.to_onnx_text(model, exclude_initializers=True)
    lines = text[text.index("{") + 1 : text.rindex("}")].strip().splitlines()
    return "\n".join(line.strip() for line in lines)


def inputs(dtype: str = "float", spread: float = 4.0) -> Array:
    array = np.random.default_rng(0).normal(0, spread, (5, 2, 3)).astype(helper_type(dtype))
    array.flat[:6] = [0, -0.0, 3, -3, 6, -1]
    return array


def check(model: ir.Model, answers: Answers, dtype: str = "float", **options: Any) -> Result:
    """Recognize, and see that the answers stay and that nothing more is found then."""
    x = inputs(dtype)
    before = answers(model, x=x)

    result = recognize(model, **options)

    after = answers(model, x=x)
    tolerance = 5e-3 if dtype == "float16" else 2e-6
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=tolerance, atol=tolerance)
    assert not recognize(model, **options).modified
    return result


HARD_SIGMOID = "HardSigmoid <alpha: float = 0.16666667, beta: float = 0.5> (x)"
SPELLINGS: dict[str, tuple[str, str, int]] = {
    "hard sigmoid": ("a = Add(x, n3) c = Clip(a, n0, n6) y = Div(c, n6)", HARD_SIGMOID, 17),
    "hard sigmoid, factor": (
        "a = Add(n3, x) c = Clip(a, n0, n6) y = Mul(sixth, c)",
        HARD_SIGMOID,
        17,
    ),
    "hard sigmoid, attributes": (
        "a = Add(x, n3) c = Clip<min=0.0, max=6.0>(a) y = Div(c, n6)",
        HARD_SIGMOID,
        9,
    ),
    "hard sigmoid, relu6": (
        "a = Add(x, n3) r = Relu(a) c = Min(r, n6) y = Div(c, n6)",
        HARD_SIGMOID,
        13,
    ),
    "hard sigmoid, scaled first": (
        "a = Add(x, n3) d = Div(a, n6) y = Clip(d, n0, n1)",
        HARD_SIGMOID,
        17,
    ),
    "hard sigmoid, scaled and shifted": (
        "a = Mul(x, fifth) b = Add(a, half) y = Clip(b, n0, n1)",
        "HardSigmoid <alpha: float = 0.2, beta: float = 0.5> (x)",
        17,
    ),
    "hard swish": (
        "a = Add(x, n3) c = Clip(a, n0, n6) m = Mul(x, c) y = Div(m, n6)",
        "HardSwish (x)",
        14,
    ),
    "hard swish, divided first": (
        "a = Add(x, n3) c = Clip(a, n0, n6) d = Div(c, n6) y = Mul(x, d)",
        "HardSwish (x)",
        14,
    ),
    "hard swish, factor": (
        "a = Add(x, n3) c = Clip(a, n0, n6) m = Mul(c, x) y = Mul(m, sixth)",
        "HardSwish (x)",
        17,
    ),
    "hard swish, input divided": (
        "a = Add(x, n3) c = Clip(a, n0, n6) d = Div(x, n6) y = Mul(d, c)",
        "HardSwish (x)",
        17,
    ),
    "hard swish, operator": (
        "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(h, x)",
        "HardSwish (x)",
        17,
    ),
    "relu": ("y = Max(x, n0)", "Relu (x)", 17),
    "relu, bounded below": ("y = Clip(x, n0)", "Relu (x)", 11),
    "relu, bounded at the largest": ("y = Clip(x, n0, huge)", "Relu (x)", 11),
    "no bounds": ("y = Min(x, endless)", "Identity (x)", 11),
    "relu twice": ("a = Relu(x) y = Relu(a)", "Relu (x)", 17),
    "leaky relu": (
        "m = Mul(x, quarter) y = Max(x, m)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, two sides": (
        "p = Relu(x) n = Neg(x) q = Relu(n) m = Mul(quarter, q) y = Sub(p, m)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, two sides added": (
        "p = Relu(x) n = Neg(x) q = Relu(n) m = Mul(minus_quarter, q) y = Add(p, m)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, below zero": (
        "p = Max(x, n0) q = Min(x, n0) m = Mul(quarter, q) y = Add(p, m)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, magnitude": (
        "p = Mul(x, mean) a = Abs(x) q = Mul(a, rest) y = Add(p, q)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, chosen": (
        "g = Greater(x, n0) m = Mul(x, quarter) y = Where(g, x, m)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "leaky relu, chosen the other way": (
        "g = Less(x, n0) m = Mul(x, quarter) y = Where(g, m, x)",
        "LeakyRelu <alpha: float = 0.25> (x)",
        17,
    ),
    "sigmoid": ("n = Neg(x) e = Exp(n) a = Add(n1, e) y = Div(n1, a)", "Sigmoid (x)", 17),
    "sigmoid, reciprocal": (
        "n = Mul(x, minus1) e = Exp(n) a = Add(e, n1) y = Reciprocal(a)",
        "Sigmoid (x)",
        17,
    ),
    "gelu": (
        "d = Div(x, root2) e = Erf(d) a = Add(e, n1) m = Mul(x, a) y = Mul(m, half)",
        "Gelu (x)",
        20,
    ),
    "gelu, input halved": (
        "d = Mul(x, inverse2) e = Erf(d) a = Add(n1, e) h = Mul(x, half) y = Mul(h, a)",
        "Gelu (x)",
        20,
    ),
    "gelu, sum halved": (
        "d = Div(x, root2) e = Erf(d) a = Add(n1, e) h = Mul(half, a) y = Mul(h, x)",
        "Gelu (x)",
        20,
    ),
    "gelu, summands halved": (
        "d = Mul(x, inverse2) e = Erf(d) h = Mul(e, half) a = Add(h, half) y = Mul(x, a)",
        "Gelu (x)",
        20,
    ),
    "gelu, divided": (
        "d = Div(x, root2) e = Erf(d) a = Add(e, n1) m = Mul(x, a) y = Div(m, n2)",
        "Gelu (x)",
        20,
    ),
    "gelu, complement": (
        "d = Mul(x, minus_inverse2) e = Erf(d) a = Sub(n1, e) h = Mul(x, half) y = Mul(h, a)",
        "Gelu (x)",
        20,
    ),
    "tanh gelu": (
        "p = Pow(x, n3) c = Mul(p, cubic) a = Add(x, c) s = Mul(a, slope) t = Tanh(s)"
        " o = Add(t, n1) m = Mul(x, o) y = Mul(m, half)",
        'Gelu <approximate: string = "tanh"> (x)',
        20,
    ),
    "tanh gelu, factors": (
        "q = Mul(x, x) p = Mul(q, x) c = Mul(cubic, p) a = Add(c, x) s = Mul(slope, a)"
        " t = Tanh(s) o = Add(n1, t) h = Mul(half, x) y = Mul(h, o)",
        'Gelu <approximate: string = "tanh"> (x)',
        20,
    ),
    "tanh gelu, factored": (
        "q = Mul(cubic, x) p = Mul(q, x) c = Add(p, n1) a = Mul(x, slope) s = Mul(a, c)"
        " t = Tanh(s) o = Add(n1, t) h = Mul(half, o) y = Mul(h, x)",
        'Gelu <approximate: string = "tanh"> (x)',
        20,
    ),
    "mish": ("s = Softplus(x) t = Tanh(s) y = Mul(t, x)", "Mish (x)", 18),
    "softmax": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, last) y = Div(e, s)",
        "Softmax <axis: int = -1> (x)",
        13,
    ),
    "softmax along another axis": (
        "e = Exp(x) s = ReduceSum(e, second) y = Div(e, s)",
        "Softmax <axis: int = 1> (x)",
        17,
    ),
    "layer normalization": (
        "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Pow(d, n2) v = ReduceMean<axes=[-1]>(q)"
        " w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) g = Mul(n, gain) y = Add(g, bias)",
        "LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain, bias)",
        17,
    ),
    "layer normalization, reciprocal": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, gain) y = Mul(d, f)",
        "LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain)",
        18,
    ),
    "layer normalization, the difference twice": (
        "m = ReduceMean(x, last) d = Sub(x, m) k = ReduceMean(x, last) c = Sub(x, k) q = Pow(c, n2)"
        " v = ReduceMean(q, last) w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) y = Mul(n, gain)",
        "LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain)",
        18,
    ),
    "layer normalization as TensorFlow has it": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, gain) a = Mul(x, f)"
        " g = Mul(m, f) b = Sub(bias, g) y = Add(a, b)",
        "LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain, bias)",
        18,
    ),
    "layer normalization as Keras has it": (
        "m = GlobalAveragePool(x) d = Sub(x, m) q = Mul(d, d) v = GlobalAveragePool(q)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, gain3) a = Mul(x, f)"
        " n = Neg(m) g = Mul(n, f) b = Add(g, bias) y = Add(a, b)",
        'LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, "y.vector", bias)',
        17,
    ),
    "layer normalization as Keras has it, without a bias": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, gain) a = Mul(x, f)"
        " n = Neg(m) g = Mul(n, f) y = Add(a, g)",
        "LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain)",
        18,
    ),
    "layer normalization, parameters with more axes": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) g = Mul(n, gain3) y = Add(g, bias)",
        'LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, "g.vector", bias)',
        18,
    ),
    "layer normalization without parameters": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) y = Div(d, s)",
        'LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, "y.vector")',
        18,
    ),
    "layer normalization with a bias": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) y = Add(n, bias)",
        'LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, "n.vector", bias)',
        18,
    ),
    "layer normalization, two factors": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) g = Mul(n, gain) y = Mul(gain, g)",
        'LayerNormalization <axis: int = -1, epsilon: float = 0.2> (x, "y.vector")',
        18,
    ),
    "root mean square": (
        "q = Mul(x, x) v = ReduceMean(q, last) w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s)"
        " n = Mul(x, r) y = Mul(gain, n)",
        "RMSNormalization <axis: int = -1, epsilon: float = 0.2> (x, gain)",
        23,
    ),
    "root mean square without factors": (
        "q = Pow(x, n2) v = ReduceMean(q, last) w = Add(v, fifth) s = Pow(w, half) y = Div(x, s)",
        'RMSNormalization <axis: int = -1, epsilon: float = 0.2> (x, "y.vector")',
        23,
    ),
}


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_a_spelling_becomes_the_operator(name: str, build: Build, answers: Answers) -> None:
    body, expected, opset = SPELLINGS[name]
    model = model_of(build, body, opset=opset)

    result = check(model, answers)

    assert body_of(model) == f"y = {expected}"
    assert sum(result.details.values()) == len(result.rewritten)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


SEVERAL: dict[str, tuple[str, int, bool, str]] = {
    "hard swish before its operator": (
        "a = Add(x, n3) c = Clip(a, n0, n6) m = Mul(x, c) y = Div(m, n6)",
        13,
        False,
        "HardSigmoid Mul",
    ),
    "bounds": ("a = Min(x, n6) b = Max(a, n0) y = Identity(b)", 13, False, "Clip Identity"),
    "bounds before opset 11": ("a = Relu(x) y = Clip<min=-2.0, max=6.0>(a)", 9, False, "Clip"),
    "silu": ("n = Neg(x) e = Exp(n) a = Add(n1, e) y = Div(x, a)", 17, False, "Sigmoid Mul"),
    "gelu as ONNX Runtime finds it": (
        "d = Mul(x, inverse2) e = Erf(d) a = Add(n1, e) h = Mul(x, half) y = Mul(h, a)",
        17,
        False,
        "Div Erf Add Mul Mul",
    ),
    "gelu for the target": (
        "d = Div(x, root2) e = Erf(d) a = Add(e, n1) m = Mul(x, a) y = Mul(m, half)",
        17,
        True,
        "com.microsoft.Gelu",
    ),
    "tanh gelu before its operator": (
        "p = Pow(x, n3) c = Mul(p, cubic) a = Add(x, c) s = Mul(a, slope) t = Tanh(s)"
        " o = Add(t, n1) m = Mul(x, o) y = Mul(m, half)",
        17,
        False,
        "Mul Mul Add Mul Sigmoid Mul",
    ),
    "mish for the target": (
        "s = Softplus(x) t = Tanh(s) y = Mul(t, x)",
        17,
        True,
        "Clip Exp Add Mul Add Div Mul",
    ),
    "mish before opset 11 for the target": (
        "e = Exp(x) a = Add(e, n1) s = Log(a) t = Tanh(s) y = Mul(t, x)",
        9,
        True,
        "Clip Exp Add Mul Add Div Mul",
    ),
    "root mean square before its operator, for the target": (
        "q = Mul(x, x) v = ReduceMean<axes=[-1]>(q) w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s)"
        " n = Mul(x, r) y = Mul(gain, n)",
        17,
        True,
        "Pow ReduceMean Add Sqrt Div Mul",
    ),
    "root mean square along axes that are an input": (
        "q = Mul(x, x) v = ReduceMean(q, last) w = Add(v, fifth) s = Sqrt(w) r = Div(n1, s)"
        " n = Mul(x, r) y = Mul(gain, n)",
        18,
        True,
        "Pow ReduceMean Add Sqrt Div Mul",
    ),
    "tanh gelu for the target": (
        "p = Pow(x, n3) c = Mul(p, cubic) a = Add(x, c) s = Mul(a, slope) t = Tanh(s)"
        " o = Add(t, n1) m = Mul(x, o) y = Mul(m, half)",
        17,
        True,
        "com.microsoft.FastGelu",
    ),
}


@pytest.mark.parametrize("name", list(SEVERAL))
def test_what_takes_several_operators_or_the_target(
    name: str, build: Build, answers: Answers
) -> None:
    body, opset, for_target, expected = SEVERAL[name]
    model = model_of(build, body, opset=opset)

    check(model, answers, for_target=for_target)

    found = [f"{node.domain}.{node.op_type}".removeprefix(".") for node in model.graph]
    assert " ".join(found) == expected
    onnx.checker.check_model(ir.to_proto(model))


def test_a_portable_target_gets_standard_operators_only(build: Build, answers: Answers) -> None:
    body, _, _ = SPELLINGS["gelu"]
    model = model_of(build, body, opset=17)

    result = check(model, answers, for_target=True, target="portable")

    assert not result.modified
    assert "com.microsoft" not in model.opset_imports


@pytest.mark.parametrize("name", ["hard swish", "leaky relu", "gelu", "relu", "sigmoid", "mish"])
def test_half_precision(name: str, build: Build, answers: Answers) -> None:
    body, expected, opset = SPELLINGS[name]
    model = model_of(build, body, opset=opset, dtype="float16")

    check(model, answers, "float16")

    assert body_of(model) == f"y = {expected}"


def test_double_keeps_what_it_has_kernels_for(build: Build, answers: Answers) -> None:
    body, expected, opset = SPELLINGS["sigmoid"]
    model = model_of(build, body, opset=opset, dtype="double")

    check(model, answers, "double")

    assert body_of(model) == f"y = {expected}"


UNLIKE: dict[str, str] = {
    "another shift": "a = Add(x, n2) c = Clip(a, n0, n6) m = Mul(x, c) y = Div(m, n6)",
    "another bound": "a = Add(x, n3) c = Clip(a, n1, n6) y = Div(c, n6)",
    "another divisor": "a = Add(x, n3) c = Clip(a, n0, n6) y = Div(c, n3)",
    "divided the other way": "a = Add(x, n3) c = Clip(a, n0, n6) y = Div(n6, c)",
    "a steep slope": "m = Mul(x, n2) y = Max(x, m)",
    "a negative slope": "m = Mul(x, minus_quarter) y = Max(x, m)",
    "weights that do not add up": "p = Mul(x, mean) a = Abs(x) q = Mul(a, half) y = Add(p, q)",
    "softplus, which is slow": "e = Exp(x) a = Add(e, n1) y = Log(a)",
    "another gate": "h = HardSigmoid<alpha=0.2, beta=0.5>(x) y = Mul(h, x)",
    "softmax along two axes": "e = Exp(x) s = ReduceSum(e, second) m = ReduceMax<axes=[-1]>(x)"
    " d = Sub(x, m) f = Exp(d) y = Div(f, s)",
    "sums that are not kept": "e = Exp(x) s = ReduceSum<keepdims=0>(e, last) y = Div(s, e)",
    "a mean": "y = ReduceMean<axes=[1, 2]>(x)",
    "one clip": "y = Clip(x, n0, n6)",
    "a bound above, which lets minus infinity pass": "y = Min(x, n0)",
    "a bound below, which lets infinity pass": "y = Max(x, n1)",
    "the largest number as a bound": "y = Min(x, huge)",
    "what is there already": "h = Relu(x) y = Sigmoid(h)",
    "nothing but infinity": "y = Max(x, endless)",
}


@pytest.mark.parametrize("name", list(UNLIKE))
def test_what_looks_alike_stays(name: str, build: Build) -> None:
    model = model_of(build, UNLIKE[name], opset=17)
    before = body_of(model)

    result = recognize(model, for_target=True)

    assert not result.modified
    assert body_of(model) == before


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "read elsewhere": (
        "a = Add(x, n3) c = Clip(a, n0, n6) y = Div(c, n6)",
        {"outputs": "y c"},
        "what Clip computes inside of it is read elsewhere as well",
    ),
    "no operator yet": (
        "s = Softplus(x) t = Tanh(s) y = Mul(t, x)",
        {"opset": 17},
        "there is no Mish for its type in version 17 of the operators",
    ),
    "layer normalization along another axis": (
        "m = ReduceMean<axes=[1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[1]>(q)"
        " w = Add(v, fifth) s = Sqrt(w) n = Div(d, s) y = Mul(n, gain)",
        {},
        "it is not known to go along the last axis, of a size that is known",
    ),
    "a layer normalization before its operator": (
        "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q)"
        " w = Add(v, fifth) s = Sqrt(w) y = Div(d, s)",
        {"opset": 13},
        "there is no LayerNormalization for its type in version 13 of the operators",
    ),
    "a root mean square before its operator": (
        "q = Mul(x, x) v = ReduceMean(q, last) w = Add(v, fifth) s = Sqrt(w) y = Div(x, s)",
        {"opset": 18},
        "there is no RMSNormalization for its type in version 18 of the operators",
    ),
    "a layer normalization with a factor for the whole": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, half) y = Mul(d, f)",
        {"opset": 18},
        "it has no factor for each place along the last axis",
    ),
    "a layer normalization with more axes in a factor": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
        " w = Add(v, fifth) s = Sqrt(w) r = Reciprocal(s) f = Mul(r, gain4) y = Mul(d, f)",
        {"opset": 18},
        "a constant in it may have more axes than what it meets",
    ),
    "a root mean square along another axis": (
        "q = Mul(x, x) v = ReduceMean(q, second) w = Add(v, fifth) s = Sqrt(w) y = Div(x, s)",
        {"opset": 23},
        "it is not known to go along the last axis, of a size that is known",
    ),
    "a constant with more axes": (
        "y = Max(x, wide)",
        {"wide": np.zeros((1, 1, 1, 1), np.float32)},
        "a constant in it may have more axes than what it meets",
    ),
}


@pytest.mark.parametrize("name", list(REFUSALS))
def test_a_refusal_says_why(name: str, build: Build) -> None:
    body, options, because = REFUSALS[name]
    model = model_of(build, body, **options)
    before = body_of(model)

    result = recognize(model)

    assert list(result.declined.values()) == [because]
    assert not result.modified
    assert body_of(model) == before


def test_a_constant_that_callers_may_replace_is_none(build: Build) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "main (float[N] x, float low) => (float[N] y) { y = Max(x, low) }"
    )
    model = build(text, low=np.float32(0))

    assert not recognize(model).modified


def test_integers_are_left_alone(build: Build) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "main (int64[N] x) => (int64[N] y) { y = Max(x, low) }"
    )
    model = build(text, low=np.int64(0))

    result = recognize(model)

    assert (result.modified, result.declined) == (False, {})


def test_subgraphs_and_functions(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
main (float[N,2,3] x, bool b) => (float[N,2,3] y, float[N,2,3] z) {
  y = If (b) <
    then_branch = one () => (float[N,2,3] p) {
      n = Constant <value = float {0.0}> ()
      p = Max(x, n)
    },
    else_branch = other () => (float[N,2,3] q) { q = Neg(x) }
  >
  z = local.gate(x)
}
<domain: "local", opset_import: ["" : 13]>
gate (v) => (w) {
  three = Constant <value = float {3.0}> ()
  six = Constant <value = float {6.0}> ()
  zero = Constant <value = float {0.0}> ()
  a = Add(v, three)
  c = Clip(a, zero, six)
  m = Mul(v, c)
  w = Div(m, six)
}
"""
    model = build(text)
    x = inputs()
    feeds = {"x": x, "b": np.array(True)}
    before = answers(model, **feeds)

    result = recognize(model)

    after = answers(model, **feeds)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-6, atol=1e-6)
    assert result.details == {"Clip": 1, "HardSwish": 1}


IMAGE = """<ir_version: 8, opset_import: ["" : 17]>
main (float[N,2,6,6] x) => (float[N,4,p,q] y) {
  c = Conv(x, w)
  r = Relu(c)
  y = ReduceMean <axes = [AXES]> (r)
}
"""


SUMMED = """<ir_version: 8, opset_import: ["" : 17]>
main (float[N,2,3] x, float[N,2,3] z) => (float[N,2,3] y) {
  a = Add(x, z)
  y = LayerNormalization <axis = -1> (a, gain, bias)
}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected", "because"),
    [
        ("", "", True, []),
        ("a, gain, bias", "a, gain", True, []),
        ("[N,2,3] z", "[1,2,3] z", False, ["it may add tensors of different sizes"]),
        ("(float[N,2,3] y)", "(float[N,2,3] y, float[N,2,3] a)", False, []),
        ("  y = LayerN", "  b = Neg(a)\n  y = LayerN", False, []),
        ("  y = LayerNormalization <axis = -1> (a, gain, bias)", "  y = Relu(a)", False, []),
    ],
)
def test_a_sum_that_only_a_normalization_reads(
    old: str, new: str, expected: bool, because: list[str], build: Build, answers: Answers
) -> None:
    """ONNX Runtime makes a slow operator of an Add and the normalization."""
    text = SUMMED.replace(old, new) if old else SUMMED
    model = build(text, **{name: ARRAYS[name] for name in ("gain", "bias") if reads(text, name)})
    x = inputs()
    z = x[:1] if "[1,2,3] z" in text else x[::-1].copy()
    before = answers(model, x=x, z=z)["y"]

    assert not recognize(model).modified
    result = recognize(model, for_target=True)

    assert (result.modified, model.graph[0].op_type == "Sum") == (expected, expected)
    assert list(result.declined.values()) == because
    np.testing.assert_allclose(answers(model, x=x, z=z)["y"], before, rtol=1e-6, atol=1e-6)
    assert not recognize(model, for_target=True).modified


INSTANCES = """<ir_version: 8, opset_import: ["" : 17]>
main (float[N,C,H,W] x) => (float[N,C,H,W] y) {
  m = ReduceMean <axes = [AXES]> (x)
  d = Sub(x, m)
  q = Mul(d, d)
  v = ReduceMean <axes = [AXES]> (q)
  w = Add(v, fifth)
  s = Sqrt(w)
  n = Div(d, s)
  f = Mul(n, gain)
  y = Add(f, bias)
}
"""


@pytest.mark.parametrize(
    ("axes", "channels", "because"),
    [
        ("2, 3", "4", ""),
        ("-2, -1", "4", ""),
        ("POOL", "4", ""),
        ("2, 3", "C", "what it normalizes is not known to have channels, so and so many"),
        ("1, 3", "4", "it is not over all places of a channel"),
    ],
)
def test_an_instance_normalization(
    axes: str, channels: str, because: str, build: Build, answers: Answers
) -> None:
    rng = np.random.default_rng(0)
    affine = {name: rng.normal(size=(4, 1, 1)).astype(np.float32) for name in ("gain", "bias")}
    text = INSTANCES.replace("AXES", axes).replace("C,", f"{channels},")
    text = text.replace("ReduceMean <axes = [POOL]>", "GlobalAveragePool")
    model = build(text, fifth=np.float32(0.2), **affine)
    x = rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    before = answers(model, x=x)["y"]

    result = recognize(model)

    assert list(result.declined.values()) == ([because] if because else [])
    kinds = [node.op_type for node in model.graph]
    assert result.modified == (kinds == ["InstanceNormalization", "Mul", "Add"]) == (not because)
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("axes", "expected"), [("2, 3", True), ("-1, -2", True), ("1, 2", False)])
def test_a_mean_after_a_convolution(
    axes: str, expected: bool, build: Build, answers: Answers
) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    model = build(IMAGE.replace("AXES", axes), w=weight)
    x = np.random.default_rng(1).normal(size=(2, 2, 6, 6)).astype(np.float32)
    before = answers(model, x=x)["y"]

    assert not recognize(model).modified
    result = recognize(model, for_target=True)

    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-6)
    assert (model.graph[-1].op_type == "GlobalAveragePool") == result.modified == expected


def test_a_thousand_take_time_in_proportion(build: Build) -> None:
    step = (
        "a{0} = Add(v{0}, n3) c{0} = Clip(a{0}, n0, n6) m{0} = Mul(v{0}, c{0}) v{1} = Div(m{0}, n6)"
    )
    body = "v0 = Neg(x) " + " ".join(step.format(i, i + 1) for i in range(500)) + " y = Neg(v500)"
    model = model_of(build, body)

    result = recognize(model)

    assert result.details == {"HardSwish": 500}
    assert len(model.graph) == 502
    assert not model.graph.initializers


def test_no_gelu_of_a_tensor_without_axes(build: Build, answers: Answers) -> None:
    """ONNX Runtime's FastGelu fails on one."""
    body = "u = Mul(x, x) c = Mul(u, x) k = Mul(c, cubic) a = Add(x, k) s = Mul(a, slope)"
    body += " t = Tanh(s) b = Add(t, one) h = Mul(x, b) y = Mul(h, half)"
    numbers = {"cubic": 0.044715, "slope": 0.7978845608, "one": 1.0, "half": 0.5}
    constants = {name: np.float32(number) for name, number in numbers.items()}
    head = '<ir_version: 9, opset_import: ["" : 17]>'
    scalar = build(f"{head} g (float x) => (float y) {{ {body} }}", **constants)
    vector = build(f"{head} g (float[N] x) => (float[N] y) {{ {body} }}", **constants)

    result = recognize(scalar, for_target=True)

    assert list(result.declined.values()) == ["what it computes on is not known to have an axis"]
    assert np.isfinite(answers(scalar, x=np.array(1, np.float32))["y"])
    assert recognize(vector, for_target=True).modified
