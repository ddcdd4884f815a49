"""FuseAttention where groups of heads of queries share keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array
from onnxpress.passes.base import Context, Result
from onnxpress.passes.lossless.fuse_attention import FuseAttention

Answers = Callable[..., dict[str, Array]]
Build = Callable[..., ir.Model]

GROUPED = """<ir_version: 10, opset_import: ["" : 18]>
main (float[B,4,S,6] q, float[B,2,P,6] pk, float[B,2,P,8] pv, float[B,2,S,6] k, float[B,2,S,8] v,
      bool[B,1,S,T] seen) => (float[B,4,S,8] y, float[B,2,T,6] keys, float[B,2,T,8] values) {
  keys = Concat <axis = 2> (pk, k)
  values = Concat <axis = 2> (pv, v)
  k5 = Unsqueeze (keys, two)
  ke = Expand (k5, times)
  kr = Reshape (ke, heads6)
  v5 = Unsqueeze (values, two)
  ve = Expand (v5, times)
  vr = Reshape (ve, heads8)
  kt = Transpose <perm = [0, 1, 3, 2]> (kr)
  s = MatMul (q, kt)
  n = Mul (s, root)
  w = Softmax <axis = -1> (n)
  y = MatMul (w, vr)
}"""
SCALED = GROUPED.replace("s = MatMul (q, kt)", "qs = Mul (q, root)  s = MatMul (qs, kt)")
PLAIN = GROUPED.replace("Concat <axis = 2> (pk, k)", "Identity (k)").replace("T]", "S]")
PLAIN = PLAIN.replace("Concat <axis = 2> (pv, v)", "Identity (v)")
PLAIN = PLAIN.replace("2,T,", "2,S,")
MASKED = PLAIN.replace("w = Softmax <axis = -1> (n)", "mask = Where (seen, zero, low)\n"
                       "  m = Add (n, mask)\n  w = Softmax <axis = -1> (m)")  # fmt: skip
ROWLESS = MASKED.replace("bool[B,1,S,S]", "bool[B,1,1,S]")


def arrays(text: str, **given: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"two": np.array([2]), "times": np.array([1, 1, 2, 1, 1])}
    made |= {f"heads{size}": np.array([0, 4, -1, size]) for size in (6, 8)}
    made |= {"root": np.float32(0.4), "zero": np.float32(0), "low": np.finfo(np.float32).min}
    return {name: value for name, value in (made | given).items() if f"{name})" in text
            or f"{name}," in text}  # fmt: skip


def feeds(text: str, batch: int, length: int, past: int) -> dict[str, Array]:
    rng = np.random.default_rng(batch)
    sizes = {"q": (4, length, 6), "k": (2, length, 6), "v": (2, length, 8)}
    sizes |= {"pk": (2, past, 6), "pv": (2, past, 8)}
    made: dict[str, Array] = {
        name: rng.normal(size=(batch, *size)).astype(np.float32) for name, size in sizes.items()
    }
    columns = length if "S] seen" in text else length + past
    rows = 1 if "1,1,S] seen" in text else length
    made["seen"] = rng.random((batch, 1, rows, columns)) < 0.5
    made["seen"][:, :, 0] = False
    return made


def fuse(model: ir.Model) -> Result:
    return FuseAttention().rewrite(model, Context())


@pytest.mark.parametrize(
    ("text", "opset"),
    [(GROUPED, 18), (GROUPED, 23), (GROUPED, 24), (SCALED, 18), (PLAIN, 18), (MASKED, 18),
     (ROWLESS, 18)],
)  # fmt: skip
def test_groups_share_keys_and_values(
    build: Build, answers: Answers, text: str, opset: int
) -> None:
    text = text.replace(": 18]", f": {opset}]")
    model, original = build(text, **arrays(text)), build(text, **arrays(text))

    result = fuse(model)

    assert (result.rewritten, result.declined) == (["Softmax -> w"], {})
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Attention") == 1
    assert not {"MatMul", "Softmax", "Unsqueeze"} & set(kinds)
    for batch, length, past in ((1, 1, 3), (2, 4, 0), (3, 2, 5)):
        fed = feeds(text, batch, length, past)
        for name, expected in answers(original, **fed).items():
            np.testing.assert_allclose(answers(model, **fed)[name], expected, rtol=2e-5, atol=2e-6)
    assert not fuse(model).modified


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        (GROUPED, {"root": np.float32(-1)}, "not positive"),
        (MASKED, {"low": np.float32(-np.inf)}, "not a number"),
        (GROUPED.replace("vr = Reshape (ve, heads8)", "vu = Reshape (ve, heads8)\n  vr = Neg (vu)"),
         {}, "side by side"),
    ],
)  # fmt: skip
def test_it_declines_and_says_why(build: Build, text: str, given: Any, reason: str) -> None:
    model = build(text, **arrays(text, **given))
    before = ir.to_onnx_text(model)

    result = fuse(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())
    assert ir.to_onnx_text(model) == before
