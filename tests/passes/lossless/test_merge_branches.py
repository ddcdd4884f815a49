"""MergeBranches: one Conv instead of a sum of branches, same answers, or a stated reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.merge_branches import MergeBranches

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

SHAPES: dict[str, tuple[int, ...]] = {
    "w1": (4, 4, 1, 1),
    "w3": (4, 4, 3, 3),
    "w4": (4, 4, 4, 4),
    "w5": (4, 4, 5, 5),
    "w6": (4, 4, 6, 6),
    "one": (1, 4, 1, 1),
    "zeros": (4, 1, 1),
    "huge": (4, 4, 1, 1),
    "w13": (4, 4, 1, 3),
    "w31": (4, 4, 3, 1),
    "d1": (4, 1, 1, 1),
    "d3": (4, 1, 3, 3),
    "d5": (4, 1, 5, 5),
    "g3": (4, 2, 3, 3),
    "wide": (8, 4, 3, 3),
    "wide1": (8, 4, 1, 1),
    "b": (4,),
    "c": (4, 1, 1),
    "c1": (1, 4, 1, 1),
    "full": (4, 6, 6),
    "k": (),
    "row": (6,),
    **dict.fromkeys(("gamma", "beta", "mean", "var", "low"), (4,)),
}
BN = "BatchNormalization (x, gamma, beta, mean, var)"
PAD3, PAD5 = "Conv <pads = [1,1,1,1]>", "Conv <pads = [2,2,2,2]>"
DEPTHWISE3 = "Conv <pads = [1,1,1,1], group = 4>"


def constants(text: str, dtype: Any = np.float32, seed: int = 0) -> dict[str, Array]:
    """Random values for the names that ``text`` reads and does not make."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    made["var"] = np.abs(made["var"]) + 0.5
    made["low"] = -made["var"]
    made["zeros"] *= 0
    made["huge"] += np.inf
    used = {name: made[name] for name in made if re.search(rf"\b{name}\b", text)}
    return {name: np.asarray(array, dtype) for name, array in used.items()}


def model_text(body: str, opset: int = 17, sizes: str = "2,4,6,6", kind: str = "float") -> str:
    return f"""<ir_version: 8, opset_import: ["" : {opset}]>
    main ({kind}[{sizes}] x, {kind}[{sizes}] z) => ({kind}[a,b,c,d] y) {{ {body} }}"""


