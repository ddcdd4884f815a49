"""onnxpress: a compiler over ONNX graphs.

Everything public is imported from here and loaded on first use, so that ``import onnxpress``
costs milliseconds and pulls in neither onnx_ir nor onnxruntime nor onnxsim.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backends.errors import OnnxpressError as OnnxpressError
    from .passes.base import Context as Context
    from .passes.base import Pass as Pass
    from .passes.base import Result as Result

_HOME = {
    "OnnxpressError": "backends.errors",
    "Context": "passes.base",
    "Pass": "passes.base",
    "Result": "passes.base",
}

__all__ = ["__version__", "Context", "OnnxpressError", "Pass", "Result"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
