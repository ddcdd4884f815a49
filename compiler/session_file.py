"""Session files: the options with which ONNX Runtime runs a model fastest, beside the model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..backends.base import Provider, SessionConfig
from ..backends.errors import BackendError, UsageError
from ..backends.options import LEVELS, options_of
from ..backends.ort import session_of
from .model_io.atomic import Staged
from .report import Report

DENORMALS: Final = "session.set_denormal_as_zero"
"""The entry that flushes denormal numbers to zero; the first session of a process settles it."""

_PROVIDERS: Final[dict[Provider, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
_TYPES: Final = {
    "provider": str,
    "graph_optimization_level": str,
    "intra_op_num_threads": int,
    "enable_mem_pattern": bool,
    "enable_cpu_mem_arena": bool,
    "config_entries": dict,
    "measured": dict,
}


def session_path(model: str | Path) -> Path:
    """Where the session file of ``model`` lies: ``out.session.json`` for ``out.onnx``."""
    return Path(model).with_suffix(".session.json")


def write_session(path: Path, config: SessionConfig, report: Report) -> None:
    """Write ``config`` to ``path``, with what ``report`` says of it, whole or not at all.

    Raises:
        OutputError: It cannot be written there.
    """
    content = {
        "provider": _PROVIDERS[config.provider],
        **options_of(config),
        "measured": {
            "speedup": report.session["speedup"],
            "ci95": report.session["ci95"],
            "cpu": report.environment["cpu"]["model"],
            "packages": report.environment["packages"],
        },
    }
    with Staged() as staged:
        staged.write(path, [(json.dumps(content, indent=2) + "\n").encode()])
        staged.commit()


def read_session(path: Path) -> SessionConfig:
    """The options in the session file ``path``.

    Raises:
        UsageError: It is missing, is not JSON, or holds what no session file does.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot read the session file {path}: {error.strerror}",
            hint="`onnxpress optimize -O 3` writes one where other options are faster",
        ) from error
    except ValueError as error:
        raise UsageError(f"the session file {path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"the session file {path} holds no JSON object")
    for key, value in found.items():
        if key not in _TYPES:
            raise UsageError(
                f"the session file {path} has an unknown key {key!r}",
                hint=f"a session file's keys are {', '.join(_TYPES)}",
            )
        if type(value) is not _TYPES[key]:
            raise UsageError(f"the session file {path} gives {key} a {type(value).__name__}")
    levels = {text: level for level, text in LEVELS.items()}
    providers = {text: provider for provider, text in _PROVIDERS.items()}
    try:
        return SessionConfig(
            provider=providers[found.get("provider", _PROVIDERS["cpu"])],
            level=levels[found.get("graph_optimization_level", LEVELS["all"])],
            threads=found.get("intra_op_num_threads", 0),
            mem_pattern=found.get("enable_mem_pattern", True),
            arena=found.get("enable_cpu_mem_arena", True),
            entries={str(k): str(v) for k, v in found.get("config_entries", {}).items()},
        )
    except KeyError as error:
        raise UsageError(f"the session file {path} has the unknown value {error}") from error


def session(model: str | Path) -> Any:
    """An ``onnxruntime.InferenceSession`` of ``model``, with the options of its session file.

    ``onnxpress optimize -O 3`` writes ``out.session.json`` beside ``out.onnx`` where other options
    than the default ones were measured to be faster. Without such a file it is a default session.

    Where the file asks for denormal numbers to be flushed to zero, this has to be the first session
    of the process, for ONNX Runtime asks the first one only; a warning says if it came too late.
    The calling thread flushes them from then on, in NumPy as well.

    Args:
        model: The model file.

    Raises:
        UsageError: The session file holds what no session file does.
        BackendError: ONNX Runtime cannot load the model.
    """
    path = session_path(model)
    config = read_session(path) if path.exists() else SessionConfig()
    if not Path(model).exists():
        raise BackendError(f"there is no model {model}")
    made = session_of(Path(model), config)
    if config.entries.get(DENORMALS) == "1" and np.float32(1e-39) * np.float32(1) != 0:
        warnings.warn(
            f"{model} runs without flushing denormal numbers, which {path.name} asks for: "
            "an earlier one in this process settled that; load this model first",
            stacklevel=2,
        )
    return made.native