def merge(model: ir.Model) -> Result:
    return MergeBranches().rewrite(model, Context())


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def sample(*shape: int, seed: int = 9, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def check(model: ir.Model, answers: Answers, *shape: int) -> Result:
    """Merge; the answers are as before, and merging again changes nothing."""
    feeds = {"x": sample(*(shape or (2, 4, 6, 6))), "z": sample(*(shape or (2, 4, 6, 6)), seed=8)}
    before = answers(model, **feeds)
    result = merge(model)
    onnx.checker.check_model(ir.to_proto(model))
    after = answers(model, **feeds)
    for name, old in before.items():
        np.testing.assert_allclose(after[name], old, rtol=1e-4, atol=1e-5 * np.abs(old).max())
    if result.modified:
        text = ir.to_onnx_text(model)
        assert not merge(model).modified
        assert ir.to_onnx_text(model) == text
    return result


def test_the_graph_that_is_left(build: Build, answers: Answers) -> None:
    body = f"p = {PAD3} (x, w3, b) q = Conv (x, w1) r = {BN} s = Add (p, q) y = Add (r, s)"
    model = build(model_text(body), **constants(body))

    result = check(model, answers)

    assert result.rewritten == ["Add -> y"]
    assert re.sub(r"\s+", " ", ir.to_onnx_text(model)).rsplit("{", 1)[1] == (
        " y = Conv <pads: ints = [1, 1, 1, 1], group: int = 1, kernel_shape: ints = [3, 3],"
        ' strides: ints = [1, 1], dilations: ints = [1, 1]> (x, "y.weight", "y.bias") }'
    )
    assert list(model.graph.initializers) == ["y.weight", "y.bias"]


MERGED = {
    "1x1 into 3x3": f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add (p, q)",
    "the smaller one first": f"p = Conv (x, w1, b) q = {PAD3} (x, w3) y = Add (p, q)",
    "3x3 into 5x5": f"p = {PAD5} (x, w5) q = {PAD3} (x, w3, b) y = Add (p, q)",
    "off the middle": "p = Conv <pads = [2,0,0,2]> (x, w3) q = Conv <pads = [1,0,1,0]> (x, w31)"
    " y = Add (p, q)",
    "ACNet": f"p = {PAD3} (x, w3) q = Conv <pads = [0,1,0,1]> (x, w13) r = Conv <pads ="
    " [1,0,1,0]> (x, w31)"
    " s = Add (q, r) y = Add (s, p)",
    "twice the same": "p = Conv (x, w1) q = Conv (x, w1) y = Add (p, q)",
    "a shortcut": f"p = {PAD3} (x, w3) y = Add (x, p)",
    "two shortcuts": "p = Conv (x, w1) q = Add (x, x) y = Add (p, q)",
    "depthwise": f"p = {DEPTHWISE3} (x, d3) q = Conv <group = 4> (x, d1) r = Add (q, x) y = Add"
    " (p, r)",
    "depthwise into dense": f"p = {PAD3} (x, w3) q = {DEPTHWISE3} (x, d3) y = Add (p, q)",
    "grouped into dense": f"p = {PAD3} (x, w3) q = Conv <pads = [1,1,1,1], group = 2> (x, g3) y"
    " = Add (p, q)",
    "a shortcut over groups": "p = Conv <pads = [1,1,1,1], group = 2> (x, g3) y = Add (p, x)",
    "dilated into what covers it": f"p = {PAD5} (x, w5) q = Conv <pads = [2,2,2,2], dilations ="
    " [2,2]>"
    " (x, w3) y = Add (p, q)",
    "both dilated": "p = Conv <pads = [2,2,2,2], dilations = [2,2]> (x, w3) y = Add (p, x)",
    "strides": "p = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w3) q = Conv <strides = [2,2]>"
    " (x, w1)"
    " y = Add (p, q)",
    "a scaled shortcut": f"p = {PAD3} (x, w3) q = Mul (c, x) y = Add (p, q)",
    "maps on top of maps": f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Div (q, c1) s = Sub (c, r)"
    " t = Neg (s) u = Add (t, k) v = Identity (u) m = Mul (p, k) o = Sub (m, k) y = Add (v, o)",
    "normalized branches": f"p = {PAD3} (x, w3) q = BatchNormalization (p, gamma, beta, mean, var)"
    " y = Add (q, x)",
    "constants in the sum": f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Sum (c, p, k, q)",
    "a sum": f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Sum (p, x, q, x)",
    "differences": f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Sub (p, q) y = Sub (r, x)",
    "a shortcut less a Conv": f"p = {PAD3} (x, w3) y = Sub (x, p)",
    "a constant less": f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Sub (q, c) y = Sub (r, p)",
    "pooled": f"p = {PAD3} (x, w3) q = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1],"
    " count_include_pad = 1> (x) y = Add (p, q)",
    "pooled without padding": "p = Conv (x, w3) q = AveragePool <kernel_shape = [3,3]> (x) y ="
    " Add (p, q)",
    "SAME": "p = Conv <auto_pad = \"SAME_UPPER\"> (x, w3) q = Conv (x, w1) y = Add (p, q)",
    "VALID": "p = Conv <auto_pad = \"VALID\"> (x, w3) q = Conv <auto_pad = \"VALID\"> (x, w3) y"
    " = Add (p, q)",
    "SAME with strides": "p = Conv <auto_pad = \"SAME_LOWER\", strides = [2,2]> (x, w3)"
    " q = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, w5) y = Add (p, q)",
    "sizes that happen to agree": "p = Conv <strides = [2,2]> (x, w3)"
    " q = Conv <strides = [2,2]> (x, w4) y = Add (p, q)",
    "inside a map": f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Add (p, q) s = Mul (r, c) y = Add"
    " (s, x)",
}  # fmt: skip


@pytest.mark.parametrize("body", MERGED.values(), ids=MERGED)
def test_everything_becomes_one(body: str, build: Build, answers: Answers) -> None:
    model = build(model_text(body), **constants(body))

    check(model, answers)

    assert kinds(model) == ["Conv"]
    assert {name.split(".")[0] for name in model.graph.initializers} == {"y"}


PARTS = {
    "another branch in between": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Add (p, z) y = Add (s, q)",
        ["Conv", "Add"],
    ),
    "Sum": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Sum (z, p, full, q, row)",
        ["Conv", "Sum"],
    ),
    "two groups": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Conv (z, w1) s = Add (p, r) t = Add (q, z)"
        " y = Add (s, t)",
        ["Conv", "Conv", "Add"],
    ),
    "less another": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Sub (q, z) y = Add (s, p)",
        ["Conv", "Sub"],
    ),
    "another less": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Sub (z, q) y = Sub (s, p)",
        ["Conv", "Sub"],
    ),
    "what reads the sum stands before the larger Conv": (
        f"q = Conv (x, w1) s = Sub (q, z) t = Relu (s) p = {PAD3} (x, w3) r = Conv (x, w1)"
        " u = Sub (r, t) y = Add (p, u)",
        ["Conv", "Sub", "Relu", "Conv", "Sub"],
    ),
    "two kinds of kernels": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Conv <pads = [3,3,3,3], dilations = [3,3]>"
        " (x, w3)"
        " s = Conv <pads = [3,3,3,3], dilations = [3,3]> (x, w3) t = Add (p, r) u = Add (q, s)"
        " y = Add (t, u)",
        ["Conv", "Conv", "Add"],
    ),
    "Flatten reads it": (
        f"p = {PAD3} (x, w3) q = Add (x, p) y = Flatten (q)",
        ["Conv", "Flatten"],
    ),
    "a broadcast sum": (
        "m = GlobalAveragePool (z) p = Conv (x, w1) s = Add (m, x) y = Add (s, p)",
        ["GlobalAveragePool", "Conv", "Add"],
    ),
}


