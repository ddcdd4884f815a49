"""Which channels of which weights pruning kept, as a file for other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..backends.errors import OutputError
from .report import Report


def write_masks(report: Report, path: Path) -> None:
    """Write an ``.npz`` with one array for each axis of each weight that lost channels.

    It is called ``weight:axis``, such as ``layer1.conv.weight:0``, and holds the indices that
    stayed, in the names and shapes of the model as pruning found it.

    Raises:
        OutputError: The file cannot be written.
    """
    kept = {
        f"{name}:{axis}": np.array(indices, dtype=np.int64)
        for record in report.passes
        for name, axes in record.details.get("kept", {}).items()
        for axis, indices in axes.items()
    }
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **kept)  # type: ignore[arg-type]
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
