"""Models timed against each other: the same inputs for all, refusals, and the JSON keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress.backends.errors import BackendError, DataError, ModelError, UsageError
from onnxpress.compiler.bench import bench

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


def _available() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())