@pytest.mark.parametrize(("body", "left"), PARTS.values(), ids=PARTS)
def test_what_cannot_be_merged_stays(
    body: str, left: list[str], build: Build, answers: Answers
) -> None:
    text = model_text(body).replace("[a,b,c,d]", "[a,b]") if "Flatten" in body else model_text(body)
    model = build(text, **constants(body))

    result = check(model, answers)

    assert result.modified
    assert kinds(model) == left


REFUSED = {
    "one window for its branches would take more multiplications": (
        "p = Conv <pads = [0,1,0,1]> (x, w13) q = Conv <pads = [1,0,1,0]> (x, w31) y = Add (p, q)",
        f"p = {PAD3} (x, w3) q = Conv <pads = [2,2,2,2], dilations = [2,2]> (x, w3) y = Add (p, q)",
        f"p = Conv (x, w1) q = {DEPTHWISE3} (x, d3) y = Add (p, q)",
        "p = Conv (x, w1) q = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1],"
        " count_include_pad = 1> (x) y = Add (p, q)",
    ),
    "its branches have different strides": (
        f"p = {PAD3} (x, w3) q = Conv <strides = [2,2], pads = [5,5,0,0]> (x, w1) y = Add (p, q)",
        "p = Conv <strides = [8,1]> (x, w1) y = Add (p, x)",
    ),
    "its branches have different numbers of channels": (
        f"p = {PAD3} (x, w3) q = Conv (x, one) y = Add (p, q)",
        "p = Conv (x, one) y = Add (p, x)",
    ),
    "its branches are not known to answer with the same sizes": (
        "p = Conv (x, w6) q = Conv (x, w1) y = Add (p, q)",
    ),
    "AveragePool divides by less where it pads": (
        f"p = {PAD3} (x, w3) q = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)"
        " y = Add (p, q)",
        f"p = {PAD3} (x, w3) q = AveragePool <kernel_shape = [3,3], auto_pad = \"SAME_UPPER\"> (x)"
        " y = Add (p, q)",
    ),
    "AveragePool rounds its sizes up": (
        "p = Conv (x, w3) q = AveragePool <kernel_shape = [3,3], ceil_mode = 1> (x) y = Add (p, q)",
    ),
    "the weight of Conv is not constant": (
        f"v = Relu (w1) p = {PAD3} (x, w3) q = Conv (x, v) y = Add (p, q)",
    ),
    "Mul has no single constant per channel": (
        f"p = {PAD3} (x, w3) q = Mul (x, full) y = Add (p, q)",
        f"p = {PAD3} (x, w3) q = Mul (x, row) y = Add (p, q)",
    ),
    "Add has no single constant per channel": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) r = Add (q, row) s = Neg (r) y = Add (p, s)",
    ),
    "a variance plus epsilon is not positive": (
        f"p = {PAD3} (x, w3) q = BatchNormalization (x, gamma, beta, mean, low) y = Add (p, q)",
    ),
    "it runs in training mode": (
        f"p = {PAD3} (x, w3) q, m, v = BatchNormalization <training_mode = 1>"
        " (x, gamma, beta, mean, var) y = Add (p, q)",
    ),
    "what it answers is read elsewhere as well": (
        f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Add (p, q) t = Relu (q) y = Sub (s, t)",
    ),
    "what Div scales or shifts by is not finite": (
        f"p = {PAD3} (x, w3) q = Div (x, zeros) y = Add (p, q)",
    ),
    "a weight of Conv is not finite": (
        f"p = {PAD3} (x, w3) q = Conv (x, huge) y = Add (p, q)",
    ),
    "only what is subtracted would be left": (
        "p = Conv (x, w1) q = Conv (x, w1) s = Sub (p, z) t = Sub (q, z) y = Add (s, t)",
    ),
}  # fmt: skip
CASES = [(reason, body) for reason, bodies in REFUSED.items() for body in bodies]


