"""onnxpress: a compiler over ONNX graphs.

Everything public is imported from here and loaded on first use, so that ``import onnxpress``
costs milliseconds and pulls in neither onnx_ir nor onnxruntime nor onnxsim.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backends.data import Data as Data
    from .backends.data import open_data as open_data
    from .backends.errors import OnnxpressError as OnnxpressError
    from .backends.targets import Target as Target
    from .compiler.api import optimize as optimize
    from .compiler.compare import compare as compare
    from .compiler.compile import Outcome as Outcome
    from .compiler.frontends import from_keras as from_keras
    from .compiler.frontends import from_torch as from_torch
    from .compiler.manager import Hook as Hook
    from .compiler.manager import PassManager as PassManager
    from .compiler.manager import PassRecord as PassRecord
    from .compiler.model_io import load as load
    from .compiler.model_io import save as save
    from .compiler.pipeline import parse as parse_pipeline
    from .compiler.report import Report as Report
    from .compiler.session_file import session as session
    from .compiler.verify import Verifier as Verifier
    from .passes.base import Context as Context
    from .passes.base import Contract as Contract
    from .passes.base import Pass as Pass
    from .passes.base import Result as Result
    from .passes.ensembles.merge import merge as merge

_HOME = {
    "Context": "passes.base",
    "Contract": "passes.base",
    "Data": "backends.data",
    "Hook": "compiler.manager",
    "OnnxpressError": "backends.errors",
    "Outcome": "compiler.compile",
    "Pass": "passes.base",
    "PassManager": "compiler.manager",
    "PassRecord": "compiler.manager",
    "Report": "compiler.report",
    "Result": "passes.base",
    "Target": "backends.targets",
    "Verifier": "compiler.verify",
    "compare": "compiler.compare",
    "from_keras": "compiler.frontends",
    "from_torch": "compiler.frontends",
    "load": "compiler.model_io",
    "merge": "passes.ensembles.merge",
    "open_data": "backends.data",
    "optimize": "compiler.api",
    "parse_pipeline": "compiler.pipeline:parse",
    "save": "compiler.model_io",
    "session": "compiler.session_file",
}
"""Where each public name lives; ``module:name`` where it has another name there."""

__all__ = [
    "Context",
    "Contract",
    "Data",
    "Hook",
    "OnnxpressError",
    "Outcome",
    "Pass",
    "PassManager",
    "PassRecord",
    "Report",
    "Result",
    "Target",
    "Verifier",
    "__version__",
    "compare",
    "from_keras",
    "from_torch",
    "load",
    "merge",
    "open_data",
    "optimize",
    "parse_pipeline",
    "save",
    "session",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    value = getattr(importlib.import_module(f".{module}", __name__), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
