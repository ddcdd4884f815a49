"""Memory and robustness: peaks are those of the work, and outcomes are what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import memory, robustness
from benchmarks.__main__ import main
from benchmarks.odd_models import ODD
from benchmarks.shipped import path_of


def test_a_peak_is_that_of_the_model(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2000, 2000)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2000] x) => (float[n, 2000] y) '
        "{ y = MatMul (x, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "large.onnx"
    onnx.save(model, path)

    row = memory.measure(path, "-O 1", limit=120)

    assert row["file"] > weight.nbytes
    assert 0.5 * row["file"] < row["taken"] < 6 * row["file"]
    failed = memory.measure(tmp_path / "large.onnx", "-O 1", limit=0.01)
    assert "no answer" in failed["failed"]


@pytest.mark.parametrize(
    ("case", "outcome"),
    [("truncated", "error"), ("an output twice", "result"), ("data elsewhere", "error")],
)
def test_an_outcome_is_told(case: str, outcome: str) -> None:
    row = robustness.measure(case, "-O 2", limit=120)
    assert row["outcome"] == outcome, row


def test_a_result_that_answers_otherwise_is_wrong(tmp_path: Path) -> None:
    before, after, broken = path_of("mnist_cnn_0"), tmp_path / "other.onnx", tmp_path / "no.onnx"
    model = onnx.load(before)
    array = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(2)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(array, model.graph.initializer[0].name)
    )
    onnx.save(model, after)
    broken.write_bytes(b"")

    assert robustness._judged(before, before)[0] == "result"
    assert robustness._judged(before, after)[0] == "wrong"
    assert robustness._judged(before, broken)[0] == "invalid"
    assert robustness._judged(broken, after) == ("result", "the original cannot be run")


def test_every_odd_model_can_be_written(tmp_path: Path) -> None:
    for number, write in enumerate(ODD.values()):
        write(tmp_path / f"{number}.onnx")
    assert len(list(tmp_path.iterdir())) == len(ODD)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["robustness", "--tools", "-O 2", "--results", str(tmp_path)]

    assert main([*arguments, "--cases", "empty"]) == 0
    assert main([*arguments, "--cases", "empty,text", "--resume"]) == 0

    assert "-O 2: nothing bad, of 2" in capsys.readouterr().out
    assert main([*arguments, "--cases", "nonsense"]) == 2