@pytest.mark.parametrize(("reason", "body"), CASES)
def test_refusals(reason: str, body: str, build: Build) -> None:
    model = build(model_text(body), **constants(body))
    before = ir.to_onnx_text(model)

    result = merge(model)

    assert not result.modified
    assert reason in result.declined.values()
    assert ir.to_onnx_text(model) == before


ALONE = {
    "different inputs": f"p = {PAD3} (x, w3) q = Conv (z, w1) y = Add (p, q)",
    "no Conv": f"q = {BN} y = Add (q, x)",
    "a residual block": f"p = {PAD3} (x, w3) r = Relu (p) q = Conv (r, w1) y = Add (x, q)",
    "one Conv and a constant": f"p = {PAD3} (x, w3) y = Add (p, c)",
    "constants": "q = Add (c, c) y = Add (x, q)",
    "a weight that is fed": f"p = {PAD3} (x, w3) q = Conv (x, z) y = Add (p, q)",
}


@pytest.mark.parametrize("body", ALONE.values(), ids=ALONE)
def test_nothing_to_merge(body: str, build: Build) -> None:
    model = build(model_text(body), **constants(body))

    assert not merge(model).modified


def test_the_smaller_sum_is_an_output_too(build: Build, answers: Answers) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Add (p, q) y = Add (s, x)"
    text = model_text(body).replace("y)", "y, float[a,b,c,d] s)")
    model = build(text, **constants(body))

    check(model, answers)

    assert kinds(model) == ["Conv", "Add"]
    assert [value.name for value in model.graph.outputs] == ["y", "s"]


def test_a_branch_that_is_an_output_stays(build: Build) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add (p, q)"
    model = build(model_text(body).replace("y)", "y, float[a,b,c,d] q)"), **constants(body))

    assert not merge(model).modified


def test_a_weight_that_can_be_fed_is_not_constant(build: Build) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add (p, q)"
    text = model_text(body).replace(" z)", " z, float[4,4,1,1] w1)")
    model = build(text, **constants(body))

    result = merge(model)

    assert not result.modified
    assert result.declined == {"Add -> y": "the weight of Conv is not constant"}


def test_shared_weights_are_left_to_their_other_readers(build: Build, answers: Answers) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) s = Add (p, q) t = Relu (s) y = {PAD3} (t, w3)"
    model = build(model_text(body), **constants(body))

    result = check(model, answers)

    assert result.details == {"duplicated_bytes": 4 * 4 * 9 * 4}
    assert list(model.graph.initializers) == ["w3", "s.weight"]


def test_sizes_that_are_not_known(build: Build, answers: Answers) -> None:
    body = (
        'p = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w3)'
        ' q = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w1) y = Add (p, q)'
    )
    model = build(model_text(body, sizes="n,4,h,w"), **constants(body))

    result = merge(model)

    assert not result.modified
    assert set(result.declined.values()) == {"how Conv pads depends on sizes that are not known"}


