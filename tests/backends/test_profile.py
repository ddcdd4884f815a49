"""The per-operator table: from made-up traces exactly, and of a real model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.backends.errors import BackendError
from onnxpress.backends.profile import OperatorTime, _table, profile

MODEL = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["" : 17]>
main (float[1,8,32,32] x, bool go) => (float[1,8,32,32] y) <float[8,8,3,3] w> {
  c = Conv <pads = [1,1,1,1]> (x, w)
  e = Elu(c)
  d = Conv <pads = [1,1,1,1]> (e, w)
  y = If (go) <then_branch = a () => (float[1,8,32,32] p) { q = Exp(d)
    p = Tanh(q) }, else_branch = b () => (float[1,8,32,32] r) { r = Relu(d) }>
}
""")
del MODEL.graph.initializer[:]
MODEL.graph.initializer.append(
    onnx.numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32) / 72, "w")
)
FEEDS = {"x": np.ones((1, 8, 32, 32), np.float32), "go": np.array(True)}


def test_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    rows = profile(MODEL.SerializeToString(), FEEDS, SessionConfig(threads=1), runs=4)

    calls = {row.op_type: row.calls for row in rows}
    assert calls["Conv"] == 2
    assert calls["Exp"] == calls["Tanh"] == calls["If"] == 1
    assert calls["ReorderOutput"] >= 1  # Elu is not computed in the blocked layout
    assert {row.provider for row in rows} == {"CPUExecutionProvider"}
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.total_ms for row in rows] == sorted((row.total_ms for row in rows), reverse=True)
    assert not list(tmp_path.iterdir())


def test_without_optimizations_the_operators_are_the_models_own(tmp_path: Path) -> None:
    rows = profile(MODEL.SerializeToString(), FEEDS, SessionConfig(level="disabled"), runs=2)

    assert {row.op_type: row.calls for row in rows} == {
        "Conv": 2, "Elu": 1, "Exp": 1, "Tanh": 1, "If": 1
    }  # fmt: skip


def test_nothing_is_left_behind_when_a_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(BackendError):
        profile(MODEL.SerializeToString(), {**FEEDS, "x": np.ones((1, 9, 2, 2), np.float32)})

    assert not list(tmp_path.iterdir())


def node(op: str, ts: int, dur: int) -> dict[str, Any]:
    args = {"op_name": op, "provider": "CPUExecutionProvider"}
    return {"cat": "Node", "name": f"{op}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def test_nested_operators_are_counted_once_and_early_runs_not_at_all() -> None:
    events = [
        run(0, 1000), node("Conv", 1, 999),
        run(2000, 100),
        node("Conv", 2001, 20),
        node("Add", 2030, 10), node("Add", 2040, 10), node("If", 2029, 30),
        {**node("Conv", 2001, 5), "name": "Conv_fence_before"},
        run(3000, 100),
        node("Conv", 3001, 40),
        node("Add", 3050, 5), node("Add", 3055, 5), node("If", 3050, 10),
        run(4000, 9000), node("Conv", 4001, 30), node("Add", 4100, 8), node("Add", 4110, 7),
        node("If", 5000, 5),
    ]  # fmt: skip

    assert _table(events, runs=3) == [
        OperatorTime("Conv", "CPUExecutionProvider", 1, 0.030, 0.6),
        OperatorTime("Add", "CPUExecutionProvider", 2, 0.015, 0.3),
        OperatorTime("If", "CPUExecutionProvider", 1, 0.005, 0.1),
    ]
