"""The signature that a rewrite has to keep."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxpress.compiler.verify import check_signature

ORIGINAL = "float[batch,4] x, float[n,2] z", "float[batch,3] y, float[3,k] w"


def model(inputs: str, outputs: str) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 17]> main ({inputs}) => ({outputs}) '
        "{ y = Identity(x)  w = Identity(z) }"
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"),
    [
        (*ORIGINAL, ""),
        (ORIGINAL[0], "float[batch,3] y, float[3,7] w", ""),
        (ORIGINAL[0], "float[N,m] y, float[a,b] w", ""),
        ("float[N,4] x, float[m,2] z", ORIGINAL[1], ""),
        ("float[N,M] x, float[m,2] z", ORIGINAL[1], ""),
        ("float[1,4] x, float[n,2] z", ORIGINAL[1], "the input 'x' takes only one size now"),
        ("float[batch,5] x, float[n,2] z", ORIGINAL[1], "the input 'x' changed its size"),
        ("float[batch] x, float[n,2] z", ORIGINAL[1], "the input 'x' changed its rank"),
        ("float16[batch,4] x, float[n,2] z", ORIGINAL[1], "the input 'x' became FLOAT16"),
        ("float[n,2] z, float[batch,4] x", ORIGINAL[1], "the inputs are ['z', 'x']"),
        (ORIGINAL[0], "float[batch,3] y", "the outputs are ['y'] and were ['y', 'w']"),
        (ORIGINAL[0], "float[1,3] y, float[3,k] w", "the output 'y' has a fixed size now"),
        (ORIGINAL[0], "float[batch,2] y, float[3,k] w", "the output 'y' changed its size"),
        (ORIGINAL[0], "double[batch,3] y, float[3,k] w", "the output 'y' became DOUBLE"),
    ],
)
def test_what_is_not_kept_is_told(inputs: str, outputs: str, problem: str) -> None:
    problems = check_signature(model(*ORIGINAL), model(inputs, outputs))
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


def test_a_lost_shape_is_told() -> None:
    candidate = model(*ORIGINAL)
    candidate.graph.outputs[0].shape = None
    assert "the output 'y' lost its shape" in check_signature(model(*ORIGINAL), candidate)[0]


def test_what_the_original_does_not_say_cannot_be_lost() -> None:
    original = model(*ORIGINAL)
    original.graph.outputs[0].shape = None
    original.graph.outputs[0].type = None
    assert check_signature(original, model(*ORIGINAL)) == []
