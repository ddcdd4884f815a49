"""Float16: 16 bits wherever ONNX has them, float where it has not, one Cast at each border."""

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxpress.backends.errors import PassError, UsageError
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.quantization.float16 import Float16

WEIGHTS: dict[str, tuple[int, ...]] = {
    "w": (16, 12), "v": (12, 16), "b": (12,), "k": (8, 4, 3, 3), "s": (16,), "t": (16,),
}  # fmt: skip
ROWS = "(float[n,16] x) => (float[n,m] y)"
IMAGE = "(float[n,4,8,8] x) => (float[n,8,p,q] y)"


def build(signature: str, body: str, opset: int = 17, **more: Array) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    arrays |= {
        "sizes": np.array([1, 1, 1.3333334, 1.3333334], np.float32),
        "two": np.array(2, np.float32), "none": np.array([], np.float32),
        "mask": np.array(-3.4e38, np.float32), "axes": np.array([1], np.int64),
    }  # fmt: skip
    arrays |= more
    used = {name for name in re.findall(r"\w+", body) if name in arrays}
    domain = ', "com.microsoft" : 1' if "com.microsoft" in body else ""
    text = f'<ir_version: 8, opset_import: ["" : {opset}{domain}]>\nmain {signature} {{\n{body}\n}}'
    tensors = [ir.tensor(arrays[name], name=name) for name in sorted(used)]
    model = ir.from_onnx_text(text, initializers=tensors)
    return ir.from_proto(ir.to_proto(model))  # so that every branch finds the outer weights


def feeds(model: ir.Model, factor: float = 1) -> dict[str, Array]:
    (value,) = model.graph.inputs
    assert value.shape is not None
    shape = [size if isinstance(size, int) else 5 for size in value.shape]
    values = np.random.default_rng(1).normal(size=shape) * factor
    return {value.name or "": values.astype(np.float32)}


def reference_answer(model: ir.Model, fed: dict[str, Array]) -> Array:
    """What ONNX's own evaluator answers, which computes in 16 bits where ONNX Runtime casts."""
    with np.errstate(all="ignore"):
        answers: Any = ReferenceEvaluator(ir.to_proto(model)).run(None, fed)
    return np.asarray(answers[0])


def operators(model: ir.Model) -> str:
    return " ".join(node.op_type for node in model.graph)


def convert(model: ir.Model, data: Any = None, **options: Any) -> Any:
    return Float16(**options).rewrite(model, Context(target=Target("cuda"), data=data))


