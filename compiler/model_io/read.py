"""Read a model from a file, and refuse with a reason what is no model."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from ...backends.errors import ModelError


def load(path: str | Path) -> ir.Model:
    """The model in ``path``; its external data stays mapped, not copied.

    Raises:
        ModelError: ``path`` holds no valid model.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"there is no file {path}", hint="check the spelling of the path")
    try:
        return ir.load(path)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"{path} is not an ONNX model: {error}") from error
