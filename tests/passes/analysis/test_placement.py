"""Where nodes run on CUDA, told from the graph and the table of the provider's kernels."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress.backends import cuda_kernels
from onnxpress.passes.analysis.placement import cuda_placement


def placed(text: str, opset: int = 17) -> dict[str, Any]:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1, "own" : 1]> '
    return cuda_placement(ir.from_proto(onnx.parser.parse_model(header + text)))


def test_a_plain_network_runs_on_the_gpu_in_every_float_that_has_kernels() -> None:
    for dtype in ("float", "float16"):
        found = placed(
            f"g ({dtype}[n,3,8,8] x, {dtype}[4,3,3,3] w) => ({dtype}[n,4,6,6] y) "
            "{ c = Conv (x, w)  k = Constant <value_int = 1> ()  y = Relu (c) }"
        )
        assert (found["cuda"], found["cpu"], found["fallbacks"]) == (2, 0, [])


@pytest.mark.parametrize(
    ("text", "operator", "reason"),
    [
        ("g (float[n] x) => (float[n] y) { y = Acos (x) }", "Acos", "there is no kernel for it"),
        ("g (bfloat16[1,3,8,8] x, bfloat16[4,3,3,3] w) => (bfloat16[1,4,6,6] y) "
         "{ y = Conv (x, w) }", "Conv",
         "there is no kernel for bfloat16, only for double, float, float16"),
        ("g (float[n] x) => (string[n] y) { y = Cast <to = 8> (x) }", "Cast",
         "there is no kernel for string, only for "),
        ("g (float[n] x) => (float[n] y) { y = com.microsoft.NoSuch (x) }", "com.microsoft:NoSuch",
         "there is no kernel for it"),
    ],
)  # fmt: skip
def test_what_falls_back_is_told_with_its_reason(text: str, operator: str, reason: str) -> None:
    found = placed(text)
    (row,) = found["fallbacks"]
    assert (row["operator"], row["nodes"], found["cpu"]) == (operator, 1, 1)
    assert row["reason"].startswith(reason)


def test_branches_and_functions_are_looked_into() -> None:
    found = placed(
        "g (bool b, float[2] x) => (float[2] y) { y = If (b) <"
        "then_branch = t () => (float[2] o) { o = Acos (x) },"
        "else_branch = e () => (float[2] p) { p = own.f (x) }> } "
        '<domain: "own", opset_import: ["" : 17]> f (a) => (c) { c = Acos (a) }'
    )
    assert found["cuda"] == 1
    assert [(row["operator"], row["nodes"]) for row in found["fallbacks"]] == [("Acos", 2)]


def test_a_kernel_without_an_end_is_for_the_definition_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {"Relu": [[6, 12, {}], [13, None, {}]]}
    monkeypatch.setattr(cuda_kernels, "kernels", lambda: table)
    text = "g (float[n] x) => (float[n] y) { y = Relu (x) }"
    assert [placed(text, opset)["cpu"] for opset in (9, 13, 17)] == [0, 0, 1]
    assert placed(text)["fallbacks"][0]["reason"] == (
        "there is no kernel for its definition of opset 14"
    )


def test_the_table_is_whole() -> None:
    table = cuda_kernels.kernels()
    assert {"Conv", "MatMul", "com.microsoft:FusedMatMul", "LayerNormalization"} <= table.keys()
    for kernels in table.values():
        for first, last, types in kernels:
            assert first >= 1
            assert last is None or last >= first
            assert all(types.values())