WHOLE = {
    "layers": (ROWS, "a = MatMul (x, w)\n c = Add (a, b)\n r = Relu (c)\n y = MatMul (r, v)",
               "Cast MatMul Add Relu MatMul Cast"),
    "a Gemm": (ROWS, "y = Gemm (x, w, b)", "Cast Gemm Cast"),
    "a Conv": (IMAGE, "c = Conv <pads = [1,1,1,1]> (x, k)\n y = Sigmoid (c)",
               "Cast Conv Sigmoid Cast"),
    "a normalization": (ROWS, "y = LayerNormalization (x, s, t)", "Cast LayerNormalization Cast"),
    "a border": (
        IMAGE,
        "c = Conv <pads = [1,1,1,1]> (x, k)\n r = Resize (c, none, sizes)\n y = Relu (r)",
        "Cast Conv Cast Resize Cast Relu Cast",
    ),
    "two readers behind a border": (
        IMAGE,
        "c = Conv <pads = [1,1,1,1]> (x, k)\n r = Resize (c, none, sizes)\n n = Neg (r)\n"
        "e = Exp (n)\n d = Tanh (r)\n y = Add (e, d)",
        "Cast Conv Cast Resize Cast Neg Exp Tanh Add Cast",
    ),
    "a Constant": (ROWS, "c = Constant <value = float {0.5}> ()\n y = Mul (x, c)", "Cast Mul Cast"),
    "a Constant read in float": (
        IMAGE,
        "z = Constant <value = float[4] {1, 1, 1.3333334, 1.3333334}> ()\n"
        "c = Conv <pads = [1,1,1,1]> (x, k)\n y = Resize (c, none, z)",
        "Cast Constant Conv Cast Resize",
    ),
    "a Cast that was there": (
        ROWS,
        "c = Cast <to = 10> (x)\n d = Cast <to = 1> (c)\n y = Relu (d)",
        "Cast Relu Cast",
    ),
    "integers": (
        ROWS,
        "m = ArgMax <axis = 1> (x)\n f = Cast <to = 1> (m)\n y = Add (f, x)",
        "Cast ArgMax Cast Add Cast",
    ),
    "shapes and fills": (
        ROWS,
        "h = Shape (x)\n f = ConstantOfShape <value = float[1] {2}> (h)\n y = Mul (f, x)",
        "Cast Shape ConstantOfShape Mul Cast",
    ),
    "of ONNX Runtime": (
        ROWS, "a = MatMul (x, w)\n y = com.microsoft.Gelu (a)", "Cast MatMul Gelu Cast",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_operators_run_in_16_bits_between_as_few_casts_as_it_takes(
    name: str, run: Any, run_fused: Any, decibels: Any
) -> None:
    signature, body, expected = WHOLE[name]
    model = build(signature, body)
    fed = feeds(model)
    (before,) = run(model, fed)
    result = convert(model)
    assert operators(model) == expected
    assert result.modified
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == ir.DataType.FLOAT
    for answers in (run(model, fed), run_fused(model, fed)):
        assert decibels(before, answers[0]) > 45
    assert not convert(model).modified
    assert operators(model) == expected


@pytest.mark.parametrize("opset", [9, 13, 21])
def test_weights_are_stored_in_16_bits(opset: int, run: Any, decibels: Any) -> None:
    model = build(ROWS, "a = MatMul (x, w)\n y = MatMul (a, v)", opset)
    fed = feeds(model)
    (before,) = run(model, fed)
    convert(model)
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT16}
    assert len(model.graph.initializers) == 2
    assert decibels(before, run(model, fed)[0]) > 45


def test_bfloat16_is_valid(decibels: Any) -> None:
    model = build(ROWS, "a = MatMul (x, w)\n c = Add (a, b)\n y = Relu (c)")
    fed = feeds(model)
    reference = reference_answer(model, fed)
    convert(model, type="bfloat16")
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert operators(model) == "Cast MatMul Add Relu Cast"
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.BFLOAT16}
    assert decibels(reference, reference_answer(model, fed)) > 30


def test_inputs_and_outputs_follow_where_they_may() -> None:
    model = build(ROWS, "a = MatMul (x, w)\n y = Relu (a)")
    convert(model, keep_io=False)
    assert operators(model) == "MatMul Relu"
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == ir.DataType.FLOAT16
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_an_output_that_is_read_keeps_its_name(run: Any, decibels: Any) -> None:
    model = build(
        "(float[n,4,8,8] x) => (float[n,8,p,q] y, float[n,8,8,8] c)",
        "c = Conv <pads = [1,1,1,1]> (x, k)\n r = Resize (c, none, sizes)\n y = Relu (r)",
    )
    fed = feeds(model)
    before = run(model, fed)
    convert(model)
    assert [value.name for value in model.graph.outputs] == ["y", "c"]
    assert operators(model) == "Cast Conv Cast Resize Cast Relu Cast"
    for one, other in zip(before, run(model, fed), strict=True):
        assert decibels(one, other) > 45


def test_branches_are_converted_and_keep_their_borders(run: Any, decibels: Any) -> None:
    model = build(
        ROWS,
        "total = ReduceSum <keepdims = 0> (x)\n c = Greater (total, two)\n n = Neg (x)\n"
        "y = If (c) <then_branch = one () => (float[n,m] p) { p = MatMul (n, w) },\n"
        "else_branch = two () => (float[n,m] q) { e = Exp (n)\n q = MatMul (e, w) }>",
    )
    for factor in (1, -1, 3):
        fed = feeds(model, factor)
        (before,) = run(model, fed)
        converted = model.clone()
        result = convert(converted)
        assert len(converted.graph.initializers) == 2  # the float ones are gone
        assert decibels(before, run(converted, fed)[0]) > 45
    assert result.declined == {"If -> y": "If does not run in float16"}


def test_masks_become_the_lowest_number(run: Any) -> None:
    model = build(ROWS, "h = Abs (x)\n y = Sub (mask, h)")
    convert(model)
    (answer,) = run(model, feeds(model))
    assert np.isfinite(answer).all()
    assert (answer <= -65000).all()


