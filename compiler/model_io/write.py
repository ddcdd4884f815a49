"""Write a model to a file, all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from ...backends.errors import OutputError


def save(
    model: ir.Model,
    path: str | Path,
    *,
    force: bool = False,
    protect: Sequence[Path] = (),
    external_data: bool | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write ``model`` to ``path`` and return the files written, the model file first.

    Raises:
        OutputError: The model cannot be written there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}", hint="create it first")
    for source in protect:
        if path.exists() and source.exists() and path.samefile(source) and not force:
            raise OutputError(f"{path} is the input", hint="use --force to overwrite it")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        ir.save(model, temporary)
        os.replace(temporary, path)
    return [path]
