"""How much memory compiling a file takes at its peak: onnxpress and other simplifiers.

Each run is a process of its own that reads the file, compiles it and writes the result. What the
process took before, with all of its modules imported, is taken off.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import onnxpress

from .apart import CallError, apart
from .compile_time import ours
from .peers import PEERS

LEVELS = (1, 2)
TOOLS = (*map(ours, LEVELS), *PEERS)


@dataclass(frozen=True)
class Peak:
    """Bytes of a model's file, and those that a process took on top of its modules at its peak."""

    file: int
    taken: int

    @property
    def times(self) -> float:
        """How many times the size of the file that is."""
        return self.taken / self.file


def measure(path: Path, tool: str, *, limit: float) -> dict[str, Any]:
    """The row of ``tool`` on the model at ``path``: its peak, or how it ``failed``."""
    head: dict[str, Any] = {"tool": tool, "file": path.stat().st_size}
    try:
        peak = apart(_peak, path, tool, limit=limit)
    except CallError as error:
        return head | {"failed": str(error)}
    return head | {"taken": peak.taken, "times": peak.times}


def _peak(path: Path, tool: str) -> Peak:
    with tempfile.TemporaryDirectory() as folder:
        # Modules come with the first use, so that a small model goes before.
        small = Path(folder) / "small.onnx"
        onnx.save(_small(), small)
        _compile(small, tool, Path(folder) / "small.out.onnx")
        before = _resident("VmRSS")
        _forget_peak()
        _compile(path, tool, Path(folder) / "out.onnx")
    return Peak(path.stat().st_size, max(0, _resident("VmHWM") - before))


def _compile(path: Path, tool: str, output: Path) -> None:
    for level in LEVELS:
        if tool == ours(level):
            model = onnxpress.load(path)
            outcome = onnxpress.optimize(model, level=level, verify=False, time=False)
            onnxpress.save(outcome.model, output)
            return
    onnx.save(PEERS[tool].simplify(onnx.load(path)), output)


def _small() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu (x) }'
    )


def _resident(what: str) -> int:
    """Bytes that ``/proc/self/status`` gives for ``what``: of this process since it began."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {what}")


def _forget_peak() -> None:
    """Let ``VmHWM`` begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
