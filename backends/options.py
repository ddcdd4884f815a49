"""Session options by the names that ``onnxruntime.SessionOptions`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .base import OptimizationLevel, SessionConfig
from .messages import backend_error

LEVELS: Final[dict[OptimizationLevel, str]] = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
"""ONNX Runtime's names of its graph-optimization levels."""


def options_of(config: SessionConfig) -> dict[str, Any]:
    """What ``config`` sets otherwise than a default session, apart from the provider."""
    default = SessionConfig()
    found: dict[str, Any] = {}
    if config.level != default.level:
        found["graph_optimization_level"] = LEVELS[config.level]
    if config.threads != default.threads:
        found["intra_op_num_threads"] = config.threads
    if config.mem_pattern != default.mem_pattern:
        found["enable_mem_pattern"] = config.mem_pattern
    if config.arena != default.arena:
        found["enable_cpu_mem_arena"] = config.arena
    entries = dict(config.entries)
    if not config.prepacking:
        entries["session.disable_prepacking"] = "1"
    if entries:
        found["config_entries"] = entries
    return found


def set_options(native: Any, options: Mapping[str, Any]) -> None:
    """Set ``options`` on ``native``, an ``onnxruntime.SessionOptions``.

    Raises:
        BackendError: ONNX Runtime does not accept an entry.
    """
    import onnxruntime as ort

    for name, value in options.items():
        if name == "config_entries":
            for key, entry in value.items():
                try:
                    native.add_session_config_entry(key, entry)
                except RuntimeError as error:
                    doing = f"the session entry {key!r} is not accepted"
                    raise backend_error(error, doing) from error
        elif name == "graph_optimization_level":
            native.graph_optimization_level = getattr(ort.GraphOptimizationLevel, value)
        else:
            setattr(native, name, value)
