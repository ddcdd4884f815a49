"""Peak memory: in a process of its own, so what this process holds does not count."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxpress.backends import memory
from onnxpress.backends.errors import BackendError
from onnxpress.backends.memory import peak_rss_mb


def gather(folder: Path, megabytes: int) -> Path:
    proto = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["" : 17]>
    main (int64[n] file, string[1] s) => (float[n,m] y, string[1] t) {
      y = Gather(w, file)
      t = Identity(s)
    }""")
    weight = np.ones((megabytes, 2**18), np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(proto, folder / f"{megabytes}.onnx")
    return folder / f"{megabytes}.onnx"


FEEDS: dict[str, Any] = {"file": np.array([0]), "s": np.array(["ä"], dtype=object)}


def test_it_grows_with_the_weights_and_not_with_this_process(tmp_path: Path) -> None:
    ballast = np.ones((400, 2**18), np.float32)

    small = peak_rss_mb(gather(tmp_path, 1), FEEDS, threads=1)
    large = peak_rss_mb(gather(tmp_path, 100), FEEDS, threads=1)

    assert small is not None
    assert large is not None
    assert 30 < small < 120
    assert 95 < large - small < 350  # the weights, and ONNX Runtime's copies while it loads
    assert ballast.nbytes > 400e6


def test_errors_come_from_the_other_process(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"none.onnx cannot be run.*File doesn't exist"):
        peak_rss_mb(tmp_path / "none.onnx", FEEDS)
    with pytest.raises(BackendError, match="Invalid rank for input: file"):
        peak_rss_mb(gather(tmp_path, 1), {**FEEDS, "file": np.array(0)})


def test_a_process_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-9))

    with pytest.raises(BackendError, match="ended with code -9") as caught:
        peak_rss_mb(tmp_path / "m.onnx", FEEDS)
    assert "no memory left" in caught.value.hint


@pytest.mark.parametrize(
    "odd", [np.zeros(1, ml_dtypes.bfloat16), [np.zeros(1)], np.array([{}], dtype=object)]
)
def test_feeds_that_no_file_holds_are_not_measured(tmp_path: Path, odd: Any) -> None:
    assert peak_rss_mb(tmp_path / "m.onnx", {"x": odd}) is None


def test_without_proc_the_systems_own_figure_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = memory._peak_mb()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")

    assert memory._peak_mb() == pytest.approx(exact, rel=0.5)


def test_cuda_is_asked_for_before_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[Any] = []
    monkeypatch.setattr(memory, "prepare_provider", asked.append)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **kw: asked.append(kw))
    task = {"model": "m", "options": {}, "provider": "cuda", "feeds": "none.npz", "names": []}

    assert "none.npz" in memory._main(task)["error"]
    assert asked == [
        "cuda",
        {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "enable_fallback": 0},
    ]