def test_what_overflows_stays_in_float(samples: Any, run: Any, decibels: Any) -> None:
    body = "h = MatMul (x, w)\n p = Mul (h, h)\n q = Mul (p, p)\n r = Sqrt (q)\n y = Sqrt (r)"
    fed = feeds(build(ROWS, body), 8)
    model = build(ROWS, body)
    (before,) = run(model, fed)
    convert(model)
    assert not np.isfinite(reference_answer(model, fed)).all()
    model = build(ROWS, body)
    result = convert(model, samples(fed))
    assert result.details["largest"] > 65504
    assert set(result.declined.values()) == {"values beyond half of the largest number go through"}
    assert decibels(before, run(model, fed)[0]) > 45
    assert decibels(before, reference_answer(model, fed)) > 45


@pytest.mark.parametrize(
    ("scale", "reason"), [(1e6, "a weight of .* overflows"), (1e-9, "all of its weights vanish")]
)
def test_weights_that_do_not_fit_stay_in_float(
    scale: float, reason: str, run: Any, decibels: Any
) -> None:
    rng = np.random.default_rng(0)
    big = (rng.normal(size=(16, 12)) * scale).astype(np.float32)
    model = build(ROWS, "a = MatMul (x, big)\n y = Mul (a, b)", big=big)
    assert re.match(reason, next(iter(convert(model).declined.values())))
    small = build(ROWS, "a = MatMul (x, big)\n y = Mul (a, b)", big=big)
    result = Float16(size_only=True).rewrite(small, Context())
    assert re.match(reason, result.declined.get("big", "a weight of 1 overflows")) or scale < 1


def test_blocked_operators_stay_in_float() -> None:
    body = "a = MatMul (x, w)\n c = Softmax (a)\n y = MatMul (c, v)"
    for pattern in ("Softmax", "c"):
        model = build(ROWS, body)
        result = convert(model, blocked=(pattern,))
        assert operators(model) == "Cast MatMul Cast Softmax Cast MatMul Cast"
        assert list(result.declined.values()) == ["it is blocked"]
    with pytest.raises(PassError, match="fits 'Conv'"):
        convert(build(ROWS, body), blocked=("Conv",))


def test_double_and_what_is_of_16_bits_stay_as_they_are() -> None:
    model = build(
        "(float[n,16] x, double[n] d, float16[n] h) => (float[n,16] y, double[n] e, float16[n] g)",
        "y = Relu (x)\n e = Relu (d)\n g = Relu (h)",
    )
    convert(model)
    assert operators(model) == "Cast Relu Cast Relu Relu"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_cpu_is_refused_and_told_what_it_can_have() -> None:
    model = build(ROWS, "y = MatMul (x, w)")
    with pytest.raises(PassError, match="is slower; size_only"):
        Float16().rewrite(model, Context())


def test_functions_are_refused() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[n] x) => (float[n] y) { y = local.twice (x) }
        <opset_import: ["" : 17], domain: "local">
        twice (a) => (b) { b = Add (a, a) }"""
    with pytest.raises(PassError, match="functions of its own"):
        convert(ir.from_onnx_text(text))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_alone_are_stored_for_a_cpu(
    kind: str, run: Any, run_fused: Any, fused: Any, decibels: Any
) -> None:
    rng = np.random.default_rng(0)
    large = rng.normal(size=(16, 300)).astype(np.float32)
    model = build(ROWS, "a = MatMul (x, large)\n y = Relu (a)", large=large)
    fed = feeds(model)
    (before,) = run(model, fed)
    result = Float16(type=kind, size_only=True).rewrite(model, Context())
    assert operators(model) == "Cast MatMul Relu"
    assert result.details["bytes"] == [4 * large.size, 2 * large.size]
    assert decibels(before, run(model, fed)[0]) > (45 if kind == "float16" else 30)
    assert decibels(before, run_fused(model, fed)[0]) > (45 if kind == "float16" else 30)
    assert "Cast" not in fused(model)  # done once, when the model is loaded
    assert not Float16(type=kind, size_only=True).rewrite(model, Context()).modified


@pytest.mark.parametrize("options", [{"type": "float8"}, {"samples": -1}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Float16(**options)
