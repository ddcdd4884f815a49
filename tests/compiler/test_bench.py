"""Models timed against each other: the same inputs for all, refusals, and the JSON keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import BackendError, DataError, ModelError, UsageError
from onnxpress.backends.timing import Latency
from onnxpress.compiler.bench import BenchReport, ModelBench, bench, check_cuda_graphs

HEADER = '<ir_version: 9, opset_import: ["" : 17]> '
FAST = "main (float[batch,n] x) => (float[batch,n] y) { y = Relu(x) }"
SLOW = """main (float[batch,n] x) => (float[batch,n] y) {
  a = Sin(x)  b = Erf(a)  c = Sin(b)  d = Erf(c)  y = Erf(d)
}"""
DIMS = {"batch": 8, "n": 4096}


def saved(folder: Path, name: str, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(HEADER + text), folder / name)
    return folder / name


def test_a_slower_model_is_found_and_the_report_has_its_keys(tmp_path: Path) -> None:
    slow, fast = saved(tmp_path, "slow.onnx", SLOW), saved(tmp_path, "fast.onnx", FAST)
    stages: list[str] = []

    report = bench(
        [slow, fast], dims=DIMS, threads=1, seconds=0.3, operators=True,
        progress=lambda stage, _done, _total: stages.append(stage),
    )  # fmt: skip

    found = json.loads(json.dumps(report.to_json()))
    assert set(found) == {"models", "pairs", "provider", "threads", "feeds", "environment"}
    for model, path in zip(found["models"], (slow, fast), strict=True):
        assert set(model) == {
            "path", "median_ms", "p10_ms", "p90_ms", "p99_ms", "runs", "peak_rss_mb", "operators"
        }  # fmt: skip
        assert model["path"] == str(path)
        assert 0 < model["p10_ms"] <= model["median_ms"] <= model["p90_ms"] <= model["p99_ms"]
        assert 30 < model["peak_rss_mb"] < 500
    (pair,) = found["pairs"]
    assert (pair["baseline"], pair["candidate"]) == (str(slow), str(fast))
    assert pair["verdict"] == "faster"
    assert 1 < pair["ci95"][0] <= pair["speedup"] <= pair["ci95"][1]
    assert {row["op_type"]: row["calls"] for row in found["models"][0]["operators"]} == {
        "Sin": 2, "Erf": 3
    }  # fmt: skip
    assert found["feeds"] == {"x": [8, 4096]}
    assert found["threads"] == 1
    assert stages == ["reading", "timing", "memory and profile", "memory and profile"]


def test_one_model_alone_without_memory_or_profile(tmp_path: Path) -> None:
    report = bench([saved(tmp_path, "m.onnx", FAST)], dims=DIMS, seconds=0.1, memory=False)

    assert report.pairs == ()
    assert report.models[0].peak_rss_mb is None
    assert "operators" not in report.to_json()["models"][0]


def test_the_users_data_is_fed(tmp_path: Path) -> None:
    model = saved(tmp_path, "m.onnx", FAST)
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 11), np.float32))
    data = str(tmp_path / "d.npz")

    assert bench([model], data=data, seconds=0.1, memory=False).feeds == {"x": [1, 11]}
    batched = bench([model], data=data, dims={"batch": 3}, seconds=0.1, memory=False)
    assert batched.feeds == {"x": [3, 11]}


def test_a_model_in_text_is_timed_and_its_memory_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "m.onnxtxt").write_text(HEADER + FAST)

    report = bench([tmp_path / "m.onnxtxt"], dims=DIMS, seconds=0.1, operators=True)

    assert report.models[0].latency.runs > 0
    assert report.models[0].peak_rss_mb is None
    assert [row.op_type for row in report.models[0].operators] == ["Relu"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (FAST.replace("x", "z"), "its inputs are 'z', not 'x'"),
        (FAST.replace("float[batch,n] x", "double[batch,n] x").replace("=> (float", "=> (double"),
         r"its input 'x' is double\[batch,n\], not float\[batch,n\]"),
        (FAST.replace("[batch,n]", "[batch,n,3]"),
         r"its input 'x' is float\[batch,n,3\], not float\[batch,n\]"),
    ],
)  # fmt: skip
def test_models_that_take_other_inputs_are_refused(
    tmp_path: Path, other: str, message: str
) -> None:
    first, second = saved(tmp_path, "a.onnx", FAST), saved(tmp_path, "b.onnx", other)

    with pytest.raises(UsageError, match=f"b.onnx cannot be timed against .*a.onnx: {message}"):
        bench([first, second])


def test_fixed_and_dynamic_dimensions_go_together(tmp_path: Path) -> None:
    fixed = saved(tmp_path, "fixed.onnx", FAST.replace("[batch,n]", "[2,16]"))
    other = saved(tmp_path, "other.onnx", FAST.replace("[batch,n]", "[3,16]"))
    dynamic = saved(tmp_path, "dynamic.onnx", FAST)

    assert bench([fixed, dynamic], seconds=0.1, memory=False).feeds == {"x": [2, 16]}
    with pytest.raises(UsageError, match=r"float\[3,16\], not float\[2,16\]"):
        bench([fixed, other])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"paths": []}, UsageError),
        ({"paths": ["none.onnx"]}, ModelError),
        ({"data": "none.npz"}, DataError),
        ({"dims": {"nosuch": 3}}, UsageError),
        ({"provider": "cuda"}, BackendError),
    ],
)
def test_what_cannot_be_timed(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    if "provider" in changes and "CUDAExecutionProvider" in _available():
        pytest.skip("this machine has CUDA")
    arguments: dict[str, Any] = {"paths": [saved(tmp_path, "m.onnx", FAST)], **changes}

    with pytest.raises(error):
        bench(**arguments)


STATIC = "main (float[2,4] x) => (float[2,4] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FAST, "need fixed shapes, and that of 'x' in m.onnx is not"),
        (STATIC.replace("=> (float[2,4] y)", "=> (float[2,n] y)"), "that of 'y' in m.onnx"),
        (STATIC.replace("Relu(x)", "Relu(x) c = ReduceMax(x) b = Cast <to = 9> (c) z = If (b) <"
         "then_branch = t () => (float[2,4] o) { o = Abs(x) },"
         "else_branch = e () => (float[2,4] p) { p = Neg(x) }>"),
         "cannot record If, and m.onnx has one"),
        (STATIC.replace("Relu", "Acos"), "in m.onnx Acos is not: there is no kernel for it"),
    ],
)  # fmt: skip
def test_what_cuda_graphs_cannot_run_is_refused(text: str, message: str) -> None:
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        check_cuda_graphs(model, "m.onnx")
    assert "leave --cuda-graphs away" in (caught.value.hint or "")


def test_cuda_graphs_are_for_cuda_and_fixed_shapes(tmp_path: Path) -> None:
    check_cuda_graphs(ir.from_proto(onnx.parser.parse_model(HEADER + STATIC)), "m.onnx")
    with pytest.raises(UsageError, match="CUDA graphs need the CUDA provider"):
        bench([saved(tmp_path, "m.onnx", STATIC)], cuda_graphs=True)


def test_transfers_stand_apart_where_they_were_measured() -> None:
    latency = Latency(1.0, 1.0, 1.0, 1.0, 9)
    rows = [ModelBench("m", latency, None, transfer_ms=ms) for ms in (0.5, None)]
    found = BenchReport(rows, [], "cuda", 0, {}, {}).to_json()["models"]
    assert found[0]["transfer_ms"] == 0.5
    assert "transfer_ms" not in found[1]


def _available() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())
