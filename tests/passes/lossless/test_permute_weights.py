"""PermuteWeights: no Transpose before a dense layer, the same answers, or a stated reason."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.base import Result
from onnxpress.passes.lossless.permute_weights import PermuteWeights

RNG = np.random.default_rng(0)


def model(body: str, *, shape: tuple[int, int] = (24, 5), source: str = "n,2,3,4") -> ir.Model:
    weights: dict[str, Array] = {
        "w": RNG.standard_normal(shape).astype(np.float32),
        "b": np.arange(5, dtype=np.float32),
        "flat": np.array([-1, 24], np.int64),
    }
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> m (float[{source}] x) => (float y) {{ {body} }}',
        initializers=[
            ir.tensor(array, name=name)
            for name, array in weights.items()
            if re.search(rf"\b{name}\b", body)
        ],
    )


def answer(one: ir.Model, x: Array) -> Array:
    (found,) = session_of(one, SessionConfig(level="disabled", threads=1)).run({"x": x}).values()
    return found


LAST = "t = Transpose <perm: ints = [0, 2, 3, 1]> (x)"


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (f"{LAST} f = Reshape (t, flat) y = Gemm (f, w, b)", (24, 5)),
        (
            f"{LAST} f = Flatten (t) y = Gemm <transB: int = 1, alpha: float = 2.0> (f, w, b)",
            (5, 24),
        ),
        (f"{LAST} f = Flatten (t) y = MatMul (f, w)", (24, 5)),
        (
            "t = Transpose <perm: ints = [0, 3, 1, 2]> (x) f = Flatten (t) y = MatMul (f, w)",
            (24, 5),
        ),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_transpose_goes_and_answers_stay(body: str, shape: tuple[int, int], batch: int) -> None:
    one = model(body, shape=shape)
    x = RNG.standard_normal((batch, 2, 3, 4)).astype(np.float32)
    before = answer(one, x)

    result = PermuteWeights()(one)

    assert isinstance(result, Result)
    assert result.modified
    assert "Transpose" not in [node.op_type for node in one.graph]
    assert "w" not in one.graph.initializers
    np.testing.assert_allclose(answer(one, x), before, rtol=1e-5, atol=1e-5)
    assert not PermuteWeights()(one).modified


@pytest.mark.parametrize(
    ("body", "source", "reason"),
    [
        (f"{LAST} f = Flatten (t) y = MatMul (f, w)", "n,c,h,w", "sizes of a sample are not fixed"),
        (
            "t = Transpose <perm: ints = [1, 0, 2, 3]> (x) f = Flatten (t) y = MatMul (f, w)",
            "2,2,3,4",
            "samples do not stay first",
        ),
        (
            f"{LAST} f = Flatten (t) a = MatMul (f, w) z = ReduceSum (w) y = Add (a, z)",
            "n,2,3,4",
            "its weight is read elsewhere as well",
        ),
        (
            f"{LAST} f = Flatten <axis: int = 3> (t) y = MatMul (f, w)",
            "n,2,3,4",
            "does not flatten whole samples",
        ),
    ],
)
def test_what_stays_says_why(body: str, source: str, reason: str) -> None:
    result = PermuteWeights()(model(body, source=source))

    assert isinstance(result, Result)
    assert not result.modified
    (said,) = result.declined.values()
    assert reason in said


def test_what_is_read_in_between_stays() -> None:
    one = model(f"{LAST} f = Flatten (t) a = MatMul (f, w) s = ReduceSum (t) y = Add (a, s)")

    assert not PermuteWeights()(one).modified
