"""Session files come back as they were written, say what is wrong with them, and make sessions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest

import onnxpress
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.errors import BackendError, UsageError
from onnxpress.backends.options import options_of
from onnxpress.compiler.compile import Outcome
from onnxpress.compiler.report import Report
from onnxpress.compiler.report_text import plain_lines, session_lines
from onnxpress.compiler.session_file import (
    DENORMALS,
    read_session,
    session_path,
    write_session,
)

CHOSEN = SessionConfig(
    level="extended", threads=2, mem_pattern=False, arena=False, entries={DENORMALS: "1"}
)


MEASURED = cast(
    "Report",  # as much of one as a session file tells
    SimpleNamespace(
        session={"speedup": 1.2, "ci95": [1.1, 1.3]},
        environment={"cpu": {"model": "Some CPU"}, "packages": {"onnxruntime": "1.0"}},
    ),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[n] x) => (float[n] y) { y = Add(x, x) }""")
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def written(path: Path, config: SessionConfig) -> Path:
    write_session(path, config, MEASURED)
    return path


@pytest.mark.parametrize("config", [CHOSEN, SessionConfig(), SessionConfig(provider="cuda")])
def test_options_come_back(tmp_path: Path, config: SessionConfig) -> None:
    path = written(tmp_path / "m.session.json", config)
    assert read_session(path) == config
    assert [one.name for one in tmp_path.iterdir()] == ["m.session.json"]


def test_the_file_lies_beside_the_model() -> None:
    assert session_path("a/out.opt.onnx") == Path("a/out.opt.session.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"threads": 1}', "unknown key 'threads'"),
        ('{"intra_op_num_threads": true}', "gives intra_op_num_threads a bool"),
        ('{"graph_optimization_level": "ALL"}', "unknown value 'ALL'"),
        ('{"provider": "TPU"}', "unknown value 'TPU'"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.session.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_session(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the session file") as caught:
        read_session(tmp_path / "none.session.json")
    assert "-O 3" in caught.value.hint


def test_a_session_has_the_options_of_its_file(model: Path) -> None:
    default = onnxpress.session(model).get_session_options()
    assert default.intra_op_num_threads == 0
    assert default.enable_mem_pattern
    written(session_path(model), SessionConfig(threads=2, mem_pattern=False))
    made = onnxpress.session(str(model))
    options = made.get_session_options()
    assert (options.intra_op_num_threads, options.enable_mem_pattern) == (2, False)
    (answer,) = made.run(None, {"x": np.ones(2, np.float32)})
    assert answer.tolist() == [2.0, 2.0]


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="there is no model"):
        onnxpress.session(tmp_path / "none.onnx")


@pytest.mark.parametrize("late", [False, True])
def test_flushing_denormal_numbers_needs_the_first_session(model: Path, late: bool) -> None:
    written(session_path(model), CHOSEN)
    script = f"""
import warnings, numpy as np, onnxruntime as ort, onnxpress
if {late}:
    ort.InferenceSession({str(model)!r}, providers=["CPUExecutionProvider"])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    session = onnxpress.session({str(model)!r})
print([str(one.message) for one in caught])
print(session.run(None, {{"x": np.full(1, 1e-39, np.float32)}})[0][0] == 0)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    warned, flushed = done.stdout.splitlines()
    assert ("load this model first" in warned) == late
    assert flushed == str(not late)


def test_the_lines_that_are_printed_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    config = SessionConfig(level="basic", threads=1, arena=False, entries={"a.b": "1"})
    written(session_path(model), config)
    inputs = {"inputs": {"x": np.ones(1, np.float32)}}
    short: dict[str, Any] = dict(inputs)
    exec(session_lines("m.onnx"), short)
    plain: dict[str, Any] = dict(inputs)
    exec(plain_lines("m.onnx", options_of(config)), plain)
    assert short["answers"][0].tolist() == [2.0]
    for made in (short["session"], plain["session"]):
        options = made.get_session_options()
        assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
        assert (options.intra_op_num_threads, options.enable_cpu_mem_arena) == (1, False)
        assert options.get_session_config_entry("a.b") == "1"


def test_an_outcome_saves_both_files(model: Path) -> None:
    loaded = onnxpress.load(model)
    Outcome(loaded, MEASURED).save(model.with_name("plain.onnx"))
    Outcome(loaded, MEASURED, CHOSEN).save(model.with_name("fast.onnx"))
    assert not model.with_name("plain.session.json").exists()
    assert read_session(model.with_name("fast.session.json")) == CHOSEN
