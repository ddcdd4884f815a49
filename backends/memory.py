"""The peak memory of a model, measured in a process of its own, which this module also is."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from .base import Feeds, Provider
from .errors import BackendError
from .messages import backend_error
from .options import set_options
from .providers import CUDA, prepare_provider

_RUNS: Final = 3
_STATUS: Final = Path("/proc/self/status")


def peak_rss_mb(
    model: Path,
    feeds: Feeds,
    *,
    provider: Provider = "cpu",
    threads: int = 0,
    options: Mapping[str, Any] | None = None,
) -> float | None:
    """The largest resident set, in MiB, of a process that loads ``model`` and runs it three times.

    It is what a small program needs: the interpreter, NumPy and ONNX Runtime (about 45 MiB), the
    feeds, the weights as often as ONNX Runtime copies and prepacks them in its default session,
    activations, and the pages of external data that it maps and touches. Memory of a GPU is not
    in it. ``options`` are set besides (:mod:`.options`). ``None`` where a feed is of a type that
    NumPy's files do not hold.

    Raises:
        BackendError: The model cannot be loaded or run there.
    """
    arrays = [_storable(array) for array in feeds.values()]
    if any(array is None for array in arrays):
        return None
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        np.savez(Path(folder) / "feeds.npz", *arrays)
        task = {
            "model": str(model.absolute()),
            "names": list(feeds),
            "feeds": str(Path(folder) / "feeds.npz"),
            "provider": provider,
            "options": {"intra_op_num_threads": threads, **(options or {})},
        }
        # -P: modules of the working folder must not stand in for others.
        command = [sys.executable, "-P", "-m", f"{__package__}.memory", json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    doing = f"{model} cannot be run in a process of its own"
    if done.returncode:
        raise BackendError(
            f"{doing}: it ended with code {done.returncode}",
            hint="code -9 is what the system gives a process for which it has no memory left",
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise backend_error(RuntimeError(answer["error"]), doing)
    return float(answer["peak_rss_mb"])


def _storable(array: Any) -> Any:
    """``array`` as NumPy's files hold it, or ``None``."""
    kind = getattr(array, "dtype", np.dtype("V1")).kind
    if kind == "O" and all(isinstance(item, str) for item in array.flat):
        return array.astype(str)
    return array if kind in "biufSU" else None


def _run(task: dict[str, Any]) -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    set_options(options, task["options"])
    providers = ["CPUExecutionProvider"]
    if task["provider"] == "cuda":
        prepare_provider("cuda")
        providers.insert(0, CUDA)
    session = ort.InferenceSession(task["model"], options, providers=providers, enable_fallback=0)
    with np.load(task["feeds"]) as stored:
        arrays = [stored[f"arr_{index}"] for index in range(len(task["names"]))]
    texts = [array.astype(object) if array.dtype.kind == "U" else array for array in arrays]
    feeds = dict(zip(task["names"], texts, strict=True))
    for _ in range(_RUNS):
        session.run(None, feeds)


def _peak_mb() -> float:
    """The peak of this process since it began its program.

    Not ``ru_maxrss``, which on Linux also remembers the process that started this one.
    """
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main(task: dict[str, Any]) -> dict[str, Any]:
    try:
        _run(task)
    except Exception as error:  # noqa: BLE001 - it becomes the parent's BackendError
        return {"error": str(error)}
    return {"peak_rss_mb": _peak_mb()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_main(json.loads(sys.argv[1]))))
