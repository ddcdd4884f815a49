"""Sessions in processes of their own answer, are timed, fail and end like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress.backends.base import SessionConfig
from onnxpress.backends.errors import BackendError
from onnxpress.backends.remote import RemoteSession
from onnxpress.backends.timing import OwnClock, compare_latency

FLUSHING = SessionConfig(entries={"session.set_denormal_as_zero": "1"}, threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[n] x, string[1] s) => (float[n] y, string[1] t) {
      y = Add(x, x)
      t = Identity(s)
    }""")
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def feeds(*items: float) -> dict[str, np.ndarray]:
    return {
        "x": np.array(items, np.float32),
        "s": np.array(["ä"], dtype=object),
    }


def test_it_answers_is_timed_and_fails_from_over_there(model: Path) -> None:
    with RemoteSession(model, SessionConfig(threads=1), feeds(1.0)) as session:
        assert [spec.name for spec in session.inputs] == ["x", "s"]
        assert [spec.name for spec in session.outputs] == ["y", "t"]
        answers = session.run(feeds(2.0, 3.0))
        assert answers["y"].tolist() == [4.0, 6.0]
        assert answers["t"].tolist() == ["ä"]
        with pytest.raises(BackendError, match="has no input 'z'"):
            session.run({"z": np.zeros(1)})
        assert isinstance(session, OwnClock)
        assert session.rest == 0.0
        assert len(session.turn(3)) == 3
        timings = compare_latency([session, session], seconds=0.05, warmup=0.01)
        assert timings.latencies[0].median_ms > 0
    with pytest.raises(BackendError, match="in a process of its own: it ended with code"):
        session.turn(1)


def test_denormal_numbers_are_flushed_as_each_process_is_told(model: Path) -> None:
    tiny = feeds(1e-39)
    with RemoteSession(model, SessionConfig()) as kept, RemoteSession(model, FLUSHING) as flushed:
        assert kept.run(tiny)["y"][0] > 0
        assert flushed.run(tiny)["y"][0] == 0


def test_what_cannot_be_loaded(tmp_path: Path, model: Path) -> None:
    with pytest.raises(BackendError, match=r"none.onnx cannot be loaded.*doesn't exist"):
        RemoteSession(tmp_path / "none.onnx", SessionConfig())
    with pytest.raises(BackendError, match="has no input 'z'"):
        RemoteSession(model, SessionConfig(), {"z": np.zeros(1)})
