"""Models timed at several batch sizes and numbers of threads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress.backends.errors import DataError, UsageError
from onnxpress.backends.timing import Latency
from onnxpress.compiler.bench import BenchReport, ModelBench
from onnxpress.compiler.sweep import Point, SweepReport, sweep

MODEL = """<ir_version: 9, opset_import: ["" : 17]>
main (float[{0},8] x, float[{0},8] z, float[3] w) => (float[{0},8] y) {{
  a = Add(x, z)  s = ReduceSum(w)  y = Mul(a, s)
}}"""


def saved(folder: Path, batch: str) -> Path:
    onnx.save(onnx.parser.parse_model(MODEL.format(batch)), folder / f"{batch}.onnx")
    return folder / f"{batch}.onnx"


def point(batch: int | None, threads: int, p90: float, median: float) -> Point:
    model = ModelBench("m.onnx", Latency(median, median, p90, p90, 9), None)
    return Point(batch, threads, BenchReport([model], [], "cpu", threads, {}, {}))


@pytest.mark.parametrize("batch", ["N", "seq"])
def test_every_combination_is_timed_on_its_own_inputs(tmp_path: Path, batch: str) -> None:
    path = saved(tmp_path, batch)

    report = sweep([path, path], batches=(1, 4), threads=(1, 2), seconds=0.1, memory=False)

    found = json.loads(json.dumps(report.to_json()))
    where = [(one["batch"], one["threads"], one["feeds"]["x"]) for one in found["sweep"]]
    assert where == [(1, 1, [1, 8]), (4, 1, [4, 8]), (1, 2, [1, 8]), (4, 2, [4, 8])]
    assert found["sweep"][1]["feeds"] == {"x": [4, 8], "z": [4, 8], "w": [3]}
    assert found["feeds"]["x"] == [1, 8]
    assert {"models", "pairs", "environment"} <= found.keys()
    row = found["sweep"][3]["models"][1]
    assert row["samples_per_second"] == pytest.approx(4000 / row["median_ms"])
    assert len(found["sweep"][3]["pairs"]) == 1
    assert len(found["modes"]) == 2


def test_modes_are_the_best_of_their_kind() -> None:
    report = SweepReport(
        [point(1, 1, 2.0, 1.0), point(8, 1, 9.0, 4.0), point(1, 2, 1.5, 1.4), point(8, 2, 9, 5.0)]
    )

    assert report.modes() == [
        {
            "path": "m.onnx",
            "single_stream": {"p90_ms": 1.5, "batch": 1, "threads": 2},
            "offline": {"samples_per_second": 2000.0, "batch": 8, "threads": 1},
        }
    ]


def test_without_a_batch_there_is_no_throughput() -> None:
    (modes,) = SweepReport([point(None, 1, 2.0, 1.0), point(None, 2, 1.0, 1.0)]).modes()

    assert modes["single_stream"] == {"p90_ms": 1.0, "batch": None, "threads": 2}
    assert "offline" not in modes


def test_batches_come_from_the_data(tmp_path: Path) -> None:
    path = saved(tmp_path, "N")
    rows = np.zeros((6, 8), np.float32)
    text = MODEL.replace(", float[3] w", "").replace(
        "s = ReduceSum(w)  y = Mul(a, s)", "y = Abs(a)"
    )
    onnx.save(onnx.parser.parse_model(text.format("N")), path)
    np.savez(tmp_path / "d.npz", x=rows, z=rows)
    how = {"data": str(tmp_path / "d.npz"), "seconds": 0.1, "memory": False}

    (one,) = sweep([path], batches=(4,), **how).points  # type: ignore[arg-type]

    assert one.report.feeds["x"] == [4, 8]
    with pytest.raises(DataError, match="the data holds 6 samples, fewer than a batch of 8"):
        sweep([path], batches=(8,), **how)  # type: ignore[arg-type]


def test_a_batch_that_cannot_be_set_is_refused(tmp_path: Path) -> None:
    fixed, free = saved(tmp_path, "2"), saved(tmp_path, "N")

    with pytest.raises(UsageError, match=r"the batch size of .*2\.onnx is fixed"):
        sweep([fixed], batches=(1,))
    with pytest.raises(UsageError, match="'N' is given by --dim and by --batch"):
        sweep([free], batches=(1,), dims={"N": 3})
    with pytest.raises(UsageError, match="there is no model"):
        sweep([])