def test_sizes_that_nothing_says_are_not_needed(build: Build, answers: Answers) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Sum (x, p, q)"
    model = build(model_text(body, sizes="n,m,h,w"), **constants(body))

    assert check(model, answers, 3, 4, 5, 1).modified


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 14, 19, 22])
def test_every_version(opset: int, build: Build, answers: Answers) -> None:
    body = MERGED["pooled"].replace("y =", f"r = {BN} s =") + " y = Add (s, r)"
    model = build(model_text(body, opset), **constants(body))

    check(model, answers)

    assert kinds(model) == ["Conv"]


def test_old_broadcasting_is_left_alone(build: Build) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add <broadcast = 1> (p, q)"
    model = build(model_text(body, 6), **constants(body))

    assert not merge(model).modified


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int, build: Build, answers: Answers) -> None:
    sizes = (2, 4, *[5] * rank)
    pads = ",".join("1" * 2 * rank)
    body = f"p = Conv <pads = [{pads}]> (x, w) q = Conv (x, v) r = {BN} y = Sum (p, q, r, x)"
    text = model_text(body, sizes=",".join(map(str, sizes))).replace(
        "a,b,c,d", ",".join("abcdefg"[: rank + 2])
    )
    given = {"w": sample(4, 4, *[3] * rank), "v": sample(4, 4, *[1] * rank)}
    model = build(text, **constants(body), **given)

    check(model, answers, *sizes)

    assert kinds(model) == ["Conv"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_types(dtype: Any, build: Build) -> None:
    kind = "double" if dtype is np.float64 else np.dtype(dtype).name
    body = f"p = {PAD3} (x, w3, b) q = Conv (x, w1) s = Mul (x, c) y = Sum (p, q, s)"
    model = build(model_text(body, kind=kind), **constants(body, dtype))
    wide = {name: array.astype(np.float64) for name, array in constants(body, dtype).items()}
    expected = wide["w3"].copy()
    expected[:, :, 1, 1] += wide["w1"][:, :, 0, 0] + np.diag(wide["c"].reshape(-1))

    assert merge(model).modified

    weight = model.graph.initializers["y.weight"].const_value
    assert weight is not None
    exact = expected.astype(dtype)
    np.testing.assert_allclose(weight.numpy(), exact, rtol=1e-14 if dtype is np.float64 else 0)


def test_what_half_precision_cannot_hold_stays(build: Build) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add (p, q)"
    given = constants(body, np.float16)
    given = {name: np.full_like(array, 6e4) for name, array in given.items()}
    model = build(model_text(body, kind="float16"), **given)

    result = merge(model)

    assert not result.modified
    assert list(result.declined.values()) == ["the folded weights are too large for float16"]


def test_a_quantized_branch_stays(build: Build) -> None:
    body = f"v = DequantizeLinear (w8, k) p = {PAD3} (x, w3) q = Conv (x, v) y = Add (p, q)"
    model = build(model_text(body), **constants(body), w8=np.ones((4, 4, 1, 1), np.int8))

    result = merge(model)

    assert not result.modified
    assert list(result.declined.values()) == ["the weight of Conv is quantized"]


FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
main (float[1,1,4,4] x) => (float[1,1,4,4] y) { y = local.block <p = [0,0,0,0]> (x) }
<domain: "local", opset_import: ["" : 17]>
block <p> (x) => (y) {
  v = Constant <value = float[1,1,1,1] {3}> ()
  a = Conv (x, v)
  s = Sub (a, x)
  w = Constant <value = float[1,1,3,3] {1,2,3,4,5,6,7,8,9}> ()
  c = Conv <pads = [1,1,1,1]> (x, w)
  y = Sub (s, c)
}"""


def test_a_function_gets_constant_nodes(build: Build, answers: Answers) -> None:
    model = build(FUNCTION)
    x = sample(1, 1, 4, 4)
    before = answers(model, x=x)["y"]

    assert merge(model).modified

    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Conv"]
    np.testing.assert_allclose(answers(model, x=x)["y"], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("old", ["v)", "x, w)"])
def test_attributes_given_by_the_caller_are_not_known(old: str, build: Build) -> None:
    text = FUNCTION.replace("Conv <pads = [1,1,1,1]> (x, w)", "Conv <pads: ints = @p> (x, v)")
    model = build(text)

    assert merge(model).modified  # the other Conv and what it reads

    (function,) = model.functions.values()
    assert [node.op_type for node in function if node.op_type != "Constant"] == [
        "Conv",
        "Conv",
        "Sub",
    ]


def test_inside_a_branch(build: Build, answers: Answers) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (float[2,4,6,6] x, bool flag) => (float[2,4,6,6] y) {
      outer = Conv (x, w1)
      y = If (flag) <
        then_branch = yes () => (float[2,4,6,6] m) {
          p = Conv <pads = [1,1,1,1]> (x, w3) q = Conv (x, w1) s = Add (p, q) m = Add (s, outer)
        },
        else_branch = no () => (float[2,4,6,6] n) { n = Add (x, outer) }
      >
    }"""
    model = build(text, **constants(text))
    x = sample(2, 4, 6, 6)
    before = [answers(model, x=x, flag=np.array(flag))["y"] for flag in (True, False)]

    assert merge(model).modified

    branch = model.graph[1].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Conv", "Add"]
    assert list(branch.initializers) == ["m.weight"]
    for flag, old in zip((True, False), before, strict=True):
        now = answers(model, x=x, flag=np.array(flag))["y"]
        np.testing.assert_allclose(now, old, rtol=1e-4, atol=1e-4)


def test_the_declared_output_stays(build: Build) -> None:
    body = f"p = {PAD3} (x, w3) q = Conv (x, w1) y = Add (p, q)"
    model = build(model_text(body).replace("[a,b,c,d]", "[batch,4,h,w]"), **constants(body))
    model.graph[0].outputs[0].shape = ir.Shape([7, 7])

    assert merge(model).modified
    assert str(model.graph.outputs[0].shape) == "[batch,4,h,w]"


@st.composite
def blocks(draw: st.DrawFn) -> tuple[str, dict[str, Array], Array]:
    """Branches over one input, what they read and a sample."""
    rank, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 2, 4]))
    seed = draw(st.integers(0, 1000))
    known: dict[str, Array] = {}
    lines = []
    for index in range(draw(st.integers(1, 4))):
        own = draw(st.sampled_from([groups, 4, 1]))
        kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
        dilation = draw(st.integers(1, 2))
        begins = [draw(st.integers(0, dilation * (taps - 1))) for taps in kernel]
        ends = [dilation * (t - 1) - begin for t, begin in zip(kernel, begins, strict=True)]
        attributes = (
            f"<group={own}, strides={[stride] * rank}, pads={begins + ends},"
            f" dilations={[dilation] * rank}>"
        )
        known[f"w{index}"] = sample(4, 4 // own, *kernel, seed=seed + index)
        bias = f", b{index}" if draw(st.booleans()) else ""
        known |= {f"b{index}": sample(4, seed=seed + 9 + index)} if bias else {}
        lines.append(f"t{index} = Conv {attributes} (x, w{index}{bias})")
    names = [f"t{index}" for index in range(len(lines))]
    names += draw(st.sampled_from([[], ["x"], ["k"], ["x", "k"]])) if stride == 1 else []
    known |= {"k": sample(4, *[1] * rank, seed=seed + 20)} if "k" in names else {}
    names = draw(st.permutations(names))
    left = names[0]
    for index, name in enumerate(names[1:]):
        kind, flip = draw(st.sampled_from(["Add", "Sub", "Sum"])), draw(st.booleans())
        pair = f"{name}, {left}" if flip else f"{left}, {name}"
        left = f"s{index}"
        lines.append(f"{left} = {kind} ({pair})")
    lines.append(f"y = Identity ({left})")
    sizes = ",".join(["2", "4", *["h"] * rank])
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    main (float[{sizes}] x) => (float[{",".join("abcd"[: rank + 2])}] y) {{ {" ".join(lines)} }}"""
    return text, known, sample(2, 4, *[7] * rank, seed=seed + 3)


@settings(max_examples=80, deadline=None)
@given(blocks())
def test_any_branches_keep_their_sum(case: tuple[str, dict[str, Array], Array]) -> None:
    text, known, x = case
    proto = onnx.parser.parse_model(text)
    for name, array in known.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)

    def run() -> Array:
        return session_of(model, SessionConfig(level="disabled", threads=1)).run({"x": x})["y"]

    old = run()
    merge(model)
    np.testing.assert_allclose(run(), old, rtol=2e-5, atol=2e-5 * float(np.abs(old).max()))
