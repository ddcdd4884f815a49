"""What tools do with models that are damaged, hostile or merely odd.

Each tool gets each file in a process of its own, with a time limit and a limit on memory. A clear
error is a good answer to a damaged file; a crash, a hang, or a result that answers otherwise than
the original is a bad one to any file.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort

import onnxpress
from onnxpress.backends.errors import OnnxpressError

from .apart import CallError, apart, first_line
from .odd_models import ODD
from .peers import PEERS

OURS = "-O 2"
TOOLS = (OURS, *PEERS)
MEMORY = 8 << 30
"""Bytes of addresses that a process may take."""

Outcome: TypeAlias = Literal["result", "error", "exception", "wrong", "invalid", "crash", "hang"]
BAD: Mapping[Outcome, str] = {
    "exception": "an exception that says nothing of the model",
    "wrong": "a result that answers otherwise",
    "invalid": "a result that ONNX Runtime does not load, while it loads the original",
    "crash": "the process dies",
    "hang": "no answer in time",
}
"""The outcomes that nobody wants. ``exception`` counts for onnxpress only, whose errors are told
from faults by their type; what others raise is an ``error``."""


def measure(case: str, tool: str, *, limit: float) -> dict[str, Any]:
    """The row of ``tool`` on the model called ``case``: what came of it, and the message."""
    head: dict[str, Any] = {"case": case, "tool": tool}
    try:
        outcome, message = apart(_run, case, tool, limit=limit)
    except CallError as error:
        crashed = "ended with code" in str(error)
        return head | {"outcome": "crash" if crashed else "hang", "message": str(error)}
    return head | {"outcome": outcome, "message": message}


def _run(case: str, tool: str) -> tuple[Outcome, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ODD[case](path)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        output = Path(folder) / "out.onnx"
        try:
            _compile(path, tool, output)
        except OnnxpressError as error:
            return "error", first_line(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            return "exception" if tool == OURS else "error", f"{type(error).__name__}: {error}"[
                :200
            ]
        return _judged(path, output)


def _compile(path: Path, tool: str, output: Path) -> None:
    if tool == OURS:
        outcome = onnxpress.optimize(onnxpress.load(path), level=2, time=False)
        onnxpress.save(outcome.model, output)
    else:
        onnx.save(PEERS[tool].simplify(onnx.load(path)), output)


def _judged(before: Path, after: Path) -> tuple[Outcome, str]:
    """Whether the model at ``after`` answers as that at ``before``, if this one answers at all."""
    try:
        expected = _answers(before)
    except Exception:  # noqa: BLE001 - then there is nothing to keep
        return "result", "the original cannot be run"
    try:
        found = _answers(after)
    except Exception as error:  # noqa: BLE001
        return "invalid", first_line(error)
    same = len(found) == len(expected) and all(
        np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
        for one, other in zip(found, expected, strict=True)
    )
    return ("result", "") if same else ("wrong", "the answers are others")


def _answers(path: Path) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for one in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in one.shape]
        feeds[one.name] = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    answers: list[Any] = session.run(None, feeds)
    return answers


def counted(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """For each tool, how often each outcome came."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        kinds = found.setdefault(row["tool"], {})
        kinds[row["outcome"]] = kinds.get(row["outcome"], 0) + 1
    return found
